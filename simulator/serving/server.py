"""One replica of a server: a model on its devices under a layout, formats and a software profile;
the seconds, joules and bytes of its steps, as functions of arrays.
"""

from __future__ import annotations

import functools
from operator import is_not
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device, System
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models import catalog
from roofcast.simulator.parallel.fabric import Fabric
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.serving.cache import Cached, cached
from roofcast.simulator.serving.engine import Engine, Point, Spent
from roofcast.simulator.serving.exchange import between_stages, exchanges, links
from roofcast.simulator.serving.formats import served
from roofcast.simulator.serving.profiles import Profile, profile
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.serving.traces import traced
from roofcast.simulator.times.host import combine
from roofcast.simulator.work.generation import Forward
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.traced import Parallel


class Degrees(NamedTuple):
    """How a replica is cut. Devices: tp x dp x pp."""

    tp: int = 1
    pp: int = 1
    dp: int = 1  # ranks whose attention has sequences of its own, experts being shared
    ep: int = 1  # ranks, of tp x dp, that hold different experts


ALONE = Degrees()
# vllm-project/vllm, engine/arg_utils.py, get_batch_defaults: of devices below 70 GiB and of every
# A100, 256 sequences for 1,024 and chunks of 2,048 tokens for 8,192
LARGE = 70 * 2.0**30  # bytes
SMALLER = 0.25


