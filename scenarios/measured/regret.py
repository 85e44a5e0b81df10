"""Regret: how much slower is what forecasts would choose than the best that was measured.

A group is every run of one source, model, format, sequence, global batch and number of devices,
under three or more layouts, recompute policies or kinds of device. Regret is the measured time of
the run that is forecast fastest, over the shortest measured time, less 1. Kendall's tau is over the
pairs of a group whose measured times differ by more than a source repeats itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from statistics import median
from typing import NamedTuple

from roofcast.scenarios.measured.scores import Scored

LEAST = 3  # runs of a group
REPEATS = 0.05  # relative difference within which one run is measured again
TENTHS = 0.9


class Regret(NamedTuple):
    """One group of runs."""

    source: str
    name: str
    runs: int
    regret: float
    agreeing: int  # pairs that forecast and measurement order alike
    pairs: int  # that differ by more than REPEATS


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
        key = each.run.source, model, s.sequence, s.batch, s.devices or 1, s.mode, s.precision
        groups.setdefault(key, []).append(each)
    return [_of(key[0], runs) for key, runs in groups.items() if _unlike(runs) >= LEAST]


def _unlike(runs: list[Scored]) -> int:
    """How many layouts, policies and devices there are."""
    names = ("device", "stack", "tp", "pp", "vpp", "dp", "cp", "ep", "zero", "shard", "micro_batch",
             "recompute", "schedule")  # fmt: skip
    return len({tuple(getattr(r.run.scenario, n) for n in names) for r in runs})


def _of(source: str, runs: list[Scored]) -> Regret:
    times = [(float(r.predicted_s or 0.0), float(r.run.measured_s or 0.0)) for r in runs]
    chosen, best = min(times)[1], min(measured for _, measured in times)
    agreeing = pairs = 0
    for (p, m), (q, n) in combinations(times, 2):
        if abs(m / n - 1) > REPEATS and abs(n / m - 1) > REPEATS:
            pairs += 1
            agreeing += (p < q) == (m < n)
    first = runs[0].run
    assert first.scenario is not None, "asked before"
    name = f"{first.row.get('model_name', '')}, {first.scenario.devices or 1} devices"
    return Regret(source, name, len(runs), chosen / best - 1, agreeing, pairs)


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
