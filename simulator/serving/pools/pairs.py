"""Closed loops of many pairs of pools at once: costs whose values are arrays over all of their
numbers of users, one pair behind the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.loops import parts
from roofcast.simulator.serving.means import solve
from roofcast.simulator.serving.pools.bulk import LOADS, Alone, At, shared
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


def closed_loops(
    every: Sequence[Asked], load: Load, again: bool
) -> Iterator[tuple[slice, Totals, Apart]]:
    """Mean values of pairs of one load, model and software: for a part of them after the other,
    arrays over their numbers of users. again: whether the decode pool makes the first token.
    """
    for part in parts([len(each.users) for each in every]):
        costing = Pairs(every[part], load, again)
        yield part, costing.totals, closed(costing, costing.users)


class Curves:
    """Lines between points, of a curve for each of some layouts, at the curves of many values."""

    def __init__(self, grids: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        sizes = np.array([len(grid) for grid in grids])
        self.start = np.cumsum([0, *sizes[:-1]])
        self.last = self.start + np.maximum(sizes - 2, 0)
        self.low, self.high = (np.array([float(grid[k]) for grid in grids]) for k in (0, -1))
        grid, value = np.concatenate(grids), np.concatenate(values)
        apart = np.append(np.diff(grid), 1.0)
        slopes = np.append(np.diff(value), 0.0) / np.where(apart == 0.0, 1.0, apart)
        slopes[self.start + sizes - 1] = 0.0
        self.lines = slopes, value - slopes * grid
        self.scale = 1.0 / (2.0 * float(grid.max()))
        # rising over all curves: those of a curve are above its number by less than 1
        self.keys = grid * self.scale + np.repeat(np.arange(len(sizes)), sizes)


class _Of:
    """Values of layouts for each point."""

    def __init__(self, curves: Curves, layout: np.ndarray) -> None:
        """layout: that of each point; curves: one of each layout."""
        self.layout, self._curves = layout, curves
        self._low, self._high = curves.low[layout], curves.high[layout]
        self._first, self._last = curves.start[layout], curves.last[layout]

    def part(self, kept: np.ndarray) -> Self:
        """Those of some points."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(other, name, value[kept])
        return other

    def curve(self, where: Numbers) -> np.ndarray:
        """np.interp on the curve of each point."""
        x = np.minimum(np.maximum(where, self._low), self._high)
        of = self._curves
        place = np.searchsorted(of.keys, x * of.scale + self.layout, side="right") - 1
        place = np.minimum(np.maximum(place, self._first), self._last)
        return np.asarray(of.lines[0].take(place) * x + of.lines[1].take(place))


class _Lines:
    """What is interpolated of queues by themselves: slopes and values at 0, of every interval of
    `LOADS`, as rows.
    """

    def __init__(self, queues: Sequence[Alone]) -> None:
        values = np.array([queue.curves for queue in queues])  # [queues, 5, loads]
        slopes = np.diff(values, axis=2) / np.diff(LOADS)
        both = np.concatenate([slopes, values[:, :, :-1] - slopes * LOADS[:-1]], axis=1)
        self.rows = np.moveaxis(both, 2, 1).reshape(-1, 2 * values.shape[1]).copy()


class _Queues(_Of):
    """Prefill pools: that of `Prompts`, of each point."""

    def __init__(self, of: Sequence[Prompts], layout: np.ndarray, instances: np.ndarray) -> None:
        super().__init__(Curves([p.grid for p in of], [p.seconds for p in of]), layout)
        self.request_s, self.user_s = of[0].request_s, of[0].user_s
        self.most, self.capacity, self.one = (
            np.array(values)[layout]
            for values in zip(*((p.most, p.capacity, float(p.takes(1.0))) for p in of), strict=True)
        )
        several = np.array([p.parts > 1 for p in of])
        queues = [p.alone for p in of] + [p.whole if p.parts > 1 else p.alone for p in of]
        self._lines = _Lines(queues)
        most = np.array([[p.capacity, p.whole_capacity] for p in of])
        # a router gives hardly a prompt to an instance that could take but a part of it
        whole = several[layout] & (instances > 1.0)
        self._row = (layout + len(of) * whole) * (len(LOADS) - 1)
        self._served_most = most[layout, whole.astype(int)]
        self._single = np.isclose(self.one * self._served_most, 1.0, rtol=1e-9, atol=0.0)

    def takes(self, prompts: Numbers) -> np.ndarray:
        """Seconds of a pass."""
        return self.curve(prompts)

    def at(self, use: np.ndarray) -> At:
        """The queue of an instance by itself at shares of its capacity."""
        x = np.maximum(use, LOADS[0])
        j = np.minimum(np.searchsorted(LOADS, x, side="right") - 1, len(LOADS) - 2)
        lines = self._lines.rows.take(self._row + j, axis=0)
        half = lines.shape[1] // 2
        return At(*(lines[:, :half] * x[:, None] + lines[:, half:]).T)

    def served(self, rate: Numbers, instances: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """As `Prompts.served`."""
        most = self._served_most
        each = np.minimum(rate, NEAR * most)
        busy, wait, own = shared(self, self.one, most, each, instances, self._single)
        spent = busy * self.takes(own) + (1.0 - busy) * self.one
        return busy * wait, spent, busy * own + (1.0 - busy)

    first_wave, last_wave, spacing = Prompts.first_wave, Prompts.last_wave, Prompts.spacing


class _Steps(_Of):
    """Decode pools: those of `Costs`, of each point."""

    def __init__(self, of: Sequence[Costs], layout: np.ndarray) -> None:
        super().__init__(Curves([c.grid for c in of], [c.steps for c in of]), layout)
        self.spec, self.more = of[0].spec, of[0].more

    def decode(self, sequences: Numbers) -> np.ndarray:
        """A decode step, per token."""
        return self.curve(sequences)


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
        sent = (np.repeat([float(s.sent[k]) for s in splits], counts) for k in range(6))
        self.sent = Transfer(*sent)  # type: ignore[arg-type]
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
