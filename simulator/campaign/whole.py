"""A whole run from what its step takes and what is said of it: time, goodput, energy, money."""

from __future__ import annotations

import functools
import math
from datetime import date, timedelta
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from roofcast.hwdb.failures import NODE, Rate, hours_between, rate
from roofcast.hwdb.records import Device
from roofcast.simulator.campaign import checkpoints as saves
from roofcast.simulator.campaign import defaults, money
from roofcast.simulator.campaign.goodput import Rhythm, failures, mean_s, segments, simulated_s
from roofcast.simulator.campaign.result import Campaign, Checkpoints, Failures
from roofcast.simulator.campaign.terms import Terms

DRAWS = 1000  # of the simulation
SEED = 20260101
HOUR, DAY = 3600.0, 86400.0
Z80 = NormalDist().inv_cdf(0.9)


class Facts(NamedTuple):
    """What the forecast of a step says."""

    device: Device
    devices: int
    steps: float
    step_s: float
    low_s: float | None  # its 80 % interval
    high_s: float | None
    forward: float  # share of a forward pass in a step
    samples: float  # of a step
    tokens: float | None
    state_bytes: float
    host_rate: float | None  # copy from a device to its host [B/s]; None: unknown
    step_j: float | None  # of all devices
    power_scope: str
    price: float | None  # USD per device-hour
    price_given: bool


class _Plan(NamedTuple):
    """The run before failures."""

    step_s: float
    steps_s: float
    slow_s: float
    eval_s: float
    start_s: float
    rhythm: Rhythm
    saved: dict[str, Any]
    rate: Rate

    @property
    def work_s(self) -> float:
        """Seconds of work, without checkpoints and failures."""
        return self.steps_s + self.slow_s + self.eval_s


def whole(f: Facts, t: Terms) -> tuple[Campaign | None, tuple[str, ...]]:
    """The whole run, None where it does not end since a segment is longer than failures allow; and
    what it assumes.
    """
    plan = _plan(f, t)
    return _forecast(f, t, plan), _said(f, t, plan)


def mean_time_s(f: Facts, t: Terms) -> float:
    """Mean seconds of the whole run, as `whole` gives them; inf where it does not end."""
    plan = _plan(f, t)
    return plan.start_s + mean_s(plan.work_s, plan.rhythm)


def chance(f: Facts, t: Terms, limit_s: float) -> float:
    """The probability that the whole run takes no longer, as `whole` gives that of a deadline."""
    times, _ = _draws(f, _plan(f, t))
    return float(np.mean(times <= limit_s))


def _forecast(f: Facts, t: Terms, plan: _Plan) -> Campaign | None:
    r = plan.rhythm
    mean = mean_s(plan.work_s, r)
    if not math.isfinite(mean):
        return None
    expected = failures(plan.work_s, r)
    n = segments(plan.work_s, r)
    down = expected * r.detect_s
    again = expected * (r.between_s * -math.expm1(-r.restart_s / r.between_s)) if expected else 0.0
    saving = n * r.stall_s
    lost = max(mean - plan.work_s - saving - down - again, 0.0) if expected else 0.0
    time_s = plan.start_s + mean
    times, shares = _draws(f, plan)
    paid = f.devices + t.spares
    low, high, late = (float(np.quantile(times, q)) for q in (0.1, 0.9, 0.95))
    g_low, g_high = (float(np.quantile(shares, q)) for q in (0.1, 0.9))
    goodput = plan.steps_s / time_s
    return Campaign(
        steps=f.steps, step_s=plan.step_s, input_limited=plan.step_s > f.step_s,
        devices=f.devices, spares=t.spares,
        steps_s=plan.steps_s, slow_s=plan.slow_s, eval_s=plan.eval_s, checkpoint_s=saving,
        lost_s=lost, detection_s=down, restart_s=again, start_s=plan.start_s, time_s=time_s,
        goodput=goodput, goodput_low=min(g_low, goodput), goodput_high=max(g_high, goodput),
        days=time_s / DAY, days_low=low / DAY, days_high=high / DAY, days_95=late / DAY,
        device_hours=paid * time_s / HOUR, device_hours_low=paid * low / HOUR,
        device_hours_high=paid * high / HOUR,
        checkpoints=Checkpoints(**plan.saved, count=n),
        failures=Failures(
            per_1000_node_days=plan.rate.median, low=plan.rate.low, high=plan.rate.high,
            hours_between=r.between_s / HOUR if math.isfinite(r.between_s) else None,
            expected=expected, detection_s=r.detect_s, restart_s=r.restart_s,
        ),
        **_dates(t, time_s, low, high, late, times),
        **_energy(f, plan, lost, (time_s, low, high)),
        **_cost(f, t, (time_s, low, high, late)),
    )  # fmt: skip


