"""Forecasts of measured training runs beside what was measured: errors by source, a baseline,
refusals.
"""

from __future__ import annotations

import math
from statistics import mean, median
from typing import NamedTuple

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.training import LlmRun
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.work.precision import precision

GIB = 2.0**30


class Scored(NamedTuple):
    """A run with what was forecast of it."""

    run: LlmRun
    predicted_s: float | None
    low_s: float | None
    high_s: float | None
    memory_gib: float | None  # as the run measured it: allocated, reserved or of the whole device
    model_flops: float  # forward and backward, without recomputation; as much again a third with it
    fits: bool | None  # is the fullest rank forecast to fit its device
    peak: float  # printed rate of all devices in the format [FLOP/s]
    refused: str

    @property
    def error(self) -> float | None:
        """predicted / measured - 1."""
        return (
            self.predicted_s / self.run.measured_s - 1.0
            if self.predicted_s and self.run.measured_s
            else None
        )

    @property
    def counts(self) -> bool:
        """In the summary: measured, and not excluded with a reason."""
        return self.run.measured_s is not None and not self.run.excluded


class Line(NamedTuple):
    """One line of the summary. Errors are fractions; None where nothing was forecast."""

    source: str
    rows: int
    refused: int
    mean: float | None
    median: float | None
    bias: float | None  # mean of predicted / measured - 1
    worst: str  # the row furthest off
    worst_error: float | None
    baseline: float | None  # mean absolute error of 6ND at one MFU a device family and format


def score(run: LlmRun) -> Scored:
    """The forecast of one run."""
    if run.scenario is None:
        return Scored(run, None, None, None, None, 0.0, None, 0.0, run.refused)
    try:
        f = forecast(run.scenario)
    except RoofcastError as error:
        return Scored(run, None, None, None, None, 0.0, None, 0.0, str(error))
    flops = (f.flops_forward + f.flops_backward) * (
        4.0 / 3.0 if run.scenario.recompute == "full" else 1.0
    )
    device = hwdb.device(run.scenario.device)
    product = precision(run.scenario.precision).product
    rates = device.peak_flops
    rate = (
        rates.get(product)
        or rates.get("fp8" if product == "fp4" else "bf16")
        or rates.get("bf16")
        or rates.get("fp16")
    )
    return Scored(
        run,
        f.step_time_s,
        f.low_s,
        f.high_s,
        held_gib(f, run.memory_kind),
        flops,
        f.memory.fits,
        float(rate) * f.devices,
        "",
    )


def held_gib(f, kind: str) -> float:
    """Peak memory as it was measured: tensors alone, with the allocator's slack, or all that the
    device holds.

    The framework's line of a forecast is context, libraries and slack; slack is a share of the
    activations.
    """
    from roofcast.simulator.software import stack as stacks

    m = f.memory
    slack = stacks.stack(f.stack).slack * (m.activations_bytes + m.transient_bytes)
    extra = {"allocated": 0.0, "reserved": slack}.get(kind, m.framework_bytes)
    return (m.peak_bytes - m.framework_bytes + extra) / GIB


def score_all(runs: list[LlmRun]) -> list[Scored]:
    """The forecasts of many runs."""
    return [score(run) for run in runs]


def format_of(s: Scored) -> tuple[str, str]:
    """Device family and number format: what shares one MFU in the baseline."""
    device = hwdb.device(s.run.scenario.device)
    return device.family or device.id, s.run.scenario.precision


def baseline(scored: list[Scored]) -> dict[int, float]:
    """Error of 6ND + attention (4/3 of it under full recomputation) at one MFU a family and format,
    by place in the list.

    The MFU is the median over sources of their own medians on these very rows: about the best that
    such a rule can do.
    """
    used: dict[tuple[str, str], dict[str, list[float]]] = {}
    for s in scored:
        if s.predicted_s and s.counts:
            used.setdefault(format_of(s), {}).setdefault(s.run.source, []).append(
                s.model_flops / (s.peak * s.run.measured_s)
            )
    mfu = {
        key: median(median(values) for values in sources.values()) for key, sources in used.items()
    }
    return {
        i: s.model_flops / (s.peak * mfu[format_of(s)]) / s.run.measured_s - 1.0
        for i, s in enumerate(scored)
        if s.predicted_s and s.counts
    }


