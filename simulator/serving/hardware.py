"""`roofcast choose --serving`: the cheapest hardware that holds a load, in whole replicas, or the
fewest devices; a best-first search in which lower bounds rule most layouts out.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH
from roofcast.simulator.choose.offers import Offer, offer
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.models.catalog import resolve
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.serving.asked import Level, Serving
from roofcast.simulator.serving.chain import STACK, serve
from roofcast.simulator.serving.formats import served
from roofcast.simulator.serving.needed import Need
from roofcast.simulator.serving.pricing import Price
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.search import Refused
from roofcast.simulator.serving.space import candidates, check_formats, has_experts
from roofcast.simulator.serving.traces import traced
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.traced import ALONE

GOALS = ("cost", "devices")
TIES = 4  # layouts of one price that are told apart by replays
NODES = (2, 4, 8)  # of one replica, where no part of a node and no node holds the model


class Way(NamedTuple):
    """A layout of one replica on a kind of device."""

    asked: Serving
    offer: Offer
    size: int  # devices of a replica


class Point(NamedTuple):
    """Replicas of a layout: a lower bound of what the load takes, or, at the last stage, that."""

    value: tuple[float, float]  # what is ranked by
    counted: bool  # no bound; of equal points the bounds come first, so that all are counted
    rank: float  # of these the one that serves best
    serial: int
    way: Way
    need: Need | None = None  # of a layout that holds the model
    replicas: int = 1


class Hardware:
    """Kinds of devices for one load, and what was found of them."""

    def __init__(
        self,
        asked: Serving,
        devices: Sequence[str],
        wanted: Wanted,
        goal: str = "cost",
        level: Level | None = None,
        sure: float | None = None,
    ) -> None:
        if goal not in GOALS:
            raise BadInput(f"goal {goal}: known: {', '.join(GOALS)}")
        self.asked, self.wanted, self.goal, self.level = asked, wanted, goal, level
        self.sure = sure  # probability with which a rate has to hold the level
        self.model: Model = resolve(asked.model)
        has_experts(self.model)  # refuses what does not generate text
        self.refused = Refused()
        self.without_price: list[str] = []
        self.without_memory: list[str] = []
        self.failed: list[tuple[Way, Need]] = []  # which no number of replicas helps
        self.holding: set[str] = set()  # devices on which some layout holds the model
        self.layouts = self.counted = 0
        self._serial = itertools.count()
        self.shared: dict[str, Shared] = {}  # engines of each device
        self.offers: dict[str, Offer] = {}
        for name in devices:
            of = offer(hwdb.device(name, asked.set), wanted)
            check_formats(asked, of.device)
            if not of.device.memory.limit:
                self.without_memory.append(of.device.typed)
            elif self.value(of, 1) is None:
                self.without_price.append(of.device.typed)
            else:
                self.offers.setdefault(of.device.id, of)

    def usd(self, of: Offer, devices: int) -> float | None:
        """Rent per hour of so many devices, or their purchase."""
        price = of.purchase if self.wanted.buy else of.rent
        return None if price is None else devices * price.median

    def value(self, of: Offer, devices: int) -> tuple[float, float] | None:
        """What choices are ranked by, less being better; None where the price is unknown."""
        usd = self.usd(of, devices)
        if self.goal == "cost" or self.wanted.under_usd is not None:
            if usd is None:
                return None
            if self.goal == "cost":
                return usd, float(devices)
        return float(devices), devices * self._capacity(of)

    def ways(self, of: Offer, sizes: Sequence[int]) -> list[Way]:
        """Layouts of one replica on so many devices."""
        found = []
        for size in sizes:
            named = msgspec.structs.replace(self.asked, device=of.device.typed)
            try:
                every = candidates(named, self.model, size)
            except BadInput as error:
                self.refused.add(str(error))
                continue
            found += [
                Way(a, of, size) for a in every if (a.tp or 1) * (a.pp or 1) * (a.dp or 1) == size
            ]
        return found

    def need(self, way: Way) -> Need | None:
        """What a layout needs for the load; None where it does not hold the model."""
        self.layouts += 1
        least = self._weights(way) / way.size
        stack = profile(way.asked.stack or STACK)
        usable = (1.0 if stack.of_free else stack.memory_use) * self._capacity(way.offer)
        if least >= usable:
            gib = 2.0**30
            self.refused.add(
                f"{self.asked.model} does not fit: weights of {least / gib:.1f} GiB per device at"
                f" least, where {usable / gib:.1f} GiB of the device are usable"
            )
            return None
        shared = self.shared.setdefault(way.offer.device.id, Shared())
        laid = self.refused.laid(way.asked, self.model, Price(None, ()), shared)
        if laid is None:
            return None
        self.holding.add(way.offer.device.id)
        return Need(laid.replica, laid.held, self.asked.load, self.level, self.sure)

    def _weights(self, way: Way) -> float:
        """Bytes of all weights in the formats of a layout: each device holds its share at least."""
        device, a = way.offer.device, way.asked
        formats = served(a.weights, a.kv, device, self.model, a.stack or STACK).formats
        made = traced(self.model, "decode", formats, ALONE)
        return float(sum(w.size * w.count * WIDTH[w.dtype] for w in made.weights))

    @staticmethod
    def _capacity(of: Offer) -> float:
        return float(of.device.memory.limit or 0.0) or float("inf")

    def _point(self, way: Way, need: Need | None, replicas: int, counted: bool) -> Point | None:
        """A point of the queue; None beyond the limits on money and devices."""
        devices = replicas * way.size
        value = self.value(way.offer, devices)
        if value is None or devices > self.wanted.devices:
            return None
        usd, most = self.usd(way.offer, devices), self.wanted.under_usd
        if most is not None and (usd is None or usd > most):
            return None
        rank = need.rank(replicas) if need is not None and counted else 0.0
        return Point(value, counted, rank, next(self._serial), way, need, replicas)

    def _next(self, point: Point) -> Point | None:
        """The same with a sharper bound; None where it does not hold the load."""
        way, need = point.way, point.need
        if need is None:
            need = self.need(way)
            if need is None:
                return None
            least = need.least()
            if least is None:
                self.failed.append((way, need))
                return None
            return self._point(way, need, least, False)
        self.counted += 1
        fewest = need.fewest()
        if fewest is None:
            self.failed.append((way, need))
            return None
        return self._point(way, need, fewest, True)

    def ranked(self, top: int) -> list[Point]:
        """The best layout of each of the `top` best kinds of devices, with its replicas.

        Points are taken in the order of their bounds, so that the first of a device that is no
        bound any more is its best: of layouts of one price the one that serves best.
        """
        found: dict[str, Point] = {}
        queue = self._first([(of, divisors(of.node)) for of in self.offers.values()])
        while len(found) < top:
            if not queue:
                small = [of for name, of in self.offers.items() if name not in self.holding]
                self.holding |= {of.device.id for of in small}  # each is asked for once
                queue = self._first([(of, [n * of.node for n in self._nodes(of)]) for of in small])
                if not queue:
                    break
            point = heapq.heappop(queue)
            name = point.way.offer.device.id
            if name in found:
                continue
            if point.counted:
                found[name] = self._best_of(point, queue)
            elif (sharper := self._next(point)) is not None:
                heapq.heappush(queue, sharper)
        return sorted(found.values())[:top]

    def _best_of(self, point: Point, queue: Sequence[Point]) -> Point:
        """Of layouts of one device and price that hold a number of users, the one that serves best
        as it is told; they are ranked by mean values, which a replay may change.
        """
        name, asked = point.way.offer.device.id, self.asked.load
        ties = [p for p in queue if p.counted and p.value == point.value]
        alike = sorted([point, *(p for p in ties if p.way.offer.device.id == name)])[:TIES]
        if asked.kind != "concurrency" or len(alike) == 1:
            return point
        every = [(p, self.told(p)) for p in alike]
        kept = [(p, f) for p, f in every if self._holds(f)] or every[:1]
        return max(kept, key=lambda each: each[1].output_tokens_per_s)[0]

    def _holds(self, told: ServingForecast) -> bool:
        """Whether mean times are within the level."""
        limits = self.level.limits if self.level is not None else {}
        return all(getattr(told, f"{name}_s").mean <= most for name, most in limits.items())

    def told(self, point: Point) -> ServingForecast:
        """The forecast of a point under the load that is asked for."""
        way, of = point.way, point.way.offer
        rent = of.rent.median if of.rent is not None else None
        devices = point.replicas * way.size
        at = msgspec.structs.replace(way.asked, devices=devices, price_per_hour=rent)
        return serve(at, replays=True if self.asked.load.kind == "rate" else None)

    def _nodes(self, of: Offer) -> list[int]:
        """Numbers of nodes of one replica where no node holds the model: none of desktops."""
        return [n for n in NODES if n * of.node <= of.most]

    def _first(self, sized: Sequence[tuple[Offer, Sequence[int]]]) -> list[Point]:
        """A queue of layouts with one replica each."""
        points = [
            self._point(way, None, 1, False)
            for of, sizes in sized
            for way in self.ways(of, [n for n in sizes if n <= of.most])
        ]
        queue = [point for point in points if point is not None]
        heapq.heapify(queue)
        return queue

    def nearest(self) -> str:
        """What would hold where nothing does, in a sentence without its end."""
        assert self.level is not None, "only a level is missed by every number of replicas"
        limits = self.level.limits
        best: tuple[float, Way, dict[str, float]] | None = None
        for way, need in self.failed:
            alone = need.alone()
            worst = max(alone[name] / limit for name, limit in limits.items())
            if best is None or worst < best[0]:
                best = worst, way, alone
        assert best is not None, "some layout has failed"
        _, way, alone = best
        needs = ", ".join(f"{name} {1000 * alone[name]:.3g} ms" for name in limits)
        a = way.asked
        degrees = [f"{n} {v}" for n in ("tp", "pp", "ep", "dp") if (v := getattr(a, n) or 1) > 1]
        cut = f" ({', '.join(degrees)})" if degrees else ""
        return f"{needs} for a request alone on {way.size} {a.device}{cut}"