def _plan(f: Facts, t: Terms) -> _Plan:
    step_s, nodes = f.step_s, math.ceil(f.devices / NODE)
    if t.input_samples:
        step_s = max(step_s, f.samples / (t.input_samples * nodes))
    if t.input_tokens and f.tokens:
        step_s = max(step_s, f.tokens / (t.input_tokens * nodes))
    slow = t.slow if t.slow is not None else defaults.SLOW if nodes > 1 else 0.0
    steps_s = f.steps * step_s
    eval_s = math.floor(f.steps / t.eval_every) * _evaluation_s(f, t) if t.eval_every else 0.0
    known = rate()
    if t.failure_rate is not None:
        known = Rate(t.failure_rate, 0.0)
    per_day = known.median
    between_s = hours_between(per_day, f.devices) * HOUR if per_day > 0 else math.inf
    start_s = defaults.RESTART_S if nodes > 1 else defaults.RESTART_ONE_S
    rhythm, saved = _rhythm(f, t, between_s, start_s, step_s * (1 + slow))
    return _Plan(step_s, steps_s, slow * steps_s, eval_s, start_s, rhythm, saved, known)


def _evaluation_s(f: Facts, t: Terms) -> float:
    """Seconds of one evaluation: forward passes in batches like those of a step."""
    size = t.eval_samples / f.samples if t.eval_samples else 0.0
    if t.eval_tokens and f.tokens:
        size = t.eval_tokens / f.tokens
    return size * f.step_s * f.forward


def _rhythm(
    f: Facts, t: Terms, between_s: float, start_s: float, step_s: float
) -> tuple[Rhythm, dict[str, Any]]:
    """Checkpoints and failures of the run, and the fields of Checkpoints."""
    nodes = math.ceil(f.devices / NODE)
    bandwidth = t.bandwidth or defaults.SAVE_RATE * nodes
    save_s = f.state_bytes / bandwidth
    stall_s, late_s = save_s, 0.0
    if t.asynchronous and f.host_rate:
        stall_s = min(f.state_bytes / f.devices / f.host_rate, save_s)
        late_s = save_s
    detect_s = defaults.DETECTION_S if t.detection_s is None else t.detection_s
    restart_s = start_s + save_s if t.restart_s is None else t.restart_s
    finite = math.isfinite(between_s)
    every_s, chosen = f.steps * step_s, "once, at the end"
    if t.every_s is not None or t.every_steps is not None:
        every_s, chosen = t.every_s or (t.every_steps or 1) * step_s, "given"
    elif finite:
        every_s = min(max(saves.best(stall_s, between_s), late_s, step_s), every_s)
        chosen = "shortest mean run"
    saved: dict[str, Any] = {
        "bytes": f.state_bytes, "bandwidth": bandwidth, "stall_s": stall_s, "save_s": save_s,
        "every_s": every_s, "every_steps": every_s / step_s, "chosen": chosen,
    }  # fmt: skip
    if finite:
        saved |= {
            "young_s": saves.young(stall_s, between_s),
            "daly_s": saves.daly(stall_s, between_s),
            "available_s": saves.available(stall_s, between_s, detect_s + restart_s),
        }
    return Rhythm(every_s, stall_s, late_s, detect_s, restart_s, between_s), saved


