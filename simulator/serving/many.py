"""Layouts under many numbers of users, as arrays: the numbers of `serve`, without a replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from roofcast.simulator.serving.answer import prompt_share
from roofcast.simulator.serving.interval import around
from roofcast.simulator.serving.loops import Loops, closed_loops
from roofcast.simulator.serving.means import Mean
from roofcast.simulator.serving.pricing import HOUR, MILLION
from roofcast.simulator.serving.protocol import Numbers

COLUMNS = (  # as in `ServingForecast`; amount: users of all replicas
    "amount", "ttft_s", "tpot_s", "e2e_s", "requests_per_s", "output_tokens_per_s",
    "output_tokens_per_s_per_device", "output_tokens_per_s_per_device_low",
    "output_tokens_per_s_per_device_high", "tokens_per_s_per_user", "tokens_per_s_per_user_low",
    "tokens_per_s_per_user_high", "decoding", "waiting_s", "use", "peak_bytes",
    "usd_per_million_input", "usd_per_million_output", "usd_per_million_output_all",
)  # fmt: skip
FINE = 8  # users up to which every number is taken
RATIO = 1.1  # between neighbours beyond that


def numbers(most: int) -> np.ndarray:
    """Numbers of users from 1 to `most`: every one up to FINE, then by RATIO."""
    found = [1.0]
    while found[-1] < most:
        wider = found[-1] + 1 if found[-1] < FINE else np.rint(RATIO * found[-1] + 0.5)
        found.append(float(min(wider, most)))
    return np.array(found)


def rows(every: Sequence[Loops], usd_per_hour: Sequence[float | None]) -> dict[str, np.ndarray]:
    """A column per quantity for so many users of each replica of layouts, which are of one load,
    model and software, one layout behind the other [SI units, USD]; nan where unknown.

    usd_per_hour: of a device of each layout. Columns have the names of the fields of
    `ServingForecast`.
    """
    found = [_columns(every[part], mean, usd_per_hour[part]) for part, mean in closed_loops(every)]
    return {name: np.concatenate([c[name] for c in found] or [np.zeros(0)]) for name in COLUMNS}


def _columns(
    every: Sequence[Loops], found: Mean, usd_per_hour: Sequence[float | None]
) -> dict[str, np.ndarray]:
    """The columns of mean values of one replica of each layout."""
    load, counts = every[0].of.asked.load, [len(each.users) for each in every]

    def of_each(value: Callable[[Loops], float]) -> np.ndarray:
        return np.repeat(np.array([float(value(each)) for each in every]), counts)

    n, devices = of_each(lambda x: x.of.cut.replicas), of_each(lambda x: x.of.cut.devices)
    amount = np.concatenate([each.amount for each in every])
    busy = amount / np.concatenate([each.users for each in every])  # replicas, as in `assemble`
    groups, fixed = (
        of_each(lambda x: x.held.groups),
        of_each(lambda x: x.held.weight_bytes + x.held.runtime_bytes),
    )
    cache = of_each(
        lambda x: x.held.of_sequence(load.input_len + x.held.reserved * load.output_len)
    )
    usd = np.repeat(np.array([np.nan if u is None else u for u in usd_per_hour]), counts)
    rate = found.requests_per_s * busy
    output = rate * load.output_len
    per_user = _inverse(found.tpot)
    share = prompt_share(load, found)
    of_request = usd * devices / HOUR / rate
    low, high = (output / devices * end for end in _ends("output", of_each))
    slow, fast = (found.tpot * end for end in _ends("tpot", of_each))
    return {
        "amount": amount,
        "ttft_s": found.ttft,
        "tpot_s": found.tpot,
        "e2e_s": found.e2e,
        "requests_per_s": rate,
        "output_tokens_per_s": output,
        "output_tokens_per_s_per_device": output / devices,
        "output_tokens_per_s_per_device_low": low,
        "output_tokens_per_s_per_device_high": high,
        "tokens_per_s_per_user": per_user,
        "tokens_per_s_per_user_low": _inverse(fast),
        "tokens_per_s_per_user_high": _inverse(slow),
        "decoding": found.decoding,
        "waiting_s": found.waiting,
        "use": found.use * busy / n,
        "peak_bytes": fixed + found.decoding / groups * cache,
        "usd_per_million_input": MILLION * of_request * share / load.input_len,
        "usd_per_million_output": MILLION * of_request * (1.0 - share) / load.output_len,
        "usd_per_million_output_all": MILLION * of_request / load.output_len,
    }


def _ends(
    quantity: str, of_each: Callable[[Callable[[Loops], float]], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the 80 % interval of a quantity, as multiples of it."""

    def low(one: Loops) -> float:
        return float(around(1.0, quantity, one.of.server.likeness)[0])

    def high(one: Loops) -> float:
        return float(around(1.0, quantity, one.of.server.likeness)[1])

    return of_each(low), of_each(high)


def _inverse(values: Numbers) -> np.ndarray:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
