"""Times of a server's steps in tables, so that a replay of many steps looks them up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from roofcast.simulator.serving.passes import timed
from roofcast.simulator.serving.protocol import Server
from roofcast.simulator.serving.speculation import NONE, Speculation

FINE = 16  # sequences up to which every second number has its own row
RATIO = 1.4  # between neighbours of a grid beyond that
CONTEXTS = 4  # lengths between the shortest and the longest
FEWEST = 16  # prompt tokens of the smallest chunk of a table, or those of a shorter prompt

Line = tuple[tuple[float, float, float], ...]
"""Pieces of a decode step: up to which context, then a and b of a + b x context [s]."""


class Steps:
    """Seconds of steps by linear interpolation between those of a server.

    A step is linear in the context of its sequences, but for windows of attention that are full,
    and nearly so in their number. A chunk is
    taken as prompts of `typical` new tokens each; where its prompts have more or fewer pairs of
    tokens in attention, as if these stood behind as many cached tokens more.
    """

    def __init__(
        self,
        server: Server,
        most: int,
        longest: float,
        typical: float = 1024.0,
        spec: Speculation = NONE,
        chunks: Sequence[float] = (),
    ) -> None:
        """most: sequences; longest: tokens of one; chunks: new tokens of a step for which times are
        exact, beside those of the grid.
        """
        self.spec, self.typical = spec, max(typical, 1.0)
        self.chunk = max(int(server.chunk_tokens), 1)
        self.sequences = grid(1, max(most, 2), FINE)
        self.contexts = _contexts(server, max(longest, 2.0))
        fewest = int(min(FEWEST, self.chunk, self.typical))
        new = grid(fewest, max(self.chunk, FEWEST + 1), 0)
        self.new = sorted({*new, *(n for n in chunks if new[0] < n < new[-1])})
        self.cached = [0.0, max(longest, 2.0)]
        self.few = grid(1, max(most, 2), 2)
        b, c = np.array(self.sequences)[:, None], np.array(self.contexts)[None, :]
        b3 = np.array(self.few)[:, None, None]
        n3 = np.array(self.new)[None, :, None]
        c3 = np.array(self.cached)[None, None, :]
        middle, prompts = self.contexts[1], np.maximum(n3 / self.typical, 1.0)
        asked: list[tuple[str, tuple[Any, ...]]] = [
            ("decode", (b, c)),
            ("decode", (b3, middle)),
            ("mixed", (b3, middle, n3, c3, prompts)),
            ("prefill", (prompts[0], n3[0] / prompts[0], c3[0])),
        ]
        if spec.drafted:
            asked.append(("mixed", (b, c, b * spec.drafted, c, b)))
        plain, base, mixed, alone, *checked = _timed(server, asked)
        plain = _full(plain, (len(self.sequences), len(self.contexts)))
        if checked:
            plain = _full(checked[0], plain.shape) + spec.draft * plain
        self._decode = plain.tolist()
        shape = (len(self.few), len(self.new), len(self.cached))
        added = _full(mixed, shape) - _full(base, (len(self.few), 1, 1))
        self._added = np.maximum(added, 0.0).tolist()
        self._alone = _full(alone, shape[1:]).tolist()
        # pieces of both tables by the number of sequences, made where they are met first
        self.lines: dict[float, Line] = {}
        self._planes: list[dict[float, tuple[float, ...]]] = [{} for _ in self.new]
        self._last = len(self.new) - 1

    def decode(self, sequences: float, context: float) -> float:
        """Seconds of a decode step of so many sequences, of this mean context."""
        for end, start, rise in self.lines.get(sequences) or self.line(sequences):
            if context < end:
                return start + rise * context
        return math.nan  # a context that is no number

    def line(self, sequences: float) -> Line:
        """Decode steps of so many sequences, piece by piece of their contexts."""
        i, u = _place(self.sequences, sequences)
        a, b = self._decode[i], self._decode[i + 1]
        seconds = [low + u * (high - low) for low, high in zip(a, b, strict=True)]
        pieces = []
        for j in range(len(self.contexts) - 1):
            start, end = self.contexts[j : j + 2]
            rise = (seconds[j + 1] - seconds[j]) / (end - start)
            pieces.append((end, seconds[j] - rise * start, rise))
        pieces[-1] = (math.inf, *pieces[-1][1:])
        found = self.lines[sequences] = tuple(pieces)
        return found

    def added(self, sequences: float, new: float, pairs: float) -> float:
        """Seconds that a chunk adds to a decode step; its own where that has no sequences.

        new: tokens of its prompts together. pairs: of these with those they look back on.
        """
        typical = self.typical
        behind = pairs / new - (new if new < typical else typical) / 2
        j = bisect_right(self.new, new, 1, self._last) - 1
        least, rise, deep, both = self._planes[j].get(sequences) or self._plane(sequences, j)
        found = least + rise * new + behind * (deep + both * new)
        return found if found > 0.0 else 0.0

    def _plane(self, sequences: float, j: int) -> tuple[float, ...]:
        """Of a chunk in an interval of new tokens: its seconds as a + b n + c (d + e n), for n new
        tokens and c cached ones before them; a, b, d and e.
        """
        tables, u = [self._alone, self._alone], 0.0
        if sequences >= 1:
            i, u = _place(self.few, sequences)
            tables = self._added[i : i + 2]
        below, above = (
            [x for low, high in table[j : j + 2] for x in (low, (high - low) / self.cached[1])]
            for table in tables
        )
        first, deep, last, deeper = (a + u * (b - a) for a, b in zip(below, above, strict=True))
        start, wide = self.new[j], self.new[j + 1] - self.new[j]
        rise, more = (last - first) / wide, (deeper - deep) / wide
        found = first - rise * start, rise, deep - more * start, more
        self._planes[j][sequences] = found
        return found


def _timed(server: Server, asked: Sequence[tuple[str, tuple[Any, ...]]]) -> list[np.ndarray]:
    """Seconds of steps: together, where the server can, since kernels meet the same sizes often."""
    if not hasattr(server, "asked"):
        return [getattr(server, step)(*sizes) for step, sizes in asked]
    return [each.total for each in timed([server.asked(step, *sizes) for step, sizes in asked])]


def grid(first: int, last: int, fine: int) -> list[float]:
    """Rising numbers from first to last: up to `fine` by two, then by RATIO."""
    found = [float(first)]
    while found[-1] < last:
        step = 1.0 if found[-1] < 2 and fine else 2.0
        wider = max(found[-1] + 1, round(found[-1] * RATIO))
        found.append(float(min(found[-1] + step if found[-1] < fine else wider, last)))
    return found


def _contexts(server: Server, longest: float) -> list[float]:
    """Lengths up to the longest, with those at which windows of attention are full."""
    parts = getattr(getattr(server, "cache", None), "parts", ())
    windows = {float(p.reach) for p in parts if 1.0 < p.reach < longest}
    return sorted({*np.linspace(1.0, longest, CONTEXTS).tolist(), *windows})


def _full(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.asarray(values, float), shape)


def _place(grid: list[float], value: float) -> tuple[int, float]:
    """The interval of a grid that holds a value, or is nearest to it, and where in it."""
    i, last = bisect_right(grid, value) - 1, len(grid) - 2
    if i < 0:
        i = 0
    elif i > last:
        i = last
    low = grid[i]
    return i, (value - low) / (grid[i + 1] - low)
