"""What a search for the fastest layout that fits need not forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.step import Recipe, Step

Traces = dict[tuple, Step]


def key_of(recipe: Recipe) -> bytes:
    """What tells two recipes apart."""
    return msgspec.msgpack.encode(recipe)


class Sieve:
    """Holds back layouts that cannot be faster than one that was found on as many devices, and the
    times of those that do not fit.

    capacity: bytes of a device; above: measured peaks over forecast ones, at most; traces: of
    ranks, by what they depend on, which the sieves of several devices share.
    """

    def __init__(self, capacity: float, above: float, traces: Traces | None = None) -> None:
        self.traces: Traces = {} if traces is None else traces
        self.capacity, self.surely = capacity, capacity / above
        self.best: dict[int, float] = {}  # seconds of the fastest that surely fits, by devices
        self.work: dict[tuple, float] = {}  # seconds of a micro-batch's kernels, at least, by rank

    def may_win(self, x: Layout, work: float, spared: float = 0.0) -> bool:
        """Whether a layout could be the fastest, by the kernels of its rank's micro-batch [s]:
        communication, hosts and pipelines only add to these. spared: seconds of them that the
        first micro-batch of a step does without.
        """
        return self.least(x, work, spared) < self.best.get(x.devices, math.inf)

    @staticmethod
    def least(x: Layout, work: float, spared: float = 0.0) -> float:
        """Seconds that a step takes at least."""
        return (work * x.micro_batches - spared) / x.pp

    def found(self, layouts: Sequence[Layout], step_s: np.ndarray, peak: np.ndarray) -> None:
        """Take note of layouts that were forecast."""
        for x, seconds, held in zip(layouts, step_s.tolist(), peak.tolist(), strict=True):
            if held <= self.surely and seconds < self.best.get(x.devices, math.inf):
                self.best[x.devices] = seconds
