"""Errors of measured runs when their source, device or software is left out, as lines of a table:
what `roofcast validate --blind-like` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from roofcast.scenarios.fits import intervals, runs
from roofcast.simulator.forecast import interval

BIASED = 0.10  # sources whose median error exceeds this are listed
LEAST = 5  # rows of such a source
KINDS = {  # of a run, by its traits; the first that holds
    "mixtures of experts": lambda t: t["model_kind"] == "moe",
    "transformers, training": lambda t: (t["model_kind"] == "transformer") & (t["mode"] == "train"),
    "other nets, training": lambda t: t["mode"] == "train",
    "inference": lambda t: t["mode"] == "infer",
}


class Line(NamedTuple):
    """Errors of a group of left-out runs, as fractions."""

    way: str  # of interval.WAYS
    name: str
    sources: int
    rows: int
    median: float  # of |predicted / measured - 1| over rows
    mean: float
    mean_of_sources: float
    bias: float  # median of predicted / measured - 1
    inside: float  # share inside the 80 % interval, sources alike, calibrated without the source
    # the interval of training transformers, as measured / predicted; None unless of one class
    low: float | None
    high: float | None


class LeftOut:
    """Left-out runs of a table of residuals."""

    def __init__(self, r: interval.Residuals) -> None:
        self.residuals, self.held = r, intervals.held(r)
        self.classes = intervals.calibrated(self.held)
        self.inside = intervals.nested(self.held) <= 1.0
        kind = np.full(len(r.name), "", dtype=object)
        for name, holds in reversed(KINDS.items()):
            kind[holds(r.traits)] = name
        self.kind = kind[self.held.run]

    def by_class(self) -> list[Line]:
        """By way and class."""
        return self._lines(lambda i: str(self.held.klass[i]), intervals.CLASSES)

    def by_kind(self) -> list[Line]:
        """By way and kind of run."""
        return self._lines(lambda i: str(self.kind[i]), KINDS)

    def biased(self) -> list[Line]:
        """Sources of at least LEAST rows whose bias exceeds BIASED, the most biased first."""
        lines = self._lines(lambda i: str(self.held.source[i]), dict.fromkeys(self.held.source))
        many = [line for line in lines if line.rows >= LEAST and abs(line.bias) > BIASED]
        return sorted(many, key=lambda line: (list(interval.WAYS).index(line.way), -abs(line.bias)))

    def _lines(self, group: Callable[[int], str], order: Iterable[str]) -> list[Line]:
        groups: dict[tuple[str, str], list[int]] = {}
        for i, way in enumerate(self.held.way):
            groups.setdefault((way, group(i)), []).append(i)
            groups.setdefault((way, "all"), []).append(i)
        names = [*order, "all"]
        return [
            self._line(way, name, np.array(groups[way, name]))
            for way in interval.WAYS
            for name in names
            if (way, name) in groups
        ]

    def _line(self, way: str, name: str, members: np.ndarray) -> Line:
        of = self.held.only(members)
        errors = np.expm1(-of.error)
        size = np.abs(errors)
        sources = dict.fromkeys(of.source)
        found = self.classes.classes.get(name)
        low, high = (
            (float(np.exp(found.bias + side * found.half_width)) for side in (-1, 1))
            if found
            else (None, None)
        )
        return Line(
            way,
            name,
            len(sources),
            len(members),
            median(size),
            fmean(size),
            fmean(float(size[of.source == source].mean()) for source in sources),
            median(errors),
            float(np.average(self.inside[members], weights=intervals.weights(of))),
            low,
            high,
        )


def refitted() -> str:
    """Which constants are refitted without the runs that are left out."""
    number = sum(len(names) for names in runs.CONSTANTS.values())
    return (
        f"refitted without what is left out: the {number} constants of fits.runs (rates in training"
        " steps, factors and host times of stacks); not refitted: constants of kernels, collectives"
        " and single nets, and what was chosen by hand"
    )
