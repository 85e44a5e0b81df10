"""A whole run from what its step takes and what is said of it: time, goodput, energy, money."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from datetime import date, timedelta
from statistics import NormalDist
from typing import Any

import numpy as np

from roofcast.simulator.campaign import money
from roofcast.simulator.campaign.before import DAY, HOUR, Plan, before, said
from roofcast.simulator.campaign.before import Facts as Facts
from roofcast.simulator.campaign.before import Part as Part
from roofcast.simulator.campaign.energy import SCOPES
from roofcast.simulator.campaign.goodput import failures, mean_s, segments, simulated
from roofcast.simulator.campaign.result import Campaign, Checkpoints, Failures, StageResult
from roofcast.simulator.campaign.terms import Terms

DRAWS = 1000  # of the simulation
SEED = 20260101
Z80 = NormalDist().inv_cdf(0.9)


def whole(f: Facts, t: Terms) -> tuple[Campaign | None, tuple[str, ...]]:
    """The whole run, None where it does not end since a segment is longer than failures allow; and
    what it assumes.
    """
    plan = before(f, t)
    return _forecast(f, t, plan), said(f, t, plan)


def mean_time_s(f: Facts, t: Terms) -> float:
    """Mean seconds of the whole run, as `whole` gives them; inf where it does not end."""
    plan = before(f, t)
    return plan.start_s + mean_s(plan.work_s, plan.rhythm)


def chance(f: Facts, t: Terms, limit_s: float) -> float:
    """The probability that the whole run takes no longer, as `whole` gives that of a deadline."""
    times = _draws(f, before(f, t))[0]
    return float(np.mean(times <= limit_s))


def _forecast(f: Facts, t: Terms, plan: Plan) -> Campaign | None:
    r = plan.rhythm
    mean = mean_s(plan.work_s, r)
    if not math.isfinite(mean):
        return None
    expected = failures(plan.work_s, r)
    n = segments(plan.work_s, r)
    down, wait = expected * r.down_s, expected * r.preempted * r.wait_s if expected else 0.0
    again = expected * (r.between_s * -math.expm1(-r.restart_s / r.between_s)) if expected else 0.0
    saving = n * r.stall_s
    lost = max(mean - plan.work_s - saving - down - again, 0.0) if expected else 0.0
    time_s = plan.start_s + mean
    times, shares, used = _draws(f, plan)
    paid = f.devices + t.spares
    low, high, late = _quantiles(times, 0.1, 0.9, 0.95)
    held = (time_s - wait, *_quantiles(used, 0.1, 0.9, 0.95))  # without waiting for capacity
    g_low, g_high = _quantiles(shares, 0.1, 0.9)
    goodput = plan.steps_s / time_s
    owned = (time_s, low, high, late)  # loses value while it waits too
    energy_of = _energy(f, plan, lost)
    at_site = sum(energy_of) if energy_of is not None and f.power_scope == SCOPES[-1] else None
    joules = [None if at_site is None else at_site * s / held[0] for s in held]
    money_of = _cost(f, t, owned if t.owned else held, joules)
    steps_s, slow_s, eval_s = (sum(p[i] for p in plan.parts) for i in (1, 2, 3))
    return Campaign(
        steps=f.steps, step_s=plan.step_s,
        input_limited=any(w.step_s > p.step_s for w, p in zip(plan.parts, f.parts, strict=True)),
        stages=_stages(f, plan, time_s, energy_of, money_of["cost_usd"]),
        devices=f.devices, spares=t.spares,
        steps_s=steps_s, slow_s=slow_s, eval_s=eval_s, checkpoint_s=saving,
        lost_s=lost, detection_s=down - wait, wait_s=wait, restart_s=again, start_s=plan.start_s,
        time_s=time_s,
        goodput=goodput, goodput_low=min(g_low, goodput), goodput_high=max(g_high, goodput),
        days=time_s / DAY, days_low=low / DAY, days_high=high / DAY, days_95=late / DAY,
        device_hours=paid * held[0] / HOUR, device_hours_low=paid * held[1] / HOUR,
        device_hours_high=paid * held[2] / HOUR,
        checkpoints=Checkpoints(**plan.saved, count=n),
        failures=Failures(
            per_1000_node_days=plan.rate.median, low=plan.rate.low, high=plan.rate.high,
            hours_between=r.between_s / HOUR if math.isfinite(r.between_s) else None,
            expected=expected, preemptions=expected * r.preempted,
            detection_s=r.detect_s, restart_s=r.restart_s,
        ),
        **_dates(t, time_s, low, high, late, times),
        **_joules(f, energy_of, held[:3]),
        **money_of,
    )  # fmt: skip


def _quantiles(values: np.ndarray, *levels: float) -> tuple[float, ...]:
    return tuple(float(np.quantile(values, level)) for level in levels)


def _draws(f: Facts, plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds and goodput of DRAWS runs, each with its own step time and rate of failures; and
    their seconds without those that wait for capacity.
    """
    z_step, z_rate = _normals()
    steps_s = np.zeros(DRAWS)
    for p, w in zip(f.parts, plan.parts, strict=True):
        factor = np.ones(DRAWS)
        if p.low_s and p.high_s and p.step_s > 0:
            middle = math.log(p.low_s * p.high_s / p.step_s**2) / 2
            factor = np.exp(middle + math.log(p.high_s / p.low_s) / (2 * Z80) * z_step)
        least = w.step_s if w.step_s > p.step_s else 0.0
        steps_s += p.steps * np.maximum(factor * p.step_s, least)
    factor = steps_s / plan.steps_s
    r = plan.rhythm
    between, preempted = r.between_s * np.exp(-plan.rate.sigma * z_rate), np.zeros(DRAWS)
    if r.preempted:
        failing = (1.0 - r.preempted) * np.exp(plan.rate.sigma * z_rate)
        between = r.between_s / (failing + r.preempted)
        preempted = r.preempted / (failing + r.preempted)
    run_s, waited_s = simulated(plan.work_s * factor, r, between, preempted, SEED)
    times = plan.start_s + run_s
    return times, steps_s / times, times - waited_s


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


