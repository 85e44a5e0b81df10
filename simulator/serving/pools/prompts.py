"""An instance of the prefill pool: passes that take as many waiting prompts as a chunk holds, the
last of them in part, as in the queue of `bulk.py`.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.pools.bulk import LOADS, Alone, alone, shared
from roofcast.simulator.serving.protocol import Numbers, Server
from roofcast.simulator.serving.steps import FINE, grid

NEAR = 0.999  # of what a pool can serve, that a closed loop reaches at most
MOST_PARTS, LOST = 6, 0.03  # of a prompt; share of a chunk


def parts(share: float) -> tuple[int, int]:
    """Equal parts of a prompt, and how many of them a chunk holds that is `share` prompts long: the
    fewest that lose little of it, or those that lose the least.

    >>> parts(8.0), parts(8192 / 6006), parts(0.1)
    ((1, 8), (3, 4), (1, 1))
    """
    if share < 1.0 / MOST_PARTS:
        return 1, 1
    ways = [(m, int(share * m + 1e-9)) for m in range(1, MOST_PARTS + 1)]
    lost = [1.0 - k / (m * share) for m, k in ways]
    few = [way for way, loss in zip(ways, lost, strict=True) if loss < LOST]
    return few[0] if few else ways[int(np.argmin(lost))]


class Prompts:
    """An instance of the prefill pool, at the lengths of a load."""

    def __init__(self, server: Server, load: Load, places: float) -> None:
        self.request_s, self.user_s = float(server.request_s), float(server.user_s)
        chunk = max(int(server.chunk_tokens), 1)
        self.parts, most = parts(chunk / load.new)
        k = int(max(min(most, self.parts * places), 1))
        full = 1 < most <= k and most > (1.0 - LOST) * self.parts * chunk / load.new
        self.most = k / self.parts
        """Prompts of a pass, at most."""
        units = np.array(grid(1, max(k, 2), FINE)) / self.parts
        sizes = np.append(units[:-1], chunk / load.new) if full else units  # a full chunk
        if load.new > chunk:
            starts = np.arange(0, load.new, chunk)
            own = server.prefill(1, np.minimum(chunk, load.new - starts), load.hit + starts)
            self.grid = np.append(units[units < 1.0], 1.0)
            self.seconds = float(np.sum(own)) * self.grid
        else:
            self.grid = units
            new = load.new * np.minimum(sizes, 1.0)
            spent = server.prefill(np.maximum(sizes, 1.0), new, load.hit)
            self.seconds = np.broadcast_to(np.asarray(spent, float), self.grid.shape)
        self.capacity = self.most / float(self.takes(self.most))
        """Prompts per second, at most."""

    def takes(self, prompts: Numbers) -> Numbers:
        """Seconds of a pass of so many prompts."""
        return np.interp(prompts, self.grid, self.seconds)

    @cached_property
    def alone(self) -> Alone:
        """One instance by itself, under any load."""
        k = round(self.most * self.parts)
        passes = self.takes(np.arange(1.0, k + 1.0) / self.parts)
        return alone(passes, self.capacity, self.parts)

    @cached_property
    def whole(self) -> Alone:
        """The same where a pass takes whole prompts alone."""
        return alone(self.takes(np.arange(1.0, max(self.most, 1.0) + 1e-9)), self.whole_capacity)

    @cached_property
    def whole_capacity(self) -> float:
        """Prompts per second of such passes, at most."""
        most = math.floor(max(self.most, 1.0) + 1e-9)
        return most / float(self.takes(most))

    def served(self, rate: Numbers, instances: Numbers = 1.0) -> tuple[Numbers, Numbers, Numbers]:
        """Seconds until a pass takes a prompt, and of that pass, and its prompts, at so many
        prompts per second of each of the instances.
        """
        one, each = float(self.takes(1.0)), np.minimum(rate, NEAR * self.capacity)
        busy, wait, own = shared(self.alone, one, self.capacity, each, instances)
        if self.parts > 1 and np.any(np.greater(instances, 1.0)):
            # a router gives hardly a prompt to an instance that could take but a part of it
            few = np.minimum(rate, NEAR * self.whole_capacity)
            several = shared(self.whole, one, self.whole_capacity, few, instances)
            more = np.greater(instances, 1.0)
            busy, wait, own = (
                np.where(more, b, a) for a, b in zip((busy, wait, own), several, strict=True)
            )
        spent = busy * self.takes(own) + (1.0 - busy) * one
        return busy * wait, spent, busy * own + (1.0 - busy)

    def first_wave(self, users: Numbers) -> Numbers:
        """Seconds to the end of the pass of a prompt, in the mean over those of so many users of an
        instance that come all together.
        """
        full = np.minimum(users, self.most)
        passes = np.ceil(users / full - 1e-9)
        before, each = full * (passes - 1.0), self.takes(full)
        last = (passes - 1.0) * each + self.takes(users - before)
        return (before * each * passes / 2.0 + (users - before) * last) / users

    def last_wave(self, users: Numbers) -> Numbers:
        """Seconds from the end of the first of these passes to that of the last."""
        full = np.minimum(users, self.most)
        passes = np.ceil(users / full - 1e-9)
        left = users - full * (passes - 1.0)
        return np.maximum((passes - 2.0) * self.takes(full) + self.takes(left), 0.0) * (passes > 1)

    def spacing(self, users: Numbers) -> Numbers:
        """Seconds between the ends of the passes of two of these, in the mean."""
        full = np.minimum(users, self.most)
        passes = np.ceil(users / full - 1e-9)
        return self.takes(full) * (passes - 1.0 / passes) / 3.0

    def together(self, rate: Numbers) -> Numbers:
        """Prompts of a pass in the mean, at so many per second of an instance."""
        return np.interp(rate / self.capacity, LOADS, self.alone.many)
