"""`roofcast choose`: which device, how many, in which layout.

Devices and counts are taken in the order of a lower bound of the objective (floors.py), and
searched until no other can beat what was found: a branch and bound whose leaves are layouts, of a
coarse grid. What is shown is then searched as `roofcast search` does. For one device and count the
fastest layout is taken by every objective, since rent, purchase and printed power do not depend on
the layout otherwise. Its joules are those of its forecast where they decide, or are paid.

A layout whose memory fits only if measured peaks are no higher than forecast ones ("may fit") is
taken where none on these devices surely fits, and is ranked behind those that do.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.choose.batches import run_batch
from roofcast.simulator.choose.explore import Part, valid, varied_twice
from roofcast.simulator.choose.floors import floor
from roofcast.simulator.choose.kinds import Kind, by_memory
from roofcast.simulator.choose.offers import counts, offer
from roofcast.simulator.choose.points import Point, meets, rank, value_of
from roofcast.simulator.choose.search import search_layouts
from roofcast.simulator.choose.sieve import Peaks, Sieve, Traces
from roofcast.simulator.choose.space import Shape, Space
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.choose.whole_runs import Length, site_joules
from roofcast.simulator.forecast.chain import forecast, without_interval
from roofcast.simulator.forecast.lengths import at_longest, varied_of
from roofcast.simulator.forecast.rank import most_above
from roofcast.simulator.forecast.resolve import named
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.whole_run import host_rate

FEW_KINDS = 4  # of devices, up to which every choice is searched as `roofcast search` does
AT_ONCE = 3  # counts of a device that are searched together


class Chooser:
    """Kinds of devices for one run, and what was found of them."""

    def __init__(self, scenario: Scenario, devices: Sequence[str], wanted: Wanted) -> None:
        self.traces = Traces()
        self.wanted = wanted
        self.kinds: dict[str, Kind] = {}
        self.unable: dict[str, str] = {}  # device: why it cannot run this
        self.assumptions: list[str] = []
        self.searched: dict[tuple[str, int], Point | None] = {}
        self.deep: set[tuple[str, int]] = set()  # searched as `roofcast search` does
        self.sieves: dict[str, Sieve] = {}
        self.ranks = Traces()  # traced by the searches
        self.peaks = Peaks()  # that they found
        self.least: dict[tuple, float] = {}  # bytes below which nothing fits, by kind of trace
        self.around: set[tuple] = set()  # layouts that were tried about points
        self.layouts = 0  # considered
        self.length = Length(scenario)
        batch: int | None = scenario.batch
        self.batch_assumed = batch is None
        for device in devices:
            try:
                self._add(msgspec.structs.replace(scenario, device=device, batch=batch))
            except RoofcastError as error:
                self.unable[device] = str(error)
                continue
            batch = next(iter(self.kinds.values())).scenario.batch
        if (varied := varied_of(scenario)) is not None:
            self.assumptions.append(varied.in_short())
        if not self.kinds:
            raise BadInput(next(iter(self.unable.values())))

    def _add(self, s: Scenario) -> None:
        names = named(s)
        if s.batch is None:
            size = at_longest(s).sequence or names.model.size
            one = msgspec.structs.replace(s, batch=1)
            parameters = Space(one, names).parameters
            batch, said = run_batch(s, names.model.takes, size, parameters)
            s = msgspec.structs.replace(s, batch=batch)
            self.assumptions.append(said)
        of = offer(names.device, self.wanted)
        bounds = floor(s, names, self.traces)
        self.kinds[names.device.id] = Kind(
            of, names, s, bounds, Space(s, names, self.traces), tuple(counts(of, bounds.batch))
        )

    @property
    def by_joules(self) -> bool:
        """Whether the energy of a run decides; else no forecast is made of it before a choice."""
        return self.wanted.objective == "energy" or self.wanted.max_energy_j is not None

    def point(
        self,
        kind: Kind,
        devices: int,
        seconds: float,
        options: Shape,
        step_s: float,
        peak: float,
        step_j: float | None = None,
        site_j: float | None = None,
    ) -> Point:
        """A point from the seconds of its run, and the joules of its step where they decide, of the
        boards, and of the run at the site, which owned devices pay; else at the printed power.
        """
        watts = kind.offer.power_w
        power = devices * watts if watts else None
        energy = power * seconds if power else None
        if self.by_joules and step_j is not None:
            energy = step_j * kind.floor.steps
        paid = seconds if self.length.given else 0.0 if self.wanted.buy else seconds
        return Point(
            kind.offer,
            devices,
            options,
            step_s,
            peak,
            seconds,
            kind.offer.cost(devices, paid, self.wanted.buy, site_j),
            power,
            energy,
            peak <= self._sieve(kind).surely,
        )

    def bound(self, kind: Kind, devices: int) -> Point:
        """No layout of these devices is better than this."""
        step_j = kind.floor.step_j if self.by_joules or kind.offer.owned else None
        site_j = kind.floor.steps * (step_j or 0.0)  # which takes no less than its boards
        return self.point(kind, devices, kind.floor.run_s(devices), {}, 0.0, 0.0, step_j, site_j)

    def joules(self, kind: Kind, options: Shape) -> tuple[float | None, float | None]:
        """Joules of the boards in a step of a layout, and of the run at the site, as `predict`
        forecasts them; None where they decide nothing, or are not known.
        """
        if not self.by_joules and not kind.offer.owned:
            return None, None
        s = msgspec.structs.replace(kind.scenario, **options)
        if not kind.offer.owned:
            return without_interval(s)[0].step_energy_j, None
        found = forecast(s)
        return found.step_energy_j, site_joules(found)

    def possible(self, kind: Kind, wanted: Wanted) -> list[tuple[float, int]]:
        """Counts of a kind that its lower bounds leave, each behind the bound of the objective."""
        found = []
        for n in kind.counts:
            if not kind.floor.could_fit(n, kind.names.device.memory.limit):
                continue
            if not meets(self.point(kind, n, 0.0, {}, 0.0, 0.0, 0.0), wanted):
                continue  # whatever its time
            least = self.bound(kind, n)
            value = least.value(wanted.objective)
            if value is not None and meets(least, wanted):
                found.append((value, n))
        return sorted(found)

    @property
    def batch(self) -> int:
        """The global batch, which all devices share."""
        return next(iter(self.kinds.values())).floor.batch

    def best(self, wanted: Wanted, top: int) -> list[Point]:
        """The `top` best kinds of devices, each with its best number and layout. Where the coarse
        grid finds nothing that fits on a number of devices, and few kinds or all of them would go
        without an answer, every layout is tried.
        """
        found = self.ranked(wanted, top)
        answered = {p.offer.device.id for p in found}
        if not found or len(self.kinds) <= FEW_KINDS:
            left = [kind for name, kind in self.kinds.items() if name not in answered]
            for kind in by_memory(left):
                for _, n in self.possible(kind, wanted):
                    if self.searched.get((kind.names.device.id, n)) is None:
                        self.deepen(kind, n)
            found = self.ranked(wanted, top) if left else found
        return self.refined(found, wanted)

    def ranked(self, wanted: Wanted, top: int) -> list[Point]:
        """The best point of each of the `top` best kinds of devices, the best first; those that
        may fit behind those that surely do.
        """
        goal = wanted.objective
        queue: list[tuple[float, int, str, list[tuple[float, int]]]] = []
        for name, kind in self.kinds.items():
            if possible := self.possible(kind, wanted):
                heapq.heappush(queue, (*possible[0], name, possible))
        best: dict[str, Point] = {}  # of each kind
        while queue:
            value, _, name, possible = heapq.heappop(queue)
            rivals = sorted(value_of(p, goal) for p in best.values() if p.surely)
            enough = len(rivals) >= top and value >= rivals[top - 1]
            mine = best.get(name)
            if enough or (mine is not None and mine.surely and value >= value_of(mine, goal)):
                continue
            now, later = possible[:AT_ONCE], possible[AT_ONCE:]
            for p in self.search(self.kinds[name], [n for _, n in now]):
                if self.holds(p, wanted) and p.value(goal) is not None:
                    if name not in best or rank(p, goal) < rank(best[name], goal):
                        best[name] = p
            if later:
                heapq.heappush(queue, (*later[0], name, later))
        return sorted(best.values(), key=lambda p: rank(p, goal))[:top]

    def search(self, kind: Kind, devices: Sequence[int]) -> list[Point]:
        """The fastest layout of a coarse grid that fits on each of these numbers of devices."""
        name, capacity = kind.names.device.id, kind.names.device.memory.limit
        new = [n for n in devices if (name, n) not in self.searched]
        self.searched |= dict.fromkeys([(name, n) for n in new])
        held = [n for n in new if kind.floor.fits(n, capacity)]
        shapes = [s for n in held for s in kind.space.shapes(n, few=True)]
        if shapes:
            self._search(kind, shapes, kind.space.policies(few=True))
        found = [self.searched[name, n] for n in devices]
        return [p for p in found if p is not None]

    def _search(self, kind: Kind, shapes: Sequence[Shape], policies: Sequence[str]) -> None:
        try:
            found = search_layouts(kind.scenario, shapes, policies, self._sieve(kind), self.peaks)
        except RoofcastError as error:
            self.unable[kind.names.device.id] = str(error)
            return
        self.layouts += len(found.step_s)
        self._keep(kind, valid(found))

    def _keep(self, kind: Kind, part: Part) -> None:
        """Remember the fastest layout of each number of devices that surely fits, or that fits."""
        for surely in (True, False):
            most = self._sieve(kind).surely if surely else self._sieve(kind).capacity
            step_s = np.where(part.peak_bytes <= most, part.step_s, np.inf)
            at = np.array([o["devices"] for o in part.options])
            for n in sorted(set(at.tolist())):
                i = int(np.argmin(np.where(at == n, step_s, np.inf)))
                if at[i] == n and np.isfinite(step_s[i]):
                    peak, step = float(part.peak_bytes[i]), float(step_s[i])
                    options = {k: v for k, v in part.options[i].items() if v != ()}
                    seconds = self.length.seconds(kind.floor, kind.names.device, n, step)
                    joules = self.joules(kind, options)
                    self.keep(self.point(kind, n, seconds, options, step, peak, *joules))

    def deepen(self, kind: Kind, devices: int) -> Point | None:
        """The fastest layout on so many devices of all that `roofcast search` tries; one that may
        fit where none surely does.
        """
        name = kind.names.device.id
        if (name, devices) not in self.deep and not self._hopeless(kind, devices):
            self.deep.add((name, devices))
            self.searched.setdefault((name, devices), None)
            shapes, policies = kind.space.shapes(devices), kind.space.policies()
            sieve = self._sieve(kind)
            before = dict(sieve.best)
            try:
                parts, _ = varied_twice(kind.space, shapes, policies, sieve=sieve)
            except RoofcastError as error:
                self.unable[name] = str(error)
                return None
            for part in parts:
                self.layouts += len(part.step_s) + part.invalid
                self._keep(kind, part)
            if before == sieve.best and self.searched[name, devices] is None:
                peaks = [part.peak_bytes.min() for part in parts if len(part.peak_bytes)]
                self.least[self._alike(kind, devices)] = float(min(peaks, default=np.inf))
        return self.searched.get((name, devices))

    def _alike(self, kind: Kind, devices: int) -> tuple:
        """What devices share on which every layout holds as much, and has the same variations."""
        recipe, device = kind.floor.recipe, kind.names.device
        return (device.vendor, device.kind, recipe.precision, recipe.stack.name, devices,
                kind.space.most_tensor, host_rate(device) is None)  # fmt: skip

    def _hopeless(self, kind: Kind, devices: int) -> bool:
        """Whether nothing fits on so many devices, as was found on a device with more memory."""
        capacity = kind.names.device.memory.limit
        if not kind.floor.could_fit(devices, capacity):
            return True
        least = self.least.get(self._alike(kind, devices))
        return least is not None and capacity is not None and float(capacity) < least

    def _sieve(self, kind: Kind) -> Sieve:
        """The sieve of a kind, which knows the fastest layouts that were found."""
        name = kind.names.device.id
        if name not in self.sieves:
            capacity = float(kind.names.device.memory.limit or np.inf)
            self.sieves[name] = Sieve(capacity, most_above(kind.scenario.mode), self.ranks)
        return self.sieves[name]

    def holds(self, point: Point, wanted: Wanted) -> bool:
        """Whether a point meets every constraint, with the probability that is asked for."""
        if wanted.sure is None or not meets(point, wanted):
            return meets(point, wanted)
        kind = self.kinds[point.offer.device.id]
        scenario = msgspec.structs.replace(kind.scenario, **point.options)
        limits = [wanted.within_s, self._pays_s(point, wanted)]
        return all(
            self.length.chance(
                kind.floor, scenario, kind.names.device, point.devices, point.step_s, limit
            )
            >= wanted.sure
            for limit in limits
            if limit is not None
        )

    def affordable_s(self, point: Point) -> float | None:
        """Seconds of a run that the budget pays for; None without a budget, or where time costs
        nothing.
        """
        return self._pays_s(point, self.wanted)

    @staticmethod
    def _pays_s(point: Point, wanted: Wanted) -> float | None:
        if wanted.under_usd is None or point.cost_usd is None:
            return None
        fixed = point.offer.cost(point.devices, 0.0, wanted.buy) or 0.0
        running = (point.cost_usd - fixed) / point.time_s
        return (wanted.under_usd - fixed) / running if running > 0 else None

    def keep(self, point: Point) -> None:
        """Remember a point where it is the best of its devices so far."""
        key = point.offer.device.id, point.devices
        before = self.searched.get(key)
        if before is None or (not point.surely, point.step_s) < (not before.surely, before.step_s):
            self.searched[key] = point

    def refined(self, points: Sequence[Point], wanted: Wanted) -> list[Point]:
        """The points with faster layouts, the best first: the best, and all where few kinds were
        asked for, with the fastest layout of all on its devices; the others with theirs varied.
        """
        goal, every = wanted.objective, len(self.kinds) <= FEW_KINDS
        found = [self.deepened(p) if every else self.varied(p) for p in points]
        while found:
            found.sort(key=lambda p: rank(p, goal))
            best = self.deepened(found[0])
            if best is found[0]:
                break
            found[0] = best
        return found

    def deepened(self, point: Point) -> Point:
        """The point with the fastest of all layouts on its devices."""
        return self.deepen(self.kinds[point.offer.device.id], point.devices) or point

    def varied(self, point: Point) -> Point:
        """The point with its layout varied in what the grid leaves at its defaults."""
        space = self.kinds[point.offer.device.id].space
        return self._around(point, space.variations(point.options) + space.near(point.options))

    def nearer(self, point: Point) -> Point:
        """The point with what the grid skips changed, until nothing of that is faster."""
        space = self.kinds[point.offer.device.id].space
        while (found := self._around(point, space.near(point.options))) is not point:
            point = found
        return point

    def _around(self, point: Point, shapes: list[Shape]) -> Point:
        """The fastest of a point and of these layouts of its devices; each is searched once."""
        name = point.offer.device.id
        told = [(name, *sorted(shape.items())) for shape in shapes]
        new = [s for s, key in zip(shapes, told, strict=True) if key not in self.around]
        self.around.update(told)
        if new:
            self._search(self.kinds[name], new, ())
        return self.searched[name, point.devices] or point

    def met(self, wanted: Wanted) -> list[Point]:
        """The points found that meet the constraints."""
        return [p for p in self.searched.values() if p is not None and self.holds(p, wanted)]

    def smallest(self) -> Point | None:
        """The smallest number of devices on which the run fits, surely if any does; of equal ones
        one that has a price, the fastest. None where nothing fits on any number.
        """
        for n in sorted({n for kind in self.kinds.values() for n in kind.counts}):
            held: list[Point] = []
            kinds = [k for k in self.kinds.values() if n in k.counts and not self._hopeless(k, n)]
            for kind in by_memory(kinds):
                if found := self.search(kind, [n]) or self._deep(kind, n):
                    held += found
                    if held[-1].surely and held[-1].offer.rent is not None:
                        break
            if held:
                return min(held, key=lambda p: (not p.surely, p.offer.rent is None, p.time_s))
        return None

    def _deep(self, kind: Kind, devices: int) -> list[Point]:
        found = self.deepen(kind, devices)
        return [] if found is None else [found]
