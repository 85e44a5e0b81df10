"""The answer of a Chooser made consistent: the points of the front are refined as the choices are,
the choices are the best of all that was found then, and the best of them is on the front.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.front import front
from roofcast.simulator.choose.points import Point, rank, used_memory, value_of
from roofcast.simulator.choose.wanted import Wanted

ROUNDS = 3  # of refining a front; each may show points that were hidden


def settled(chooser: Chooser, wanted: Wanted, top: int) -> tuple[list[Point], list[Point]]:
    """The `top` best kinds of devices of those found so far, the best first, and the front."""
    refined: set[tuple[str, int]] = set()
    for _ in range(ROUNDS):
        new = [p for p in front_of(chooser, wanted) if _key(p) not in refined]
        for p in new:
            refined.add(_key(p))
            chooser.nearer(chooser.varied(p))
        for p in chooser.refined(_best(chooser, wanted, top), wanted):
            chooser.nearer(p)
        if not new:
            break
    found = _best(chooser, wanted, top)
    return found, front_of(chooser, wanted, found[0] if found else None)


def _best(chooser: Chooser, wanted: Wanted, top: int) -> list[Point]:
    """Of all points that were found and hold, the best of each kind of device."""
    goal = wanted.objective
    best: dict[str, Point] = {}
    for p in chooser.met(wanted):
        before = best.get(p.offer.device.id)
        if p.value(goal) is not None and (before is None or order(p, goal) < order(before, goal)):
            best[p.offer.device.id] = p
    return sorted(best.values(), key=lambda p: order(p, goal))[:top]


def order(point: Point, goal: str) -> tuple[float, ...]:
    """What points are ordered by; of equal ones the faster, then the one that uses less memory."""
    return (*rank(point, goal), point.time_s, used_memory(point))


def front_of(chooser: Chooser, wanted: Wanted, best: Point | None = None) -> list[Point]:
    """Of the points found that meet the constraints, those that no other beats in time, cost,
    energy, memory and what is ranked by, and in being sure to fit. Points of which it is unknown
    what is ranked by are left out, and columns that are unknown for any of the others. best: of
    equal points the one that is kept.
    """
    met = sorted(chooser.met(wanted), key=lambda p: p is not best)
    met = [p for p in met if np.isfinite(value_of(p, wanted.objective))]
    if not met:
        return []
    columns = [[p.time_s for p in met], [float(not p.surely) for p in met]]
    for name in ("cost_usd", "energy_j"):
        values = [getattr(p, name) for p in met]
        if all(v is not None for v in values):
            columns.append(values)
    columns.append([value_of(p, wanted.objective) for p in met])
    columns.append([used_memory(p) for p in met])
    return [met[i] for i in front(np.array(columns, dtype=float).T).tolist()]


def _key(point: Point) -> tuple[str, int]:
    return point.offer.device.id, point.devices
