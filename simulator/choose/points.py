"""Devices of one kind with a layout, and what they are ordered by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.simulator.choose.offers import Offer
from roofcast.simulator.choose.space import Shape
from roofcast.simulator.choose.wanted import LIMITS, Wanted

FIELDS = {"time": "time_s", "cost": "cost_usd", "energy": "energy_j", "power": "power_w"}


class Point(NamedTuple):
    """Devices of one kind with their fastest layout."""

    offer: Offer
    devices: int
    options: Shape
    step_s: float
    peak_bytes: float
    time_s: float  # of the whole run; of a step where it has no length
    cost_usd: float | None
    power_w: float | None
    energy_j: float | None
    surely: bool = True  # fits even where memory is as far above its forecast as measured runs are

    def value(self, goal: str) -> float | None:
        """What an objective ranks by; None where it is unknown."""
        if goal == "devices":
            return float(self.devices)
        value: float | None = getattr(self, FIELDS[goal])
        return value


def used_memory(point: Point) -> float:
    """Peak memory as a fraction of the capacity; 0 where that is unknown."""
    capacity = point.offer.device.memory.limit
    return point.peak_bytes / float(capacity) if capacity else 0.0


def meets(point: Point, wanted: Wanted) -> bool:
    """Whether a point meets every constraint; one of an unknown number is not met."""
    for name, limit in wanted.limits.items():
        value = getattr(point, LIMITS[name])
        if value is None or value > limit:
            return False
    return wanted.longest_s is None or point.time_s <= wanted.longest_s


def rank(point: Point, goal: str) -> tuple[bool, float]:
    """What points are ordered by: those that surely fit first."""
    return not point.surely, value_of(point, goal)


def value_of(point: Point, goal: str) -> float:
    """What an objective ranks by; infinite where it is unknown."""
    value = point.value(goal)
    return np.inf if value is None else value
