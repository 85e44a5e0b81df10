"""Forecasts of measured training runs: errors by source, a rule of thumb to compare with, peak
memory, and refusals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import mean, median
from typing import NamedTuple

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.peaks import counted
from roofcast.scenarios.measured.training import LlmRun
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast, MemoryForecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.precision import precision

GIB = 2.0**30


class Scored(NamedTuple):
    """A run and its forecast; without a forecast, the numbers are None or 0."""

    run: LlmRun
    predicted_s: float | None = None
    low_s: float | None = None  # of the 80 % interval
    high_s: float | None = None
    memory_gib: float | None = None  # peak, of the kind that the run measured
    model_flops: float = 0.0  # forward and backward; times 4/3 under full recomputation
    fits: bool | None = None  # whether the most loaded device is forecast to have enough memory
    peak: float = 0.0  # printed rate of all devices in the format of the products [FLOP/s]
    refused: str = ""
    memory: MemoryForecast | None = None  # of the most loaded device

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None where either is missing."""
        if not self.predicted_s or not self.run.measured_s:
            return None
        return self.predicted_s / self.run.measured_s - 1.0

    @property
    def counts(self) -> bool:
        """Whether the run belongs to the summary: it has a measured time and is not excluded."""
        return self.run.measured_s is not None and not self.run.excluded


class Line(NamedTuple):
    """One line of the summary. Errors are fractions; None where nothing was forecast."""

    source: str
    rows: int
    refused: int
    mean: float | None  # of |predicted / measured - 1|
    median: float | None
    bias: float | None  # mean of predicted / measured - 1
    worst: str  # id of the row with the largest error
    worst_error: float | None
    baseline: float | None  # mean |error| of the rule of thumb; see `baseline`


def score(run: LlmRun) -> Scored:
    """The forecast of one run."""
    if run.scenario is None:
        return Scored(run, refused=run.refused)
    try:
        # a row whose framework names no stack: stack_words says which was assumed
        guessed = any(said.startswith("stack ") for said in run.assumptions)
        f = forecast(run.scenario, assumed_stack=guessed)
    except RoofcastError as error:
        return Scored(run, refused=str(error))
    full = run.scenario.recompute == "full"
    return Scored(
        run,
        predicted_s=f.step_time_s,
        low_s=f.low_s,
        high_s=f.high_s,
        memory_gib=held_gib(f, run.memory_kind),
        model_flops=(f.flops_forward + f.flops_backward) * (4.0 / 3.0 if full else 1.0),
        fits=f.memory.fits,
        peak=_printed_rate(run.scenario) * f.devices,
        memory=f.memory,
    )


def _printed_rate(scenario: Scenario) -> float:
    """Printed rate of one device in the scenario's format or the nearest it prints [FLOP/s]."""
    rates = hwdb.device(scenario.device).peak_flops
    product = precision(scenario.precision or "bf16").product
    nearest = (product, "fp8" if product == "fp4" else "bf16", "bf16", "fp16")
    return float(next(rates[format] for format in nearest if rates.get(format)))


def held_gib(f: Forecast, kind: str) -> float:
    """Forecast peak memory of a device [GiB], as a measurement of `kind` counts it (`peaks`)."""
    return counted(f, kind) / GIB


def score_all(runs: Iterable[LlmRun]) -> list[Scored]:
    """The forecasts of many runs."""
    return [score(run) for run in runs]


def baseline(scored: list[Scored]) -> dict[int, float]:
    """Errors of a rule of thumb, by position in the list, for rows that count and have a forecast.

    The rule: model FLOPs at one model FLOPs utilization (MFU) per device family and number format.
    The MFU is the median over sources of each source's median on these very rows, about the best
    that such a rule can do.
    """
    usable = {i: s for i, s in enumerate(scored) if s.predicted_s and s.counts}
    reached: dict[tuple[str, str], dict[str, list[float]]] = {}
    for s in usable.values():
        reached.setdefault(_family_and_format(s), {}).setdefault(s.run.source, []).append(_mfu(s))
    typical = {
        key: median(median(values) for values in sources.values())
        for key, sources in reached.items()
    }
    return {i: _mfu(s) / typical[_family_and_format(s)] - 1.0 for i, s in usable.items()}