class Spending(NamedTuple):
    """Steps, for every point: seconds by part, and joules of all devices (nan: unknown)."""

    seconds: dict[str, np.ndarray]
    joules: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Seconds of the whole step."""
        return np.asarray(sum(self.seconds.values()))


class Server:
    """One replica. Times in seconds, host included; arguments broadcast."""

    def __init__(
        self,
        model: str | Model,
        device: str | Device,
        degrees: Degrees = ALONE,
        *,
        weights: str | None = None,
        kv: str | None = None,
        stack: str | Profile = "vllm",
        system: System | None = None,
        shared: Shared | None = None,
    ):
        """Raises BadInput for a layout that cannot be, or formats that nobody serves.

        shared: engines that other layouts of this device have made.
        """
        self.model = catalog.resolve(model) if not isinstance(model, Model) else model
        self.device = hwdb.device(device) if isinstance(device, str) else device
        self.profile = profile(stack) if isinstance(stack, str) else stack
        self.degrees, self.shared = degrees, shared
        self.devices = degrees.tp * degrees.pp * degrees.dp
        self.formats = served(weights, self._kv(kv, weights), self.device)
        self._check()
        self._system = system
        self._passes: dict[tuple[ArrayLike, ...], tuple[tuple[object, ...], Spending]] = {}
        fabric = self.fabric_of(self.devices)
        own = self.profile.sum_s or np.inf
        to_experts = self.profile.to_experts
        self.links = links(fabric, degrees.tp, degrees.dp, degrees.pp, own, to_experts)
        self.engines = {phase: self._engine(phase) for phase in ("decode", "prefill")}
        self._decode, self._prefill = self.engines["decode"], self.engines["prefill"]
        self.cache: Cached = cached(self._decode.forward, self.formats.cache)
        self._shape()
        said = (*self.formats.assumptions, *self._decode.assumptions, *fabric.assumptions)
        self.assumptions = tuple(dict.fromkeys((*said, *self._prefill.forward.assumptions)))

    # ------------------------------------------------------------------ set-up
    def fabric_of(self, devices: int) -> Fabric:
        """The network between so many devices of this kind."""
        return fabric_of(self._system, self.device, devices)

    def _kv(self, kv: str | None, weights: str | None) -> str | None:
        """Format of the cache: as asked, else the profile's for checkpoints of few bits."""
        if kv is not None or self.profile.kv == "model":
            return kv
        narrow = (weights or "").lower() in ("fp8", "nvfp4", "fp4")
        return self.profile.kv if narrow else None

    def _check(self) -> None:
        d = self.degrees
        if min(d) < 1:
            raise BadInput(f"tp {d.tp}, pp {d.pp}, dp {d.dp}, ep {d.ep}: each is at least 1")
        if d.tp * d.dp % d.ep:
            raise BadInput(f"ep {d.ep} does not divide the {d.tp * d.dp} ranks of tp x dp")

    @property
    def parallel(self) -> Parallel:
        """The share of a rank, without its pipeline."""
        d = self.degrees
        return Parallel(tp=d.tp, ep=d.ep, etp=d.tp * d.dp // d.ep)

    def _engine(self, phase: str) -> Engine:
        made = traced(self.model, phase, self.formats.formats, self.parallel)
        sixteen = precision(self.formats.formats.precision).activations
        p = self.profile
        if self.shared is not None:
            return self.shared.engine(made, self.device, sixteen, p, self.degrees.ep)
        return Engine(
            made, self.device, sixteen, gemv=p.gemv, stream=p.stream, grouped=p.grouped, fp4=p.fp4,
            ranks=self.degrees.ep,
        )  # fmt: skip

    def _shape(self) -> None:
        """Memory, and limits of the software."""
        d, made = self.degrees, self._decode.forward
        if d.dp > 1 and not any(w.expert for w in made.weights):
            raise BadInput(f"dp {d.dp}: {self.model.name} has no experts; use replicas")
        bytes_ = sum(w.size * w.count * WIDTH[w.dtype] for w in made.weights)
        self.weight_bytes = bytes_ / d.pp
        capacity = self.device.memory.limit
        self.runtime_bytes = self._runtime(float(capacity or np.inf))
        self.capacity_bytes = float(capacity or np.inf)
        taken = self.weight_bytes + self.runtime_bytes if self.profile.of_free else 0.0
        free = max(self.capacity_bytes - taken, 0.0)
        self.memory_bytes = min(taken + self.profile.memory_use * free, self.capacity_bytes)
        ranks = d.dp if self.profile.each_rank else 1
        chunk, most = self._limits(float(capacity or np.inf))
        self.chunk_tokens = chunk * ranks
        self.most_sequences = most * ranks or None
        self.attention_groups = d.dp
        self.request_s, self.user_s = self.profile.ttft_s, self.profile.user_s
        self.evicts = self.profile.evicts
        board = self._decode.board
        self.idle_w = float(board.idle) if board is not None else None

    def _runtime(self, capacity: float) -> float:
        """Device memory beside weights and cache: what software takes whatever the model, logits of
        as many sequences as it runs at once, and buffers of collectives.
        """
        p, sampled = self.profile, self._limits(capacity)[1]
        logits = p.logit_bytes * sampled * (getattr(self.model.config, "vocab_size", 0) or 0)
        ranks = p.rank_bytes if self.degrees.tp * self.degrees.dp > 1 else 0.0
        return p.runtime_bytes + logits + ranks

    def _limits(self, capacity: float) -> tuple[int, int]:
        """Tokens of prompts in a step, and sequences at once, of each rank."""
        p = self.profile
        full = capacity >= LARGE and not self.device.id.startswith("a100")
        share = 1.0 if full or not p.scaled else SMALLER
        return int(share * p.chunk_tokens), int(share * p.most_sequences)

    def cache_bytes(self, context: ArrayLike) -> np.ndarray:
        """Bytes of the cache of one sequence, on one device that holds it. Under data-parallel
        attention a sequence is on the devices of one of `attention_groups`.
        """
        return self.cache.bytes(context) / self.degrees.pp

    # ------------------------------------------------------------------ steps
    def decode(self, sequences: ArrayLike, context: ArrayLike) -> np.ndarray:
        """Seconds of a step that makes a token for each of `sequences`, which look back on
        `context` tokens in the mean. In a pipeline, each of its micro-batches takes as long.
        """
        return self.decoding(sequences, context).total

    def prefill(self, prompts: ArrayLike, new: ArrayLike, cached: ArrayLike = 0) -> np.ndarray:
        """Seconds of a forward of `prompts` prompts of `new` tokens behind `cached` ones."""
        return self.prefilling(prompts, new, cached).total

    def mixed(
        self,
        sequences: ArrayLike,
        context: ArrayLike,
        new: ArrayLike,
        cached: ArrayLike = 0,
        prompts: ArrayLike = 1,
    ) -> np.ndarray:
        """Seconds of a decode step with `new` tokens, of all its prompts together, in it."""
        return self.mixing(sequences, context, new, cached, prompts).total

    def decoding(self, sequences: ArrayLike, context: ArrayLike) -> Spending:
        """The parts of a decode step."""
        b, looks, shape = _flat(sequences, context)
        d, over = self.degrees, self._overlapped(b)
        rows = np.maximum(b / over, 1.0)
        local = np.maximum(rows / d.dp, 1.0)
        at = Point(local, local, rows)
        engine = self._decode
        spent = _sum(engine.linear(at), self._looking(engine, local, 1.0, looks))
        return self._whole(engine.forward, at, spent, b, shape)

    def prefilling(self, prompts: ArrayLike, new: ArrayLike, cached: ArrayLike = 0) -> Spending:
        """The parts of a forward of prompts; those of one size are computed once."""
        if not all(isinstance(size, int | float) for size in (prompts, new, cached)):
            return self._prefilling(prompts, new, cached)
        key, kept = (prompts, new, cached), (self.links, self.profile, self._prefill)
        if (found := self._passes.get(key)) is None or any(map(is_not, found[0], kept)):
            found = self._passes[key] = kept, self._prefilling(*key)
        return found[1]

    def _prefilling(self, prompts: ArrayLike, new: ArrayLike, cached: ArrayLike) -> Spending:
        n, each, before, shape = _flat(prompts, new, cached)
        d, engine = self.degrees, self._prefill
        local = np.maximum(n / d.dp, 1.0)
        total = local * each
        parts = np.ceil(total / self.profile.micro_batch) if self.profile.micro_batch else 1.0
        at = Point(np.minimum(local, total / parts), total / parts, n * each / parts)
        spent = _times(engine.linear(at), parts, self.profile.products)
        looking = self._looking(engine, local, each, before)
        spent = _sum(spent, _times(looking, 1.0, self.profile.attention))
        found = self._whole(engine.forward, at, spent, n, shape, parts)
        if d.pp == 1:
            return found
        pieces = np.maximum(np.maximum(parts, n), 1.0).reshape(shape)
        if self.profile.micro_batch:  # stages run dry behind every batch of micro-batches
            batch = self.profile.chunk_tokens / self.profile.micro_batch
            pieces = np.minimum(pieces, max(batch, 1.0))
        share = (pieces + d.pp - 1.0) / (pieces * d.pp)
        return Spending({k: v * share for k, v in found.seconds.items()}, found.joules)

    def mixing(
        self,
        sequences: ArrayLike,
        context: ArrayLike,
        new: ArrayLike,
        cached: ArrayLike = 0,
        prompts: ArrayLike = 1,
    ) -> Spending:
        """The parts of a decode step with a chunk of prompts in it. In a pipeline the chunk joins
        one of the micro-batches that are under way.
        """
        b, looks, tokens, before, n, shape = _flat(sequences, context, new, cached, prompts)
        over = np.maximum(self._overlapped(b), 1.0)
        if np.any(over > 1.0):
            one = self._mixed(b / over, looks, tokens, before, n, shape)
            plain, share = self.decoding(b, looks), np.reshape(1.0 / over, shape)
            parts = dict.fromkeys((*plain.seconds, *one.seconds))
            seconds = {
                part: share * one.seconds.get(part, 0.0)
                + (1.0 - share) * np.reshape(plain.seconds.get(part, np.zeros(b.shape)), shape)
                for part in parts
            }
            joules = share * one.joules + (1.0 - share) * np.reshape(plain.joules, shape)
            return Spending(seconds, joules)
        return self._mixed(b, looks, tokens, before, n, shape)

    def _mixed(
        self,
        b: np.ndarray,
        looks: np.ndarray,
        tokens: np.ndarray,
        before: np.ndarray,
        n: np.ndarray,
        shape: tuple[int, ...],
    ) -> Spending:
        """A pass of decoding sequences and a chunk of prompts together."""
        d, engine = self.degrees, self._prefill
        rows = b + tokens
        local = np.maximum(rows / d.dp, 1.0)
        at = Point(np.maximum((b + n) / d.dp, 1.0), local, rows)
        own = np.maximum(n / d.dp, 1.0)
        spent = _sum(
            engine.linear(at),
            self._looking(self._decode, b / d.dp, 1.0, looks),
            self._looking(engine, own, np.maximum(tokens / n, 2.0), before),
        )
        return self._whole(engine.forward, at, spent, b + n, shape)

    def _looking(
        self, engine: Engine, sequences: ArrayLike, new: ArrayLike, cached: ArrayLike
    ) -> Spent:
        """Attention, and what its scores cost where it is not fused."""
        spent = engine.attention(sequences, new, cached, self.formats.cache)
        each = self.profile.score_bytes
        if not each or "attention" not in spent.seconds:
            return spent
        rates = engine.rates
        scores = engine.scores(sequences, new, cached, self.profile.micro_batch)
        more = each * scores / (rates.stream * rates.bandwidth)
        seconds = {"attention": spent.seconds["attention"] + more}
        return Spent(seconds, spent.joules)

    def _overlapped(self, sequences: np.ndarray) -> np.ndarray | float:
        """Micro-batches of decoding that are under way in a pipeline at once."""
        if self.degrees.pp == 1 or self.profile.cut == "layer":
            return 1.0
        return np.minimum(float(self.degrees.pp), sequences)

    def _whole(
        self,
        made: Forward,
        at: Point,
        spent: Spent,
        sequences: np.ndarray,
        shape: tuple[int, ...],
        parts: np.ndarray | float = 1.0,
    ) -> Spending:
        """A forward with its exchanges and its host."""
        c, p, seconds = collectives(), self.profile, dict(spent.seconds)
        if self.devices > 1:
            sent = exchanges(made, at, self.links, c) * parts
            seconds["exchanges"] = sent
            if self.degrees.pp > 1:
                passed = between_stages(made, at, self.links, c)
                seconds["exchanges"] = sent + self.degrees.pp * passed * parts
        if p.expert_s and "experts" in seconds and not self.fused_experts:
            layers = sum(k.count for k in made.launches if k.kind == "expert_matmul") / 2.0
            seconds["experts"] = seconds["experts"] + p.expert_s * layers * parts
        device = np.asarray(sum(seconds.values()))
        launches = p.dispatch_s * (made.kernels + sum(s.count for s in made.sends)) * parts
        if not p.ahead:
            host = launches + np.zeros_like(device)
        else:
            host = combine(device, launches, kernels()) - device
        seconds["host"] = host + p.step_s + p.seq_s * sequences
        joules = self._joules(spent, seconds)
        found = {part: np.reshape(t + 0.0 * device, shape) for part, t in seconds.items()}
        return Spending(found, joules.reshape(shape))

    @property
    def fused_experts(self) -> bool:
        """Whether experts run in fused kernels, as engines have them for 4-bit units."""
        formats = self.formats.formats
        stored = formats.storage is not None and formats.storage.precision is not None
        return stored or formats.precision == "nvfp4"

    def _joules(self, spent: Spent, seconds: dict[str, np.ndarray]) -> np.ndarray:
        """Energy of all devices; nan where the power of the board is unknown."""
        board, total = self._decode.board, np.asarray(sum(seconds.values()))
        if board is None:
            return np.full(total.shape, np.nan)
        waiting = board.idle * seconds["host"]
        sending = board.communicating * seconds.get("exchanges", 0.0)
        return self.devices * (sum(spent.joules.values()) + waiting + sending)


def _flat(*given: ArrayLike) -> tuple[Any, ...]:
    """Arrays as flat ones of one length, and their common shape."""
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in given))
    return (*(np.ravel(x) for x in arrays), arrays[0].shape)


def _sum(*spent: Spent) -> Spent:
    """Parts of one forward together."""
    seconds: dict[str, np.ndarray] = {}
    joules: dict[str, np.ndarray] = {}
    for one in spent:
        for part, t in one.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + t
            joules[part] = joules.get(part, 0.0) + one.joules[part]
    return Spent(seconds, joules)


def _times(spent: Spent, parts: np.ndarray | float, rate: float) -> Spent:
    """So many forwards, whose products run at a fraction of their rate."""
    slow = {"products", "experts", "attention"}
    return Spent(
        {k: v * parts / (rate if k in slow else 1.0) for k, v in spent.seconds.items()},
        {k: v * parts for k, v in spent.joules.items()},
    )


@functools.lru_cache(maxsize=64)
def server(
    model: str,
    device: str,
    degrees: Degrees = ALONE,
    weights: str | None = None,
    kv: str | None = None,
    stack: str = "vllm",
) -> Server:
    """A server by names, made once."""
    return Server(model, device, degrees, weights=weights, kv=kv, stack=stack)
