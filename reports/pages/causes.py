"""Why one forecast takes longer than another: the difference of their steps by what bounds them.

The time of a step is divided among its limits (simulator/forecast/limits.py), so that the
differences of the parts sum to the difference of the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.reports.pages.memory import kinds
from roofcast.simulator.forecast.limits import TIMED
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

ROUNDING = 1e-9


class Cause(NamedTuple):
    """A part of the difference between two steps [s], or of their memory at peak [bytes]."""

    name: str
    base: float
    other: float

    @property
    def difference(self) -> float:
        """What the other has beyond the base; 0 for what is rounding."""
        found = self.other - self.base
        return found if abs(found) > ROUNDING * max(abs(self.base), abs(self.other)) else 0.0


def of_time(base: Forecast, other: Forecast) -> list[Cause]:
    """Seconds of both steps by limit, the largest difference first; they sum to the steps."""
    sides = [{x.name: (x.share or 0.0) * f.step_time_s for x in f.limits} for f in (base, other)]
    found = [Cause(name, *(side.get(name, 0.0) for side in sides)) for name in TIMED]
    least = ROUNDING * max(base.step_time_s, other.step_time_s)
    kept = [c for c in found if max(abs(c.base), abs(c.other)) > least]
    return sorted(kept, key=lambda c: -abs(c.difference))


def of_memory(base: Forecast, other: Forecast) -> list[Cause]:
    """Bytes of both peaks by kind, the largest difference first; they sum to the peaks."""
    sides = [dict(kinds(f)) for f in (base, other)]
    names = dict.fromkeys([*sides[0], *sides[1]])
    found = [Cause(name, *(side.get(name, 0.0) for side in sides)) for name in names]
    return sorted(found, key=lambda c: -abs(c.difference))


def changed(
    base: Scenario, other: Scenario, forecasts: tuple[Forecast, Forecast]
) -> list[tuple[str, str, str]]:
    """Fields of the scenarios that differ: name and both values; one that is not given is the
    forecast's, where that has it.
    """
    left, right = (msgspec.to_builtins(s) for s in (base, other))
    names = dict.fromkeys([*left, *right])
    first, second = forecasts
    return [
        (name, _said(left.get(name), name, first), _said(right.get(name), name, second))
        for name in names
        if left.get(name) != right.get(name)
    ]


def _said(value: object, name: str, f: Forecast) -> str:
    if value in (None, {}, []):
        taken = (f.weights or f.precision) if name == "weights" else getattr(f, name, None)
        if not isinstance(taken, (str, int, float)) or taken == "":
            return "default"
        return f"{taken} (default)"
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
