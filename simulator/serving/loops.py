"""Closed loops of many layouts at once: costs whose values are arrays over the numbers of users of
all of them, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import msgspec
import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.costs import WAVES, Costs, asks, asks_first, asks_wave, wave_sizes
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import Mean, loops_of, most_of
from roofcast.simulator.serving.passes import timed
from roofcast.simulator.serving.protocol import Numbers

TIMED = 256  # layouts whose steps are timed together
SOLVED = 8192  # numbers of users, about, that are solved together: their arrays stay in a cache


class Loops(NamedTuple):
    """Closed loops of one replica of a layout."""

    of: Replica
    held: Room
    users: np.ndarray
    everywhere: np.ndarray | None = None  # users of all replicas; None: as many on each

    @property
    def amount(self) -> np.ndarray:
        """Users of all replicas together."""
        return self.users * self.of.cut.replicas if self.everywhere is None else self.everywhere


class Every(Costs):
    """Costs of layouts at the same lengths and software, with an entry for each number of users of
    each.
    """

    def __init__(self, of: Sequence[Costs], users: Sequence[np.ndarray]) -> None:
        one, self._of = of[0], of
        self.load, self.spec, self.ramp, self.more = one.load, one.spec, one.ramp, one.more
        self.request_s, self.user_s = one.request_s, one.user_s
        self._counts = [len(each) for each in users]
        self.users = np.concatenate(users)
        self.most, self.chunk, self.first = (
            self._each([getattr(costs, name) for costs in of])
            for name in ("most", "chunk", "first")
        )
        sizes = [len(costs.grid) for costs in of]
        self._start = np.repeat(np.cumsum([0, *sizes[:-1]]), self._counts)
        self._last = np.repeat(np.array(sizes) - 2, self._counts)
        # every grid is the beginning of the longest, but for its end
        self._longest = max((costs.grid for costs in of), key=lambda g: float(g[-1]))
        self._end = self._each([costs.grid[-1] for costs in of])
        self._grids = np.concatenate([costs.grid for costs in of])
        self._tables = [
            _Table([getattr(c, n) for c in of], self._grids) for n in ("steps", "stalls")
        ]

        several = self.load.new > np.array([float(costs.chunk) for costs in of])
        waves = [
            [np.zeros(WAVES), np.zeros(2)] if long else costs.wave_passes
            for long, costs in zip(several, of, strict=True)
        ]
        self._waves = _Table(
            [passes for passes, _ in waves],
            np.concatenate([wave_sizes(max(float(c.together), 1.0)) for c in of]),
        )
        least, full = (self._each([float(ends[k]) for _, ends in waves]) for k in (0, 1))
        self._full = least, (full - least) / (np.maximum(self.most, 2.0) - 1.0)
        self._wave_start = np.repeat(np.arange(len(of)) * WAVES, self._counts)

    @property
    def full_pass(self) -> tuple[Numbers, Numbers]:
        """A full chunk, as `Costs.full_pass` has it."""
        return self._full

    def of_pass(self, prompts: Numbers) -> Numbers:
        """A pass of so many prompts, at most a chunk, where nothing decodes."""
        most = np.maximum(self.together, 1.0)
        share = np.log(prompts) / np.maximum(np.log(most), 1e-12)
        below = np.clip((share * (WAVES - 1)).astype(int), 0, WAVES - 2)
        place = self._wave_start + below
        return self._waves.at(place, prompts - self._waves.grid[place])

    def _each(self, values: Sequence[float]) -> np.ndarray:
        """A value of each layout, for all of its numbers of users."""
        return np.repeat(np.array(values, dtype=float), self._counts)

    def _places(self, sequences: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """Where in the tables so many sequences are: the entry below, and the distance to it."""
        at = np.minimum(np.maximum(sequences, self._longest[0]), self._end)
        below = np.searchsorted(self._longest, at, side="right") - 1
        place = self._start + np.minimum(below, self._last)
        return place, at - self._grids[place]

    def decode(self, sequences: Numbers) -> Numbers:
        """A decode step, per token that it makes for each sequence."""
        return self._tables[0].at(*self._places(sequences))

    def added(self, sequences: Numbers) -> Numbers:
        """What one prompt adds to the decode steps that carry its chunks."""
        return self._tables[1].at(*self._places(sequences))

    def step_of(self, decoding: Numbers) -> tuple[Numbers, Numbers]:
        """Both, as `Costs.step_of` has them."""
        where = self._places(self.met(decoding))
        return self._tables[0].at(*where), self._tables[1].at(*where)

    @cached_property
    def parts(self) -> Numbers:
        """Chunks of a prompt."""
        return np.ceil(self.load.new / self.chunk)

    def each_of(self, prompts: Numbers) -> Numbers:
        """Of a pass of so many prompts where nothing decodes, the part of each."""
        ends = np.cumsum(self._counts)[:-1]
        parts = zip(self._of, np.split(np.asarray(prompts), ends), strict=True)
        return np.concatenate([np.broadcast_to(c.each_of(n), n.shape) for c, n in parts])


class _Table:
    """Values on the grids of all layouts, and their slopes."""

    def __init__(self, values: Sequence[np.ndarray], grids: np.ndarray) -> None:
        self.grid, self.values = grids, np.concatenate(values)
        apart = np.append(np.diff(grids), 1.0)
        self.slopes = np.append(np.diff(self.values), 0.0) / np.where(apart == 0.0, 1.0, apart)

    def at(self, place: np.ndarray, beyond: np.ndarray) -> np.ndarray:
        """The values so far beyond places."""
        return self.slopes[place] * beyond + self.values[place]


def costs_of(every: Sequence[tuple[Replica, Room]], load: Load) -> list[Costs]:
    """The costs of layouts, as `Costs` has them; load: of closed loops. Steps of all are timed
    together.
    """
    found: list[Costs] = []
    for start in range(0, len(every), TIMED):
        some = every[start : start + TIMED]
        steps = [
            asks(of.server, load, most_of(of.server, load, held, of.spec), of.spec)
            for of, held in some
        ]
        first = [asks_first(of.server, load) for of, _ in some]
        most_each = [most_of(of.server, load, held, of.spec) for of, held in some]
        waves = [asks_wave(of.server, load, m) for (of, _), m in zip(some, most_each, strict=True)]
        every_ask = zip(some, steps, first, waves, strict=True)
        spent = iter(
            timed(
                [of.server.asked(n, *x) for (of, _), *a in every_ask for each in a for n, x in each]
            )
        )
        for (of, _), most, *asked in zip(some, most_each, steps, first, waves, strict=True):
            a, b, c = ([next(spent).total for _ in each] for each in asked)
            times, profile = (a, float(np.sum(b[0])), c), of.server.profile
            found.append(Costs(of.server, load, most, of.spec, profile.ramp, found=times))
    return found


def parts(users: Sequence[int]) -> Iterator[slice]:
    """Layouts in parts of about SOLVED numbers of users; users: how many each has.

    >>> [(p.start, p.stop) for p in parts([6000, 2000, 5000, 9000])]
    [(0, 2), (2, 3), (3, 4)]
    """
    start = 0
    while start < len(users):
        end, count = start + 1, users[start]
        while end < len(users) and count + users[end] <= SOLVED:
            count += users[end]
            end += 1
        yield slice(start, end)
        start = end


def closed_loops(every: Sequence[Loops]) -> Iterator[tuple[slice, Mean]]:
    """Mean values of layouts of one load, model and software: for a part of them after the other,
    arrays over their numbers of users.
    """
    if not every:
        return
    load = msgspec.structs.replace(every[0].of.asked.load, kind="concurrency")
    costs = costs_of([(each.of, each.held) for each in every], load)
    for part in parts([len(each.users) for each in every]):
        yield part, loops_of(Every(costs[part], [each.users for each in every[part]]))
