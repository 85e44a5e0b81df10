"""One layout under many numbers of users, as arrays: the numbers of `serve`, without a replay."""

from __future__ import annotations

import numpy as np

from roofcast.simulator.serving.answer import Replica, prompt_share
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.interval import around
from roofcast.simulator.serving.means import Mean, closed_loops
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


def rows(of: Replica, held: Room, users: np.ndarray, usd_per_hour: float | None) -> dict:
    """A column per quantity for so many users of each replica [SI units, USD]; nan where unknown.

    Columns have the names of the fields of `ServingForecast`.
    """
    load, n = of.asked.load, of.cut.replicas
    users = np.asarray(users, dtype=float)
    found = closed_loops(of.server, load, held, users, of.spec, of.server.profile.ramp)
    return columns(of, held, found, usd_per_hour) | {"amount": users * n}


def columns(of: Replica, held: Room, found: Mean, usd_per_hour: float | None) -> dict:
    """The columns of mean values of one replica, arrays."""
    load, n, devices = of.asked.load, of.cut.replicas, of.cut.devices
    rate = found.requests_per_s * n
    output = rate * load.output_len
    per_user = np.divide(1.0, found.tpot, out=np.zeros_like(found.tpot), where=found.tpot > 0)
    cache = held.of_sequence(load.input_len + held.reserved * load.output_len)
    share = prompt_share(load, found)
    of_request = (np.nan if usd_per_hour is None else usd_per_hour) * devices / HOUR / rate
    stack = of.server.profile.name
    low, high = around(output / devices, "output", stack)
    slow, fast = around(found.tpot, "tpot", stack)
    return {
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
        "use": found.use,
        "peak_bytes": held.weight_bytes + held.runtime_bytes + found.decoding / held.groups * cache,
        "usd_per_million_input": MILLION * of_request * share / load.input_len,
        "usd_per_million_output": MILLION * of_request * (1.0 - share) / load.output_len,
        "usd_per_million_output_all": MILLION * of_request / load.output_len,
    }


def _inverse(values: Numbers) -> np.ndarray:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
