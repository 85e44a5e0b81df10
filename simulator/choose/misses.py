"""Where nothing meets the constraints of a choice: which of them is to blame, and what would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choose.choice import Choice, choice_of
from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.points import Point, meets
from roofcast.simulator.choose.wanted import GOAL_OF, LIMITS, Wanted
from roofcast.simulator.forecast.scenario import Scenario

NEAREST = 3  # kinds of devices whose fastest layouts are searched for each limit
NARROWED = 3  # times that the gap to a batch that does not fit is halved
HALVINGS, WIDEST = 30, 64.0  # of the search for a limit that holds with a probability


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """What one constraint would have to be, the others kept."""

    limit: str  # a field of Wanted
    given: float
    needed: float | None  # None: no value of it would do, the others kept
    choice: Choice | None = None


class Near(NamedTuple):
    """What comes near to the constraints."""

    misses: tuple[Miss, ...]
    unlimited: Choice | None  # the best without any limit, where none of them alone is to blame
    met: tuple[Point, ...] = ()  # points that do meet them, once their layouts are searched


def misses(chooser: Chooser, wanted: Wanted) -> Near:
    """For each constraint the nearest value that would do, the others kept."""
    found = []
    for name, given in wanted.limits.items():
        relaxed = msgspec.structs.replace(wanted, **{name: None}, goal=GOAL_OF[name])
        near = _nearest(chooser, chooser.ranked(relaxed, NEAREST), wanted)
        met = sorted(
            (p for p in near if chooser.holds(p, wanted)),
            key=lambda p: (not p.surely, p.value(wanted.objective) or 0.0),
        )
        if met:
            return Near((), None, tuple(met))
        needs = [(_needed(chooser, p, wanted, name), p) for p in near]
        least = min(needs, key=lambda each: (not each[1].surely, each[0]), default=None)
        choice = choice_of(chooser, least[1]) if least else None
        found.append(
            Miss(limit=name, given=given, needed=least[0] if least else None, choice=choice)
        )
    unlimited = None
    if all(miss.needed is None for miss in found):
        free = msgspec.structs.replace(wanted, goal=wanted.objective, **dict.fromkeys(LIMITS))
        best = chooser.ranked(free, 1)
        unlimited = choice_of(chooser, best[0]) if best else None
    return Near(tuple(found), unlimited)


def _nearest(chooser: Chooser, points: Sequence[Point], wanted: Wanted) -> list[Point]:
    """The points with the fastest of all layouts on their devices. Where no layout changes what
    they cost, those alone that may turn out to cost least.
    """
    if wanted.buy and not chooser.length.given and list(wanted.limits) == ["under_usd"]:
        surely = [p.cost_usd for p in points if p.surely and p.cost_usd is not None]
        least = min(surely, default=None)
        first = next((p for p in points if p.surely and p.cost_usd == least), None)
        points = [
            p
            for p in points
            if p is first or least is None or (not p.surely and (p.cost_usd or 0.0) <= least)
        ]
    return [chooser.deepened(p) for p in points]


def _needed(chooser: Chooser, point: Point, wanted: Wanted, name: str) -> float:
    """The value of a limit that a point meets, with the probability that is asked for."""
    value: float = getattr(point, LIMITS[name])
    if wanted.sure is None or name not in ("within_s", "under_usd"):
        return value
    low, high = value, value * WIDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        asked = msgspec.structs.replace(wanted, **{name: middle})
        alone = msgspec.structs.replace(asked, **{n: None for n in LIMITS if n != name})
        if meets(point, alone) and chooser.holds(point, alone):
            high = middle
        else:
            low = middle
    return high


def smaller_batch(
    scenario: Scenario, devices: Sequence[str], wanted: Wanted, batch: int
) -> int | None:
    """Where nothing fits: the largest batch with which something does, to an eighth of it; None
    where none does.
    """

    def fits(size: int) -> bool:
        asked = msgspec.structs.replace(scenario, batch=size)
        try:
            return Chooser(asked, devices, wanted).smallest() is not None
        except RoofcastError:
            return False

    if batch == 1 or not fits(1):
        return None
    size = batch // 2
    while size > 1 and not fits(size):
        size //= 2
    beyond = min(2 * size, batch)
    for _ in range(NARROWED):
        middle = (size + beyond) // 2
        if middle > size and fits(middle):
            size = middle
        else:
            beyond = middle
    return size
