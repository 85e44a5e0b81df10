"""`roofcast choose`: which device, how many, in which layout.

Devices and counts are taken in the order of a lower bound of the objective (floors.py), and
searched until no other can beat what was found: a branch and bound whose leaves are layouts. For
one device and count the fastest layout is the best by every objective, since rent, purchase, power
and energy do not depend on the layout otherwise.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.choose.batches import no_length, run_batch
from roofcast.simulator.choose.floors import Floor, Traces, floor
from roofcast.simulator.choose.front import front
from roofcast.simulator.choose.offers import Offer, counts, offer
from roofcast.simulator.choose.search import search_layouts
from roofcast.simulator.choose.sieve import Sieve
from roofcast.simulator.choose.space import Shape, Space
from roofcast.simulator.choose.wanted import LIMITS, Wanted, stretch
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.rank import most_above
from roofcast.simulator.forecast.resolve import Named, named
from roofcast.simulator.forecast.scenario import Scenario

FIELDS = {"time": "time_s", "cost": "cost_usd", "energy": "energy_j", "power": "power_w"}
AT_ONCE = 3  # counts of a device that are searched together


class Point(NamedTuple):
    """Devices of one kind with their fastest layout."""

    offer: Offer
    devices: int
    options: Shape
    step_s: float
    peak_bytes: float
    time_s: float  # of the run
    cost_usd: float | None
    power_w: float | None
    energy_j: float | None

    def value(self, goal: str) -> float | None:
        """What an objective ranks by; None where it is unknown."""
        if goal == "devices":
            return float(self.devices)
        value: float | None = getattr(self, FIELDS[goal])
        return value


class Kind(NamedTuple):
    """One kind of device, ready to be searched."""

    offer: Offer
    names: Named
    scenario: Scenario  # on this device, with its batch
    floor: Floor
    space: Space
    counts: tuple[int, ...]


class Chooser:
    """Kinds of devices for one run, and what was found of them."""

    def __init__(self, scenario: Scenario, devices: Sequence[str], wanted: Wanted) -> None:
        self.traces: Traces = {}
        self.wanted = wanted
        self.kinds: dict[str, Kind] = {}
        self.unable: dict[str, str] = {}  # device: why it cannot run this
        self.assumptions: list[str] = []
        self.searched: dict[tuple[str, int], Point | None] = {}
        self.layouts = 0  # forecast
        self.sieves: dict[str, Sieve] = {}
        self.stretches: dict[tuple[str, float], float] = {}
        batch: int | None = scenario.batch
        for device in devices:
            try:
                self._add(msgspec.structs.replace(scenario, device=device, batch=batch))
            except RoofcastError as error:
                self.unable[device] = str(error)
                continue
            batch = next(iter(self.kinds.values())).scenario.batch
        if not self.kinds:
            raise BadInput(next(iter(self.unable.values())))

    def _add(self, s: Scenario) -> None:
        names = named(s)
        if s.tokens is None and s.samples is None and s.epochs is None:
            raise no_length(names.model.takes)
        if s.batch is None:
            size = s.sequence or names.model.size
            one = msgspec.structs.replace(s, batch=1)
            parameters = Space(one, names).parameters
            batch, said = run_batch(s, names.model.takes, size, parameters)
            s = msgspec.structs.replace(s, batch=batch)
            self.assumptions.append(said)
        of = offer(names.device, self.wanted)
        bounds = floor(s, names, self.traces)
        self.kinds[names.device.id] = Kind(
            of, names, s, bounds, Space(s, names), tuple(counts(of, bounds.batch))
        )

    def point(
        self, kind: Kind, devices: int, seconds: float, options: Shape, step_s: float, peak: float
    ) -> Point:
        """A point from the seconds of its run."""
        watts = kind.offer.power_w
        power = devices * watts if watts else None
        return Point(
            kind.offer,
            devices,
            options,
            step_s,
            peak,
            seconds,
            kind.offer.cost(devices, seconds, self.wanted.buy),
            power,
            power * seconds if power else None,
        )

    def bound(self, kind: Kind, devices: int) -> Point:
        """No layout of these devices is better than this."""
        return self.point(kind, devices, kind.floor.run_s(devices), {}, 0.0, 0.0)

    def ranked(self, wanted: Wanted, top: int) -> list[Point]:
        """The best point of each of the `top` best kinds of devices, the best first."""
        goal = wanted.objective
        queue: list[tuple[float, int, str, list[tuple[float, int]]]] = []
        for name, kind in self.kinds.items():
            possible = []
            for n in kind.counts:
                least = self.bound(kind, n)
                value = least.value(goal)
                if value is None or not meets(least, wanted):
                    continue
                if kind.floor.fits(n, kind.names.device.memory.capacity):
                    possible.append((value, n))
            if possible:
                heapq.heappush(queue, (*min(possible), name, sorted(possible)))
        best: dict[str, Point] = {}  # of each kind
        while queue:
            value, _, name, possible = heapq.heappop(queue)
            rivals = sorted(_value(p, goal) for p in best.values())
            enough = len(rivals) >= top and value >= rivals[top - 1]
            if enough or (name in best and value >= _value(best[name], goal)):
                continue
            now, later = possible[:AT_ONCE], possible[AT_ONCE:]
            for p in self.search(self.kinds[name], [n for _, n in now]):
                if self.holds(p, wanted) and p.value(goal) is not None:
                    if name not in best or _value(p, goal) < _value(best[name], goal):
                        best[name] = p
            if later:
                heapq.heappush(queue, (*later[0], name, later))
        found = sorted(best.values(), key=lambda p: _value(p, goal))
        return found[:top]

    def search(self, kind: Kind, devices: Sequence[int]) -> list[Point]:
        """The fastest layout that fits on each of these numbers of devices, where there is one."""
        name = kind.names.device.id
        new = [n for n in devices if (name, n) not in self.searched]
        shapes = [s for n in new for s in kind.space.shapes(n, few=True)]
        self.searched |= dict.fromkeys([(name, n) for n in new])
        if shapes:
            self._search(kind, shapes, kind.space.policies(few=True))
        found = [self.searched[name, n] for n in devices]
        return [p for p in found if p is not None]

    def _search(self, kind: Kind, shapes: Sequence[Shape], policies: Sequence[str]) -> None:
        try:
            found = search_layouts(kind.scenario, shapes, policies, self._sieve(kind))
        except RoofcastError as error:
            self.unable[kind.names.device.id] = str(error)
            return
        self.layouts += len(found.step_s)
        capacity = kind.names.device.memory.capacity or np.inf
        safe = found.peak_bytes * most_above(kind.scenario.mode) <= capacity
        at = np.array(found.layouts["devices"].tolist())
        for n in sorted(set(at.tolist())):
            here = np.flatnonzero((at == n) & safe & ~found.refused)
            if not len(here):
                continue
            i = int(here[np.argmin(found.step_s[here])])
            options = {k: v for k, v in found.layout(i).items() if v is not None and v != ()}
            step_s = float(found.step_s[i])
            seconds = step_s * kind.floor.steps
            peak = float(found.peak_bytes[i])
            self.keep(self.point(kind, n, seconds, options, step_s, peak))

    def _sieve(self, kind: Kind) -> Sieve:
        """The sieve of a kind, which knows the fastest layouts that were found."""
        name = kind.names.device.id
        if name not in self.sieves:
            capacity = float(kind.names.device.memory.capacity or np.inf)
            self.sieves[name] = Sieve(capacity, most_above(kind.scenario.mode))
        return self.sieves[name]

    def holds(self, point: Point, wanted: Wanted) -> bool:
        """Whether a point meets every constraint, with the probability that is asked for."""
        if wanted.sure is None or not meets(point, wanted):
            return meets(point, wanted)
        factor = self._stretch(point, wanted.sure)
        kind = self.kinds[point.offer.device.id]
        late = self.point(
            kind, point.devices, factor * point.time_s, point.options, point.step_s, 0.0
        )
        return meets(late, wanted)

    def _stretch(self, point: Point, sure: float) -> float:
        """How many times its forecast a run on this kind of device takes with this probability; by
        the forecast of the first layout that is asked about.
        """
        name = point.offer.device.id
        if (name, sure) not in self.stretches:
            s = msgspec.structs.replace(self.kinds[name].scenario, **point.options)
            f = forecast(s)
            self.stretches[name, sure] = stretch(f.interval_s, sure, f.step_time_s)
        return self.stretches[name, sure]

    def keep(self, point: Point) -> None:
        """Remember a point where it is the fastest of its devices so far."""
        key = point.offer.device.id, point.devices
        before = self.searched.get(key)
        if before is None or point.step_s < before.step_s:
            self.searched[key] = point

    def refine(self, point: Point) -> Point:
        """The point with its fastest layout varied in what the grid leaves at its defaults."""
        kind = self.kinds[point.offer.device.id]
        shapes = kind.space.variations(point.options) + kind.space.near(point.options)
        if shapes:
            self._search(kind, shapes, ())
        return self.searched[point.offer.device.id, point.devices] or point

    def front(self, wanted: Wanted) -> list[Point]:
        """Of the points found that meet the constraints, those that no other beats in time, cost,
        energy and memory; columns that are unknown for any of them are left out.
        """
        met = [p for p in self.searched.values() if p is not None and self.holds(p, wanted)]
        columns: list[list[Any]] = [[p.time_s for p in met]]
        for name in ("cost_usd", "energy_j"):
            values = [getattr(p, name) for p in met]
            if all(v is not None for v in values):
                columns.append(values)
        columns.append([used_memory(p) for p in met])
        if not met:
            return []
        return [met[i] for i in front(np.array(columns, dtype=float).T).tolist()]

    def smallest(self) -> Point | None:
        """The smallest number of devices on which the run fits; of equal ones one that has a
        price, the fastest.
        """
        pairs = sorted(
            (n, kind.offer.rent is None, kind.floor.run_s(n), name)
            for name, kind in self.kinds.items()
            for n in kind.counts
            if kind.floor.fits(n, kind.names.device.memory.capacity)
        )
        for n, _, _, name in pairs[: AT_ONCE * AT_ONCE]:
            if found := self.search(self.kinds[name], [n]):
                return found[0]
        return None


def used_memory(point: Point) -> float:
    """Peak memory as a fraction of the capacity; 0 where that is unknown."""
    capacity = point.offer.device.memory.capacity
    return point.peak_bytes / float(capacity) if capacity else 0.0


def meets(point: Point, wanted: Wanted) -> bool:
    """Whether a point meets every constraint; one of an unknown number is not met."""
    for name, limit in wanted.limits.items():
        value = getattr(point, LIMITS[name])
        if value is None or value > limit:
            return False
    return True


def _value(point: Point, goal: str) -> float:
    value = point.value(goal)
    return np.inf if value is None else value
