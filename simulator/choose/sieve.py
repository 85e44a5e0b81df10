"""What a search for the fastest layout that fits need not forecast."""

from __future__ import annotations

import math

import msgspec
import numpy as np

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

    def fastest(self, devices: np.ndarray) -> np.ndarray:
        """Seconds of the fastest layout that surely fits, on so many devices; of each layout."""
        count, of = np.unique(devices, return_inverse=True)
        return np.array([self.best.get(n, math.inf) for n in count.tolist()])[of]

    @staticmethod
    def least(
        pp: np.ndarray, micro_batches: np.ndarray, work: float, spared: float = 0.0
    ) -> np.ndarray:
        """Seconds that a step takes at least, by the kernels of its rank's micro-batch [s]:
        communication, hosts and pipelines only add to these. spared: seconds of them that the
        first micro-batch of a step does without.
        """
        return (work * micro_batches - spared) / pp

    def found(self, devices: np.ndarray, step_s: np.ndarray, peak: np.ndarray) -> None:
        """Take note of layouts that were forecast."""
        surely = peak <= self.surely
        for n in np.unique(devices[surely]).tolist():
            seconds = float(step_s[surely & (devices == n)].min())
            self.best[n] = min(self.best.get(n, math.inf), seconds)
