"""Closed loops of many pairs of pools at once: costs whose values are arrays over all of their
numbers of users, one pair behind the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import solve
from roofcast.simulator.serving.pools.bulk import LOADS, At, shared
from roofcast.simulator.serving.pools.means import Apart, Costing, Totals, closed
from roofcast.simulator.serving.pools.prompts import NEAR, Prompts
from roofcast.simulator.serving.pools.transfer import Transfer
from roofcast.simulator.serving.protocol import Numbers


class Asked(NamedTuple):
    """A pair of layouts under numbers of users, each of so many instances."""

    prompts: Prompts
    costs: Costs
    places: float
    sent: Transfer
    prefills: np.ndarray  # instances, one for each number of users; so are the next two
    decodes: np.ndarray
    users: np.ndarray


SOLVED = 8192  # numbers of users, about, that are solved together: their arrays stay in a cache


def closed_loops(
    every: Sequence[Asked], load: Load, again: bool
) -> Iterator[tuple[slice, Totals, Apart]]:
    """Mean values of pairs of one load, model and software: for a part of them after the other,
    arrays over their numbers of users. again: whether the decode pool makes the first token.
    """
    start = 0
    while start < len(every):
        end, count = start + 1, len(every[start].users)
        while end < len(every) and count + len(every[end].users) <= SOLVED:
            count += len(every[end].users)
            end += 1
        part = slice(start, end)
        costing = Pairs(every[part], load, again)
        yield part, costing.totals, closed(costing, costing.users)
        start = end


class Curves:
    """Lines between points, a curve for each of some layouts: `at` is np.interp on that of each
    value.
    """

    def __init__(self, grids: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        sizes = np.array([len(grid) for grid in grids])
        self.start = np.cumsum([0, *sizes[:-1]])
        self.last = self.start + np.maximum(sizes - 2, 0)
        self.grid, self.values = np.concatenate(grids), np.concatenate(values)
        self.low, self.high = (np.array([float(grid[k]) for grid in grids]) for k in (0, -1))
        self.scale = 1.0 / (2.0 * float(self.grid.max()))
        self.keys = self.grid * self.scale + np.repeat(np.arange(len(sizes)), sizes)
        apart = np.append(np.diff(self.grid), 1.0)
        ends = np.append(self.start[1:], len(self.grid)) - 1
        self.slopes = np.append(np.diff(self.values), 0.0) / np.where(apart == 0.0, 1.0, apart)
        self.slopes[ends] = 0.0

    def at(self, curve: np.ndarray, where: Numbers) -> np.ndarray:
        """The values of curves, by their numbers, at places."""
        x = np.minimum(np.maximum(where, self.low[curve]), self.high[curve])
        place = np.searchsorted(self.keys, x * self.scale + curve, side="right") - 1
        place = np.minimum(np.maximum(place, self.start[curve]), self.last[curve])
        found = self.slopes[place] * (x - self.grid[place]) + self.values[place]
        return np.asarray(found)


class _Of:
    """Values of layouts for each point; `part`: those of some points."""

    layout: np.ndarray  # of each point

    def part(self, kept: np.ndarray) -> _Of:
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.shape == self.layout.shape:
                setattr(other, name, value[kept])
        return other


class _Queues(_Of):
    """Prefill pools: that of `Prompts`, of each point."""

    def __init__(self, of: Sequence[Prompts], layout: np.ndarray, instances: np.ndarray) -> None:
        self.layout = layout
        self.request_s, self.user_s = of[0].request_s, of[0].user_s
        self._takes = Curves([p.grid for p in of], [p.seconds for p in of])
        self.most, self.capacity, self.one = (
            np.array(values)[layout]
            for values in zip(*((p.most, p.capacity, float(p.takes(1.0))) for p in of), strict=True)
        )
        several = np.array([p.parts > 1 for p in of])
        queues = [p.alone for p in of] + [p.whole if p.parts > 1 else p.alone for p in of]
        self._curves = np.array([queue.curves for queue in queues])  # [queues, 5, loads]
        self._slopes = np.diff(self._curves, axis=2) / np.diff(LOADS)
        most = np.array([[p.capacity, p.whole_capacity] for p in of])
        # a router gives hardly a prompt to an instance that could take but a part of it
        whole = several[layout] & (instances > 1.0)
        self.queue = layout + len(of) * whole
        self.served_most = most[layout, whole.astype(int)]

    def takes(self, prompts: Numbers) -> np.ndarray:
        """Seconds of a pass."""
        return self._takes.at(self.layout, prompts)

    def at(self, use: np.ndarray) -> At:
        """The queue of an instance by itself at shares of its capacity."""
        j = np.clip(np.searchsorted(LOADS, use, side="right") - 1, 0, len(LOADS) - 2)
        beyond = np.maximum(use - LOADS[j], 0.0)
        return At(*(self._curves[self.queue, k, j] + self._slopes[self.queue, k, j] * beyond
                    for k in range(len(At._fields))))  # fmt: skip

    def served(self, rate: Numbers, instances: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """As `Prompts.served`."""
        each = np.minimum(rate, NEAR * self.served_most)
        busy, wait, own = shared(self, self.one, self.served_most, each, instances)
        spent = busy * self.takes(own) + (1.0 - busy) * self.one
        return busy * wait, spent, busy * own + (1.0 - busy)

    first_wave, last_wave, spacing = Prompts.first_wave, Prompts.last_wave, Prompts.spacing


class _Steps(_Of):
    """Decode pools: those of `Costs`, of each point."""

    def __init__(self, of: Sequence[Costs], layout: np.ndarray) -> None:
        self.layout, self.spec, self.more = layout, of[0].spec, of[0].more
        self._steps = Curves([c.grid for c in of], [c.steps for c in of])

    def decode(self, sequences: Numbers) -> np.ndarray:
        """A decode step, per token."""
        return self._steps.at(self.layout, sequences)


class Pairs(Costing):
    """Costs of pairs of pools, with an entry for each number of users of each."""

    def __init__(self, splits: Sequence[Asked], load: Load, again: bool) -> None:
        counts = [len(split.users) for split in splits]
        self.load, self.again = load, again
        self.prefills, self.n, self.users = (
            np.concatenate([getattr(split, name) for split in splits])
            for name in ("prefills", "decodes", "users")
        )
        prompts = list({id(s.prompts): s.prompts for s in splits}.values())
        costs = list({id(s.costs): s.costs for s in splits}.values())
        first, second = (
            np.repeat([[id(x) for x in known].index(id(getattr(s, name))) for s in splits], counts)
            for known, name in ((prompts, "prompts"), (costs, "costs"))
        )
        self.prompts = _Queues(prompts, first, self.prefills)  # type: ignore[assignment]
        self.costs = _Steps(costs, second)  # type: ignore[assignment]
        self.more = costs[0].more
        self.places = np.repeat([s.places for s in splits], counts)
        self.sent = Transfer(
            *(np.repeat([float(s.sent[k]) for s in splits], counts) for k in range(6))  # type: ignore[arg-type]
        )
        highest = np.array([float(np.max(c.grid / (c.more * c.steps))) for c in costs])
        link = np.minimum(self.prefills / self.sent.each_sender, self.n / self.sent.each_receiver)
        self.totals = Totals(self.prefills * self.prompts.capacity, link, self.n * highest[second])

    def part(self, kept: np.ndarray) -> Pairs:
        """Of some points."""
        other = copy.copy(self)
        for name in ("prefills", "n", "users", "places"):
            setattr(other, name, getattr(self, name)[kept])
        other.prompts = self.prompts.part(kept)  # type: ignore[attr-defined]
        other.costs = self.costs.part(kept)  # type: ignore[attr-defined]
        other.sent = Transfer(*(each[kept] for each in self.sent))  # type: ignore[index]
        other.totals = Totals(*(each[kept] for each in self.totals))
        return other

    def fullest(self, users: Numbers, fastest: Numbers, kept: np.ndarray) -> Numbers:
        """As `Costing.fullest`, of the points that ask for it alone."""
        some, found = self.part(kept), self.places.copy()
        at = users[kept]
        found[kept] = solve(lambda b: some.rate(b, at), fastest[kept], some.places)
        return found