def _family_and_format(s: Scored) -> tuple[str, str]:
    """The rows that share one MFU in the rule of thumb."""
    assert s.run.scenario is not None, "only a row with a scenario has a forecast"
    device = hwdb.device(s.run.scenario.device)
    return device.family or device.id, s.run.scenario.precision or ""


def _mfu(s: Scored) -> float:
    """Model FLOPs utilization of the measured step."""
    assert s.run.measured_s is not None, "only a measured row counts"
    return s.model_flops / (s.peak * s.run.measured_s)


def lines(scored: list[Scored]) -> list[Line]:
    """The summary, one line per source in the order in which they come."""
    rule = baseline(scored)
    groups: dict[str, list[int]] = {}
    for i, s in enumerate(scored):
        if s.counts:
            groups.setdefault(s.run.source, []).append(i)
    return [
        line(source, [scored[i] for i in members], [rule[i] for i in members if i in rule])
        for source, members in groups.items()
    ]


def line(source: str, scored: list[Scored], rule: list[float]) -> Line:
    """The errors of one group; `rule` holds those of the rule of thumb."""
    errors = [(s.error, s.run.id) for s in scored if s.error is not None]
    refused = len(scored) - len(errors)
    if not errors:
        return Line(source, len(scored), refused, None, None, None, "", None, None)
    baseline = mean(abs(e) for e in rule) if rule else None
    return _line(source, errors, refused, baseline)


def _line(
    source: str, errors: list[tuple[float, str]], refused: int, baseline: float | None
) -> Line:
    """The line of at least one error and the id of its row."""
    sizes = [abs(error) for error, _ in errors]
    worst_error, worst = max(errors, key=lambda pair: abs(pair[0]))
    return Line(
        source=source,
        rows=len(errors) + refused,
        refused=refused,
        mean=mean(sizes),
        median=median(sizes),
        bias=mean(error for error, _ in errors),
        worst=worst,
        worst_error=worst_error,
        baseline=baseline,
    )


def memory_lines(scored: list[Scored]) -> list[Line]:
    """The same for peak memory, one line per source and kind of measurement."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for s in scored:
        if s.run.memory_gib and s.memory_gib and not s.run.oom:
            error = s.memory_gib / s.run.memory_gib - 1.0
            name = f"{s.run.source}, {s.run.memory_kind}"
            groups.setdefault(name, []).append((error, s.run.id))
    return [_line(name, errors, 0, None) for name, errors in groups.items()]


def told_apart(scored: list[Scored]) -> dict[str, tuple[int, int]]:
    """How well forecasts tell layouts that fit in memory from layouts that do not.

    Counts only sources that list layouts which ran out of memory: "ran" is how many of the layouts
    that ran are forecast to fit, and how many ran; "out of memory" is how many of those that failed
    are forecast not to fit, and how many failed.
    """
    sources = {s.run.source for s in scored if s.run.oom}
    rows = [s for s in scored if s.run.source in sources and s.fits is not None]
    ran = [s.fits for s in rows if s.run.measured_s and not s.run.oom]
    failed = [s.fits for s in rows if s.run.oom]
    return {"ran": (ran.count(True), len(ran)), "out of memory": (failed.count(False), len(failed))}


def overall(scored: list[Scored]) -> dict[str, float]:
    """Mean |error| over all rows and over sources, for dense models and mixtures of experts too.

    "rows" is how many rows count, "refused" the fraction of them without a forecast. NaN where a
    group is empty.
    """
    counted = [s for s in scored if s.counts]
    done = [(s.run, abs(s.error)) for s in counted if s.error is not None]
    dense = [(run, error) for run, error in done if run.family != "moe"]
    sparse = [(run, error) for run, error in done if run.family == "moe"]
    return {
        "rows": len(counted),
        "all rows": _mean(error for _, error in done),
        "mean of sources": _mean_of_sources(done),
        "dense, mean of sources": _mean_of_sources(dense),
        "dense, all rows": _mean(error for _, error in dense),
        "mixtures of experts": _mean(error for _, error in sparse),
        "refused": 1.0 - len(done) / len(counted) if counted else math.nan,
    }


def _mean_of_sources(rows: list[tuple[LlmRun, float]]) -> float:
    """The mean over sources of each source's mean error."""
    errors: dict[str, list[float]] = {}
    for run, error in rows:
        errors.setdefault(run.source, []).append(error)
    return _mean(map(mean, errors.values()))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return mean(values) if values else math.nan
