"""Seconds of steps as the mean values of a load need them."""

from __future__ import annotations

import copy
import math
from functools import cached_property

import numpy as np

from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.protocol import Numbers, Server
from roofcast.simulator.serving.speculation import NONE, Speculation
from roofcast.simulator.serving.steps import FINE, grid


class Costs:
    """Seconds of steps as the mean values need them, at the lengths of a load.

    most: sequences at once, of the memory and of the stack. users: of a closed loop, a number or an
    array of them; then all that follows from them are arrays.
    """

    def __init__(
        self,
        server: Server,
        load: Load,
        most: float,
        spec: Speculation = NONE,
        ramp: float = 0.0,
        users: Numbers | None = None,
    ) -> None:
        self.server, self.load, self.spec = server, load, spec
        self.users: Numbers = load.amount if users is None else users
        self.chunk = max(int(server.chunk_tokens), 1)
        self.request_s, self.user_s = float(server.request_s), float(server.user_s)
        self.most = max(most, 1.0)
        self.ramp = ramp
        self.more = max(load.output_len - 1, 0)
        """Tokens after the first."""
        self.grid = np.array(grid(1, max(int(math.ceil(self.most)), 2), FINE))
        at = load.context
        plain = np.broadcast_to(np.asarray(server.decode(self.grid, at), float), self.grid.shape)
        step = plain
        if spec.drafted:
            checked = server.mixed(self.grid, at, self.grid * spec.drafted, at, self.grid)
            step = np.asarray(checked, float) + spec.draft * plain
        self.steps = step / spec.tokens
        self.stalls = self._stalls(plain)

    def _stalls(self, plain: np.ndarray) -> np.ndarray:
        """What each prompt adds to the steps, for every number of decoding sequences.

        A step makes a token of each of B sequences, of which every request needs `more`: B / more
        prompts come with each step, in one where they are fewer.
        """
        at, new, hit = self.load.context, self.load.new, self.load.hit
        if new > self.chunk:
            parts = [
                np.asarray(self.server.mixed(self.grid, at, *c)) - plain for c in self.chunks()
            ]
            return np.asarray(np.sum(np.maximum(parts, 0.0), axis=0))
        k = np.clip(self.spec.tokens * self.grid / max(self.more, 1), 1.0, self.chunk / new)
        together = np.asarray(self.server.mixed(self.grid, at, k * new, hit, k))
        return np.maximum(together - plain, 0.0) / k

    def of(self, load: Load) -> Costs:
        """The same for another load of the same lengths."""
        other = copy.copy(self)
        other.load, other.users = load, load.amount
        for name in ("_highest", "others"):
            other.__dict__.pop(name, None)
        return other

    @cached_property
    def others(self) -> Numbers:
        """Share of all sequences that are those of others, to each one in a closed loop."""
        closed = self.load.kind == "concurrency"
        return 1.0 - 1.0 / np.maximum(self.users, 1.0) if closed else 1.0

    @property
    def outside(self) -> Numbers:
        """Seconds of a first token outside the engine, in a closed loop with its other users."""
        closed = self.load.kind == "concurrency"
        return self.request_s + (self.user_s * (self.users - 1.0) if closed else 0.0)

    def met(self, decoding: Numbers) -> Numbers:
        """Sequences in a step that a decoding one meets, of so many in the mean over time."""
        if self.load.kind == "concurrency":
            return 1.0 + decoding * self.others
        return np.maximum(decoding, 1.0)

    def decode(self, sequences: Numbers) -> Numbers:
        """A decode step, per token that it makes for each sequence."""
        return np.interp(sequences, self.grid, self.steps)

    def added(self, sequences: Numbers) -> Numbers:
        """What one prompt adds to the decode steps that carry its chunks."""
        return np.interp(sequences, self.grid, self.stalls)

    def step_of(self, decoding: Numbers) -> tuple[Numbers, Numbers]:
        """The step that a decoding sequence meets, of so many in the mean over time, and what a
        prompt adds to it.
        """
        met = self.met(decoding)
        return self.decode(met), self.added(met)

    @cached_property
    def parts(self) -> int:
        """Chunks of a prompt."""
        return -(-self.load.new // self.chunk)

    def chunks(self) -> list[tuple[int, int]]:
        """New tokens of each chunk of a prompt, and the tokens before it."""
        starts = range(0, self.load.new, self.chunk)
        return [(min(self.chunk, self.load.new - s), self.load.hit + s) for s in starts]

    def rate(self, decoding: Numbers) -> Numbers:
        """Requests per second while so many sequences decode, X(B)."""
        return self.rate_of(decoding, *self.step_of(decoding))

    def rate_of(self, decoding: Numbers, step: Numbers, added: Numbers) -> Numbers:
        """The same at steps that are known."""
        if self.more == 0:  # the prompt's pass makes the only token
            return 1.0 / self.first
        return decoding / (self.more * step + self.others * decoding * added)

    def highest(self) -> Numbers:
        """The most requests per second, with as many sequences as there may be."""
        return self._highest

    @cached_property
    def _highest(self) -> Numbers:
        return self.rate(self.most)

    @cached_property
    def together(self) -> float:
        """Prompts that one chunk holds; below 1 where a prompt takes several."""
        return self.chunk / self.load.new

    @cached_property
    def first(self) -> float:
        """The pass of one prompt where nothing decodes."""
        return self.alone(1.0)

    def alone(self, prompts: float) -> float:
        """The pass of prompts where nothing decodes."""
        if prompts > 1 and prompts * self.load.new > self.chunk and self.load.new <= self.chunk:
            each = max(self.chunk // self.load.new, 1)
            whole, left = divmod(prompts, each)
            full = float(self.server.prefill(each, self.load.new, self.load.hit))
            rest = float(self.server.prefill(left, self.load.new, self.load.hit)) if left else 0.0
            return whole * full + rest
        if self.load.new <= self.chunk:
            return float(self.server.prefill(prompts, self.load.new, self.load.hit))
        one = sum(float(self.server.prefill(1, new, cached)) for new, cached in self.chunks())
        return prompts * one
