"""What a search for the fastest layout that fits need not forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.records import Device
from roofcast.simulator.memory import Held, held_on
from roofcast.simulator.times.grouped import Grouped
from roofcast.simulator.work.step import Recipe, Records, Step
from roofcast.simulator.work.traced import Parallel


class Traces(dict[tuple, Step]):
    """Steps of ranks of a model, by what they depend on. They are timed on many devices: `grouped`
    holds what of that is the same on all of them. records: what steps share, by kind of device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.grouped = Grouped()
        self._held: dict[tuple[int, str], Held] = {}
        self.records: dict[str, Records] = {}

    def held_on(self, step: Step, device: Device) -> Held:
        """Memory of one of these steps at peak on one device."""
        key = id(step), device.kind
        if key not in self._held:
            self._held[key] = held_on(step, device)
        return self._held[key]


def key_of(recipe: Recipe) -> bytes:
    """What tells two recipes apart."""
    return msgspec.msgpack.encode(recipe)


class Peaks:
    """Bytes at peak of layouts that were forecast. They are those of every device of a kind, so
    that a layout need not be forecast on one that does not hold it.
    """

    def __init__(self) -> None:
        self.ranks: dict[tuple, int] = {}  # what a rank depends on, numbered
        self.bytes: dict[tuple, float] = {}  # by the number of a rank and the fields of a layout

    def number(self, rank: tuple) -> int:
        """The number of a rank, by what it depends on."""
        return self.ranks.setdefault(rank, len(self.ranks))

    def of(self, layouts: Sequence[tuple]) -> np.ndarray:
        """Of each layout; nan where it is not known."""
        return np.array([self.bytes.get(each, math.nan) for each in layouts])

    def found(self, layouts: Sequence[tuple], peak: np.ndarray) -> None:
        """Take note of those that were forecast, which are finite."""
        known = np.isfinite(peak).tolist()
        each = zip(layouts, peak.tolist(), known, strict=True)
        self.bytes.update((key, value) for key, value, is_known in each if is_known)


class Sieve:
    """Holds back layouts that cannot be faster than one that was found on as many devices, and the
    times of those that do not fit.

    capacity: bytes of a device; above: measured peaks over forecast ones, at most; traces: of
    ranks, by what they depend on, which the sieves of several devices share.
    """

    def __init__(self, capacity: float, above: float, traces: Traces | None = None) -> None:
        self.traces = Traces() if traces is None else traces
        self.capacity, self.surely = capacity, capacity / above
        self.best: dict[int, float] = {}  # seconds of the fastest that surely fits, by devices
        # by what ranks share that differ in recomputation and offload only, of one that has
        # neither, else by these too: the first that was met, and the seconds of a micro-batch's
        # kernels on it, at least
        self.first: dict[tuple, tuple[Recipe, Parallel]] = {}
        self.work: dict[tuple, float] = {}
        # ranks with their times on the device, and the kinds of its networks, numbered
        self.timed: dict[tuple, Any] = {}
        self.networks: dict[tuple, int] = {}

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
