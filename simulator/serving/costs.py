"""Seconds of steps as the mean values of a load need them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.protocol import Numbers, Server
from roofcast.simulator.serving.speculation import NONE, Speculation
from roofcast.simulator.serving.steps import FINE, grid

WAVES = 16  # numbers of prompts at which a pass of the first ones is timed
Ask = tuple[str, tuple[Numbers, ...]]  # a step of a server, decode | prefill | mixed; its sizes


Waves = Sequence[np.ndarray]  # seconds of passes of prompts alone, and of full ones


def grid_of(most: float) -> np.ndarray:
    """Numbers of sequences at which steps are timed where so many may run at once."""
    return np.array(grid(1, max(int(math.ceil(max(most, 1.0))), 2), FINE))


def asks(server: Server, load: Load, most: float, spec: Speculation) -> list[Ask]:
    """The steps that `Costs` are made of: of decoding, with what is drafted, and with prompts, of
    which a long one has a column for each of its chunks.

    A step makes a token of each of B sequences, of which every request needs `more`: B / more
    prompts come with each step, in one where they are fewer.
    """
    sizes, at, chunk = grid_of(most), load.context, max(int(server.chunk_tokens), 1)
    steps: list[Ask] = [("decode", (sizes, at))]
    if spec.drafted:
        steps.append(("mixed", (sizes, at, sizes * spec.drafted, at, sizes)))
    if load.new > chunk:
        return [*steps, ("mixed", (sizes[:, None], at, *chunks(load, chunk)))]
    k = _prompts(sizes, load, chunk, spec)
    return [*steps, ("mixed", (sizes, at, k * load.new, load.hit, k))]


def asks_first(server: Server, load: Load) -> list[Ask]:
    """The passes of one prompt where nothing decodes."""
    chunk = max(int(server.chunk_tokens), 1)
    if load.new <= chunk:
        return [("prefill", (1.0, load.new, load.hit))]
    return [("prefill", (1.0, *chunks(load, chunk)))]


def chunks(load: Load, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """New tokens of each chunk of a prompt, and the tokens before it."""
    start = np.arange(0, load.new, chunk)
    return np.minimum(chunk, load.new - start), load.hit + start


def asks_wave(server: Server, load: Load, most: float) -> list[Ask]:
    """The passes of the first prompts of all users, which come together: of some of them where
    nothing decodes, and full ones with the least and the most sequences that decode; none where a
    prompt takes several chunks.
    """
    k = max(int(server.chunk_tokens), 1) / load.new
    if k < 1.0:
        return []
    ends = np.array([1.0, max(most, 2.0)])
    return [
        ("prefill", (wave_sizes(k), load.new, load.hit)),
        ("mixed", (ends, load.input_len, k * load.new, load.hit, k)),
    ]


def wave_sizes(most: float) -> np.ndarray:
    """Prompts of the passes that are timed of those that come together, up to a chunk."""
    return np.geomspace(1.0, most, WAVES)


def _prompts(sizes: np.ndarray, load: Load, chunk: int, spec: Speculation) -> np.ndarray:
    """Prompts that come with a step of so many sequences."""
    more = max(load.output_len - 1, 1)
    return np.asarray(np.clip(spec.tokens * sizes / more, 1.0, chunk / load.new))


class Costs:
    """Seconds of steps as the mean values need them, at the lengths of a load.

    most: sequences at once, of the memory and of the stack. users: of a closed loop, a number or an
    array of them; then all that follows from them are arrays. found: seconds of the steps of
    `asks`, of `asks_first` together, and of `asks_wave`, where they are timed already.
    """

    def __init__(
        self,
        server: Server,
        load: Load,
        most: float,
        spec: Speculation = NONE,
        ramp: float = 0.0,
        users: Numbers | None = None,
        found: tuple[Sequence[np.ndarray], float, Waves] | None = None,
    ) -> None:
        self.server, self.load, self.spec = server, load, spec
        self.users: Numbers = load.amount if users is None else users
        self.chunk: Numbers = max(int(server.chunk_tokens), 1)
        self.request_s, self.user_s = float(server.request_s), float(server.user_s)
        self.most: Numbers = max(most, 1.0)
        self.ramp = ramp
        self.more = max(load.output_len - 1, 0)
        """Tokens after the first."""
        self.grid = grid_of(self.most)
        if found is None:
            timed = [getattr(server, name)(*sizes) for name, sizes in asks(*self._lengths)]
        else:
            timed, self.first, self.wave_passes = list(found[0]), found[1], found[2]
        plain, *checked = (
            np.broadcast_to(np.asarray(t, float), self.grid.shape) for t in timed[:-1]
        )
        step = checked[0] + spec.draft * plain if spec.drafted else plain
        self.steps = step / spec.tokens
        """A decode step, per token, on the grid."""
        self.stalls = self._stalls(plain, np.asarray(timed[-1], float))
        """What each prompt adds to the steps, on the grid."""

    @property
    def _lengths(self) -> tuple[Server, Load, float, Speculation]:
        return self.server, self.load, self.most, self.spec

    def _stalls(self, plain: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        """What each prompt adds to the steps, for every number of decoding sequences; mixed: steps
        with prompts in them.
        """
        if self.load.new > self.chunk:
            return np.asarray(np.maximum(mixed - plain[:, None], 0.0).sum(axis=1))
        k = _prompts(self.grid, self.load, self.chunk, self.spec)
        return np.asarray(np.maximum(mixed - plain, 0.0) / k)

    def of(self, load: Load) -> Costs:
        """The same for another load of the same lengths."""
        if load.kind == "concurrency":
            self.__dict__.setdefault("wave_passes", self.wave_passes)  # made once for all
        other = copy.copy(self)
        other.load, other.users = load, load.amount
        other.__dict__.pop("others", None)
        return other

    @cached_property
    def others(self) -> Numbers:
        """Share of all sequences that are those of others, to each one in a closed loop."""
        closed = self.load.kind == "concurrency"
        return 1.0 - 1.0 / np.maximum(self.users, 1.0) if closed else 1.0

    @property
    def outside(self) -> Numbers:
        """Seconds of a first token outside the engine, in a closed loop with its other users: those
        whose tokens are sent, not those who wait for a place.
        """
        if self.load.kind != "concurrency":
            return self.request_s
        return self.request_s + self.user_s * np.minimum(self.users - 1.0, self.most)

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
    def parts(self) -> Numbers:
        """Chunks of a prompt."""
        return -(-self.load.new // self.chunk)

    def rate(self, decoding: Numbers) -> Numbers:
        """Requests per second while so many sequences decode, X(B)."""
        return self.rate_of(decoding, *self.step_of(decoding))

    def rate_of(self, decoding: Numbers, step: Numbers, added: Numbers) -> Numbers:
        """The same at steps that are known."""
        if self.more == 0:  # the prompt's pass makes the only token
            return self.highest() + 0.0 * decoding
        return decoding / (self.more * step + self.others * decoding * added)

    def highest(self) -> Numbers:
        """The most requests per second, with as many sequences as there may be, whoever sends them:
        of every load of these lengths the same.
        """
        return self._highest

    @cached_property
    def _highest(self) -> Numbers:
        if self.more == 0:
            return self.passing(self.most)
        step, added = self.decode(self.most), self.added(self.most)
        return self.most / (self.more * step + self.most * added)

    def passing(self, there: Numbers) -> Numbers:
        """Prompts per second while so many wait or are computed, one at least, and none decodes: a
        pass takes all of them, up to a chunk.
        """
        if np.all(np.less(self.together, 1.0)):
            return 1.0 / self.first + 0.0 * there
        k = np.minimum(there, self.served)
        return k / np.where(np.less(self.together, 1.0), self.first, self.of_pass(k))

    @cached_property
    def together(self) -> Numbers:
        """Prompts that one chunk holds; below 1 where a prompt takes several."""
        return self.chunk / self.load.new

    @cached_property
    def served(self) -> Numbers:
        """Prompts that a step takes at most, k."""
        return np.maximum(self.together, 1.0)

    @cached_property
    def bends(self) -> Numbers:
        """The power of the load in the wait for k servers [sakasegawa1977]."""
        return np.sqrt(2.0 * (self.served + 1.0))

    @cached_property
    def wave_passes(self) -> Waves:
        """Seconds of the passes of `asks_wave`; none where a prompt takes several chunks."""
        asked = asks_wave(self.server, self.load, float(self.most))
        return [np.asarray(getattr(self.server, name)(*sizes), float) for name, sizes in asked]

    def of_pass(self, prompts: Numbers) -> Numbers:
        """A pass of so many prompts, at most a chunk, where nothing decodes."""
        return np.interp(prompts, wave_sizes(float(self.together)), self.wave_passes[0])

    @property
    def full_pass(self) -> tuple[Numbers, Numbers]:
        """A full chunk of prompts with one sequence that decodes, and what each other one adds."""
        one, all_ = self.wave_passes[1]
        return one, (all_ - one) / (max(float(self.most), 2.0) - 1.0)

    @cached_property
    def first(self) -> Numbers:
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
        return prompts * float(np.sum(self.server.prefill(1.0, *chunks(self.load, self.chunk))))

    def each_of(self, prompts: Numbers) -> Numbers:
        """Of a pass of so many prompts where nothing decodes, the part of each."""
        if self.load.new > self.chunk:
            return self.first
        return np.asarray(self.server.prefill(prompts, self.load.new, self.load.hit)) / prompts