def _draws(f: Facts, plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and goodput of DRAWS runs, each with its own step time and rate of failures."""
    z_step, z_rate = _normals()
    factor = np.ones(DRAWS)
    if f.low_s and f.high_s and f.step_s > 0:
        middle = math.log(f.low_s * f.high_s / f.step_s**2) / 2
        factor = np.exp(middle + math.log(f.high_s / f.low_s) / (2 * Z80) * z_step)
    step = np.maximum(factor * f.step_s, plan.step_s if plan.step_s > f.step_s else 0.0)
    factor = step / plan.step_s
    between = plan.rhythm.between_s * np.exp(-plan.rate.sigma * z_rate)
    times = plan.start_s + simulated_s(plan.work_s * factor, plan.rhythm, between, SEED)
    return times, plan.steps_s * factor / times


@functools.cache
def _normals() -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of a normal distribution, evenly spaced, in two orders."""
    normal = NormalDist()
    z = np.array([normal.inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])
    random = np.random.default_rng(SEED)
    return random.permutation(z), random.permutation(z)


def _dates(
    t: Terms, mean: float, low: float, high: float, late: float, times: np.ndarray
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if t.start is not None:
        ends = {"end": mean, "end_low": low, "end_high": high, "end_95": late}
        found = {name: _after(t.start, s) for name, s in ends.items()} | {"start": str(t.start)}
    if t.deadline_s is not None:
        found["deadline_probability"] = float(np.mean(times <= t.deadline_s))
        day = f"{t.deadline_s / DAY:g} days"
        found["deadline"] = _after(t.start, t.deadline_s) if t.start else day
    return found


def _after(start: date, seconds: float) -> str | None:
    try:
        return str(start + timedelta(seconds=seconds))
    except OverflowError:
        return None


def _energy(
    f: Facts, plan: _Plan, lost: float, times: tuple[float, float, float]
) -> dict[str, Any]:
    """Joules of devices that work: steps, evaluations, and what is done again."""
    if f.step_j is None or f.step_s <= 0:
        return {}
    mean, low, high = times
    joules = f.step_j / f.step_s * (f.steps * f.step_s + plan.slow_s + plan.eval_s + lost)
    return {
        "energy_j": joules,
        "energy_low_j": joules * low / mean,
        "energy_high_j": joules * high / mean,
        "energy_scope": f.power_scope,
    }


def _cost(f: Facts, t: Terms, times: tuple[float, ...]) -> dict[str, Any]:
    """The invoice of the mean, and totals at the ends of the interval."""
    priced = money.owned(f.device) if t.owned else money.Priced(f.price)
    bills = [money.invoice(f.device.id, f.devices, t.spares, s / HOUR, priced) for s in times]
    mean, low, high, late = (money.total(bill) for bill in bills)
    return {
        "invoice": tuple(bills[0]),
        "cost_usd": mean, "cost_low_usd": low, "cost_high_usd": high, "cost_95_usd": late,
        "price_date": str(t.price_date) if t.price_date else None,
    }  # fmt: skip


def _said(f: Facts, t: Terms, plan: _Plan) -> tuple[str, ...]:
    """What is assumed of the run."""
    r, known = plan.rhythm, plan.rate
    lines = []
    if t.failure_rate is None:
        kind = "" if f.device.kind == "gpu" else "; counted on GPUs alone"
        lines.append(
            f"failures: {known.median:.1f} per 1000 node-days ({known.low:.1f} to"
            f" {known.high:.1f}), nodes of {NODE} devices, as in published runs{kind}"
        )
    if t.detection_s is None or t.restart_s is None:
        lines.append(
            f"a failure is detected after {r.detect_s / 60:.3g} min, and the restart takes"
            f" {r.restart_s / 60:.3g} min, reading the checkpoint included; a node to replace the"
            " failed one is there by then"
        )
    if t.bandwidth is None:
        lines.append(f"checkpoints: {defaults.SAVE_RATE / 1e9:g} GB/s per node of {NODE} devices")
    if t.asynchronous and f.host_rate is None:
        lines.append("checkpoints: the link to the host is unknown; saved synchronously")
    if t.slow is None and plan.slow_s:
        lines.append(f"steps take {100 * defaults.SLOW:g} % longer over a long run")
    if not t.eval_every:
        lines.append("no evaluation (--eval-every)")
    if t.owned:
        lines.append(
            "owned: loss of value of 28 % a year, and the printed power of all devices with host"
            " and building (hwdb/prices/costs.toml); no network, space and staff"
        )
    elif f.price is not None and f.price_given and t.price_date is None:
        lines.append(f"price of {f.price:g} USD per device-hour: given without a date")
    return tuple(lines)