def _energy(f: Facts, plan: Plan, lost: float) -> tuple[float, ...] | None:
    """Joules of devices that work, by part: steps, evaluations, and what is done again."""
    found = []
    for p, w in zip(f.parts, plan.parts, strict=True):
        if p.step_j is None or p.step_s <= 0:
            return None
        again = lost * w.all_s / plan.work_s
        found.append(p.step_j / p.step_s * (p.steps * p.step_s + w.slow_s + w.eval_s + again))
    return tuple(found)


def _joules(
    f: Facts, by_part: tuple[float, ...] | None, times: tuple[float, ...]
) -> dict[str, Any]:
    if by_part is None:
        return {}
    mean, low, high = times
    joules = sum(by_part)
    return {
        "energy_j": joules,
        "energy_low_j": joules * low / mean,
        "energy_high_j": joules * high / mean,
        "energy_scope": f.power_scope,
    }


def _stages(
    f: Facts, plan: Plan, time_s: float, joules: tuple[float, ...] | None, usd: float | None
) -> tuple[StageResult, ...]:
    """A line per stage; none where there is one. Dollars are rounded so that they add up."""
    if len(f.parts) == 1:
        return ()
    found, paid, done = [], 0.0, 0.0
    for i, (p, w) in enumerate(zip(f.parts, plan.parts, strict=True)):
        done += w.all_s
        until = None if usd is None else round(usd * done / plan.work_s, 2)
        found.append(StageResult(
            name=p.name or f"stage {i + 1}", steps=p.steps, step_s=w.step_s,
            batch=p.batch or p.samples,
            sequence=p.sequence, tokens=p.tokens * p.steps if p.tokens else None,
            time_s=time_s * w.all_s / plan.work_s, energy_j=joules[i] if joules else None,
            cost_usd=None if until is None else round(until - paid, 2),
        ))  # fmt: skip
        paid = until or 0.0
    return tuple(found)


def _cost(
    f: Facts, t: Terms, times: tuple[float, ...], joules: Sequence[float | None]
) -> dict[str, Any]:
    """The invoice of the mean, and totals at the ends of the interval.

    joules: of the site in each of these times; None where unknown.
    """
    priced = money.owned(f.device) if t.owned else money.Priced(f.price)
    bills = [
        money.invoice(f.device.id, f.devices, t.spares, s / HOUR, priced, j)
        for s, j in zip(times, joules, strict=True)
    ]
    mean, low, high, late = (money.total(bill) for bill in bills)
    return {
        "invoice": tuple(bills[0]),
        "cost_usd": mean, "cost_low_usd": low, "cost_high_usd": high, "cost_95_usd": late,
        "price_date": str(t.price_date) if t.price_date else None,
    }  # fmt: skip
