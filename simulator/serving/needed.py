"""How many replicas of a layout a load needs: the fewest that hold a rate under a service level, or
so many sequences at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.asked import SLO, Level
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import closed_loops, mean_of, most_of
from roofcast.simulator.serving.slo import HIGHEST, SLOWEST, Curve, factors

MOST = 10**6  # replicas
APART = 1.15  # mean values against those of a replay, near the highest rate


class Need:
    """The replicas of one layout that a load needs.

    load: of all replicas together, a rate or a number of users, each with a sequence of full
    length. sure: probability with which a rate has to hold the level; None: as forecast.
    """

    def __init__(
        self, of: Replica, held: Room, load: Load, level: Level | None, sure: float | None = None
    ) -> None:
        self.of, self.held, self.load, self.level, self.sure = of, held, load, level, sure
        self._costs: Costs | None = None
        self._curve: Curve | None = None

    def alone(self) -> dict[str, float]:
        """Seconds that a request needs which meets no other, by what a level limits."""
        server, load = self.of.server, self.load
        ttft = float(server.prefill(1, load.new, load.hit)) + server.request_s
        step = float(server.decode(1, load.context)) / self.of.spec.tokens
        return {"ttft": ttft, "tpot": step, "e2e": ttft + (load.output_len - 1) * step}

    @property
    def costs(self) -> Costs:
        """Steps of one replica under requests that arrive at random."""
        if self._costs is None:
            most = most_of(self.of.server, self.load, self.held, self.of.spec)
            self._costs = Costs(self.of.server, self.load, most, self.of.spec)
        return self._costs

    @property
    def curve(self) -> Curve:
        """Percentiles over the rate, by replays."""
        if self._curve is None:
            assert self.level is not None, "a curve is of a service level"
            self._curve = Curve(self.of, self.load, self.level)
        return self._curve

    @property
    def _longer(self) -> dict[str, float]:
        """Times of servers as multiples of their forecasts, at least, that have to hold a level."""
        if self.sure is None:
            return dict.fromkeys(SLO, 1.0)
        found = factors(self.of.server.likeness, self.sure)
        return {name: max(value, 1.0) for name, value in found.items()}

    def least(self) -> int | None:
        """A number of replicas below which the load is not held; None: no number holds it.

        By the highest rate and by mean values, in a hundredth of the time of `fewest`.
        """
        longer = self._longer
        if self.level is not None:
            alone = self.alone()
            limits = self.level.limits
            if any(alone[name] * longer[name] > APART * most for name, most in limits.items()):
                return None
        if self.load.kind != "rate":
            return self.fewest()
        highest = HIGHEST * float(self.costs.highest()) / longer["tpot"]
        first = math.ceil(self.load.amount / highest)
        if self.level is None:
            return first

        def may_hold(replicas: int) -> bool:
            rate = self.load.amount / replicas * longer["tpot"]
            found = mean_of(self.costs, rate)._asdict()
            return all(found[name] * longer[name] <= APART * most for name, most in limits.items())

        last = math.ceil(self.load.amount / (SLOWEST * highest))
        return _first(may_hold, first, max(first, min(last, MOST)))

    def use(self, replicas: int) -> float:
        """Share of what so many replicas can hold that the load is."""
        if self.load.kind == "rate":
            return self.load.amount / (replicas * float(self.costs.highest()))
        most = self.held.sequences(self.load.input_len + self.load.output_len)
        return self.load.amount / (replicas * max(most, 1))

    def rank(self, replicas: int) -> float:
        """What layouts of one price are ranked by, less being better: the share of a rate of what
        they can serve; the mean time of a request [s] of as many users as there are.
        """
        if self.load.kind == "rate":
            return self.use(replicas)
        return float(self._loops(math.ceil(self.load.amount / replicas))["e2e"][0])

    def _loops(self, users: int) -> dict[str, np.ndarray]:
        """Mean times [s] of so many users of one replica, each with one request under way."""
        ramp, at = self.of.server.profile.ramp, np.array([float(users)])
        found = closed_loops(self.of.server, self.load, self.held, at, self.of.spec, ramp)
        return found._asdict()

    def holds(self, replicas: int) -> bool:
        """Whether so many replicas hold the load."""
        if self.load.kind == "rate":
            rate = self.load.amount / replicas
            if self.level is None:
                return rate <= HIGHEST * float(self.costs.highest())
            if rate > HIGHEST * self.curve.highest or self.curve.worst(rate)[0] > 1.0:
                return False
            if self.sure is None:
                return True
            self.curve.at(min(rate * self._longer["tpot"], HIGHEST * self.curve.highest))
            return self.curve.holds(rate, self.sure)
        users = math.ceil(self.load.amount / replicas)
        if users > self.held.sequences(self.load.input_len + self.load.output_len):
            return False
        if self.level is None:
            return True
        found = self._loops(users)
        return all(float(found[name][0]) <= most for name, most in self.level.limits.items())

    def probability(self, replicas: int) -> float | None:
        """That so many replicas hold the level on real servers; None without a rate and a level."""
        if self.load.kind != "rate" or self.level is None:
            return None
        return self.curve.probability(self.load.amount / replicas)

    def fewest(self) -> int | None:
        """The fewest replicas that hold the load; None: no number does."""
        if self.load.kind == "rate":
            first = self.least()
            if first is None or self.level is None:
                return first
            slow = math.ceil(self.load.amount / (SLOWEST * self.curve.highest))
            return _first(self.holds, first, max(first, min(slow, MOST)))
        most = self.held.sequences(self.load.input_len + self.load.output_len)
        if most < 1:
            return None
        first = math.ceil(self.load.amount / most)
        return _first(self.holds, first, max(first, math.ceil(self.load.amount)))


def _first(holds: Callable[[int], bool], first: int, last: int) -> int | None:
    """The least number from first to last from which something holds; None where it never does."""
    if holds(first):
        return first
    low, step = first, 1
    while low < last:
        high = min(low + step, last)
        if holds(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if holds(middle) else (middle, high)
            return high
        low, step = high, 2 * step
    return None
