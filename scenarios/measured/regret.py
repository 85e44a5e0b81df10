"""Regret: how much slower is what forecasts would choose than the best that was measured.

A group is every run of one source, model, format, sequence, global batch and number of devices,
under three or more layouts, recompute policies or kinds of device; runs of a machine before and
after a change of it that the source tells are two groups. A configuration that was run
more than once counts once, with the median of its times. Chosen is the configuration that is
forecast fastest of those that are forecast to fit; regret is its measured time over the shortest
measured time, less 1. Kendall's tau is over the pairs of configurations of a group whose measured
times differ by more than a source repeats itself; equal forecasts order a pair neither way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from statistics import median
from typing import NamedTuple

from roofcast.scenarios.measured.scores import Scored
from roofcast.simulator.forecast.interval import Residuals

LEAST = 3  # runs of a group
REPEATS = 0.05  # relative difference within which one run is measured again
TENTHS = 0.9


class Regret(NamedTuple):
    """One group of runs."""

    source: str
    name: str
    runs: int
    regret: float
    agreeing: float  # pairs that forecast and measurement order alike; half of equal forecasts
    pairs: int  # that differ by more than REPEATS


class Configuration(NamedTuple):
    """Runs of one scenario [s]."""

    predicted: float
    measured: float
    fits: bool


class Regrets(NamedTuple):
    """All groups, or those of one source."""

    source: str  # empty: all
    groups: int
    runs: int
    median: float
    high: float  # 90 % of the groups have less
    tau: float | None


def regrets(scored: Iterable[Scored]) -> list[Regret]:
    """Every group of the runs that count and could be forecast."""
    groups: dict[tuple, list[Scored]] = {}
    for each in scored:
        s = each.run.scenario
        if s is None or not each.counts or not each.predicted_s:
            continue
        model = repr(getattr(s.model, "config", s.model))
        size = s.sequence, s.batch, s.devices or 1, s.mode, s.precision
        key = each.run.source, each.run.row.get("state", ""), model, *size
        groups.setdefault(key, []).append(each)
    return [_of(key[0], runs) for key, runs in groups.items() if _unlike(runs) >= LEAST]


def _unlike(runs: list[Scored]) -> int:
    """How many layouts, policies and devices there are."""
    names = ("device", "stack", "tp", "pp", "vpp", "dp", "cp", "ep", "zero", "shard", "micro_batch",
             "recompute", "schedule")  # fmt: skip
    return len({tuple(getattr(r.run.scenario, n) for n in names) for r in runs})


def _of(source: str, runs: list[Scored]) -> Regret:
    found = _configurations(runs)
    able = [c for c in found if c.fits] or found
    chosen, best = min(able).measured, min(c.measured for c in found)
    agreeing, pairs = 0.0, 0
    for a, b in combinations(found, 2):
        if min(abs(a.measured / b.measured - 1), abs(b.measured / a.measured - 1)) > REPEATS:
            pairs += 1
            same = (a.predicted < b.predicted) == (a.measured < b.measured)
            agreeing += 0.5 if a.predicted == b.predicted else float(same)
    first = runs[0].run
    assert first.scenario is not None, "asked before"
    name = f"{first.row.get('model_name', '')}, {first.scenario.devices or 1} devices"
    return Regret(source, name, len(runs), chosen / best - 1, agreeing, pairs)


def _configurations(runs: list[Scored]) -> list[Configuration]:
    """Runs of equal scenarios as one."""
    alike: dict[str, list[Scored]] = {}
    for each in runs:
        alike.setdefault(repr(each.run.scenario), []).append(each)
    return [
        Configuration(
            median(float(r.predicted_s or 0.0) for r in same),
            median(float(r.run.measured_s or 0.0) for r in same),
            all(r.fits is not False for r in same),
        )
        for same in alike.values()
    ]


def without_source(scored: Iterable[Scored], residuals: Residuals) -> list[Scored]:
    """The runs that have a forecast by constants that were fitted without their source, with it.

    residuals: errors of left-out runs, hwdb/residuals.csv. A run is found there by its source and
    measured time, and by the error of its forecast where several have both.
    """
    known: dict[tuple[str, str], list[tuple[float, float]]] = {}
    left_out = residuals.left_out["source"]
    columns = zip(residuals.source, residuals.seconds, residuals.error, left_out, strict=True)
    for source, seconds, error, alone in columns:
        if not math.isnan(alone):
            known.setdefault((str(source), f"{seconds:.5g}"), []).append((error, alone))
    found = []
    for each in scored:
        if not each.predicted_s or not each.run.measured_s:
            continue
        error = math.log(each.run.measured_s / each.predicted_s)
        same = known.get((each.run.source, f"{each.run.measured_s:.5g}"), [])
        if same:
            alone = min(same, key=lambda pair: abs(pair[0] - error))[1]
            found.append(each._replace(predicted_s=each.run.measured_s / math.exp(alone)))
    return found


def summary(found: list[Regret], source: str = "") -> Regrets:
    """Median, 90th percentile and tau of groups; source: of one, empty for all."""
    mine = [r for r in found if source in ("", r.source)]
    ordered = sorted(r.regret for r in mine)
    pairs = sum(r.pairs for r in mine)
    tau = 2 * sum(r.agreeing for r in mine) / pairs - 1 if pairs else None
    high = ordered[min(int(TENTHS * len(ordered)), len(ordered) - 1)]
    return Regrets(source, len(mine), sum(r.runs for r in mine), median(ordered), high, tau)


def by_source(found: list[Regret]) -> list[Regrets]:
    """A line per source, and one of all at the end."""
    sources = sorted({r.source for r in found})
    return [*(summary(found, source) for source in sources), summary(found)]