def lines(scored: list[Scored], key=lambda s: s.run.source) -> list[Line]:
    """The summary, one line a source in the order they come."""
    rule = baseline(scored)
    groups: dict[str, list[int]] = {}
    for i, s in enumerate(scored):
        if s.counts:
            groups.setdefault(key(s), []).append(i)
    return [
        line(name, [scored[i] for i in members], [rule[i] for i in members if i in rule])
        for name, members in groups.items()
    ]


def line(name: str, scored: list[Scored], rule: list[float]) -> Line:
    """The figures of one group."""
    errors = [(s.error, s.run.id) for s in scored if s.error is not None]
    if not errors:
        return Line(name, len(scored), len(scored), None, None, None, "", None, None)
    size = [abs(e) for e, _ in errors]
    worst = max(errors, key=lambda pair: abs(pair[0]))
    return Line(
        name,
        len(scored),
        len(scored) - len(errors),
        mean(size),
        median(size),
        mean(e for e, _ in errors),
        worst[1],
        worst[0],
        mean(abs(e) for e in rule) if rule else None,
    )


def memory_lines(scored: list[Scored]) -> list[Line]:
    """The same of peak memory, one line a source and kind of measurement."""
    groups: dict[str, list[Scored]] = {}
    for s in scored:
        if s.run.memory_gib and s.memory_gib and not s.run.oom:
            groups.setdefault(f"{s.run.source}, {s.run.memory_kind}", []).append(s)
    found = []
    for name, members in groups.items():
        errors = [s.memory_gib / s.run.memory_gib - 1.0 for s in members]
        size = [abs(e) for e in errors]
        worst = size.index(max(size))
        found.append(
            Line(
                name,
                len(members),
                0,
                mean(size),
                median(size),
                mean(errors),
                members[worst].run.id,
                errors[worst],
                None,
            )
        )
    return found


def told_apart(scored: list[Scored]) -> dict[str, tuple[int, int]]:
    """Of sources that list layouts that ran out of memory: how many of those are forecast not to
    fit, and how many that ran to fit.
    """
    sources = {s.run.source for s in scored if s.run.oom}
    rows = [
        s
        for s in scored
        if s.run.source in sources and s.fits is not None and (s.run.oom or s.run.measured_s)
    ]
    return {
        "ran": (sum(s.fits for s in rows if not s.run.oom), sum(not s.run.oom for s in rows)),
        "out of memory": (sum(not s.fits for s in rows if s.run.oom), sum(s.run.oom for s in rows)),
    }


def overall(scored: list[Scored]) -> dict[str, float]:
    """Mean error over all rows, over sources, dense and mixture-of-experts apart, and the share
    refused.
    """
    counted = [s for s in scored if s.counts]
    done = [s for s in counted if s.error is not None]

    def by_source(rows: list[Scored]) -> float:
        names = dict.fromkeys(s.run.source for s in rows)
        return (
            mean(mean(abs(s.error) for s in rows if s.run.source == name) for name in names)
            if names
            else math.nan
        )

    dense, sparse = ([s for s in done if (s.run.family == "moe") == moe] for moe in (False, True))
    return {
        "rows": len(counted),
        "all rows": mean(abs(s.error) for s in done) if done else math.nan,
        "mean of sources": by_source(done),
        "dense, mean of sources": by_source(dense),
        "dense, all rows": mean(abs(s.error) for s in dense) if dense else math.nan,
        "mixtures of experts": mean(abs(s.error) for s in sparse) if sparse else math.nan,
        "refused": 1.0 - len(done) / len(counted) if counted else math.nan,
    }
