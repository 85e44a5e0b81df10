"""Times of a server's steps in tables, so that a replay of many steps looks them up."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from roofcast.simulator.serving.protocol import Server
from roofcast.simulator.serving.speculation import NONE, Speculation

FINE = 16  # sequences up to which every second number has its own row
RATIO = 1.4  # between neighbours of a grid beyond that
CONTEXTS = 4  # lengths between the shortest and the longest
FEWEST = 16  # prompt tokens of the smallest chunk of a table


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
    ) -> None:
        self.spec, self.typical = spec, max(typical, 1.0)
        self.chunk = max(int(server.chunk_tokens), 1)
        self.sequences = grid(1, max(most, 2), FINE)
        self.contexts = _contexts(server, max(longest, 2.0))
        self.new = grid(min(FEWEST, self.chunk), max(self.chunk, FEWEST + 1), 0)
        self.cached = [0.0, max(longest, 2.0)]
        b, c = np.array(self.sequences)[:, None], np.array(self.contexts)[None, :]
        plain = _full(server.decode(b, c), (len(self.sequences), len(self.contexts)))
        if spec.drafted:
            checked = _full(server.mixed(b, c, b * spec.drafted, c, b), plain.shape)
            plain = checked + spec.draft * plain
        self._decode = plain.tolist()
        self.few = grid(1, max(most, 2), 2)
        shape = (len(self.few), len(self.new), len(self.cached))
        b3 = np.array(self.few)[:, None, None]
        n3 = np.array(self.new)[None, :, None]
        c3 = np.array(self.cached)[None, None, :]
        middle = self.contexts[1]
        base = _full(server.decode(b3, middle), (len(self.few), 1, 1))
        prompts = np.maximum(n3 / self.typical, 1.0)
        added = _full(server.mixed(b3, middle, n3, c3, prompts), shape) - base
        self._added = np.maximum(added, 0.0).tolist()
        alone = server.prefill(prompts[0], n3[0] / prompts[0], c3[0])
        self._alone = _full(alone, shape[1:]).tolist()

    def decode(self, sequences: float, context: float) -> float:
        """Seconds of a decode step of so many sequences, of this mean context."""
        i, u = _place(self.sequences, sequences)
        j, v = _place(self.contexts, context)
        a, b = self._decode[i], self._decode[i + 1]
        low = a[j] + v * (a[j + 1] - a[j])
        return low + u * (b[j] + v * (b[j + 1] - b[j]) - low)

    def added(self, sequences: float, new: float, pairs: float) -> float:
        """Seconds that a chunk adds to a decode step; its own where that has no sequences.

        new: tokens of its prompts together. pairs: of these with those they look back on.
        """
        j, v = _place(self.new, new)
        prompts = max(new / self.typical, 1.0)
        share = (pairs / new - new / prompts / 2) / self.cached[1]

        def at(table: list[list[float]]) -> float:
            a, b = table[j], table[j + 1]
            low, high = a[0] + share * (a[1] - a[0]), b[0] + share * (b[1] - b[0])
            return low + v * (high - low)

        if sequences < 1:
            return max(at(self._alone), 0.0)
        i, u = _place(self.few, sequences)
        low = at(self._added[i])
        return max(low + u * (at(self._added[i + 1]) - low), 0.0)


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
