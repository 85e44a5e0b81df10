"""One replica of a server: a model on its devices under a layout, formats and a software profile;
the seconds, joules and bytes of its steps, as functions of arrays.
"""

from __future__ import annotations

import functools
import re
from operator import is_not

import numpy as np
from numpy.typing import ArrayLike

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device, System
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models import catalog
from roofcast.simulator.models.released import in_blocks
from roofcast.simulator.parallel.fabric import Fabric
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.serving.cache import Cached, cached
from roofcast.simulator.serving.engine import Engine
from roofcast.simulator.serving.exchange import links
from roofcast.simulator.serving.formats import served
from roofcast.simulator.serving.likeness import likeness
from roofcast.simulator.serving.padded import padded
from roofcast.simulator.serving.passes import PASSES, Pass, Spending, timed
from roofcast.simulator.serving.profiles import Profile, profile
from roofcast.simulator.serving.programs import Software
from roofcast.simulator.serving.released import names_of
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.serving.traces import traced
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
        if self.profile.pads and degrees.tp > 1:
            self.model = padded(self.model, degrees.tp * int(self.device.cores or 1))
        self.likeness = likeness(self.profile.name, self.device)
        self.devices = degrees.tp * degrees.pp * degrees.dp
        cache = self._kv(kv, names_of(weights, self.model, self.profile.name))
        self.formats = served(weights, cache, self.device, self.model, self.profile.name)
        self._check()
        self._system = system
        self._passes: dict[tuple[ArrayLike, ...], tuple[tuple[object, ...], Spending]] = {}
        fabric = self.fabric_of(self.devices)
        own = self.profile.sum_s if self.device.kind == "gpu" else 0.0
        to_experts = self.profile.to_experts
        self.links = links(fabric, degrees.tp, degrees.dp, degrees.pp, own or np.inf, to_experts)
        self.engines = {phase: self._engine(phase) for phase in ("decode", "prefill")}
        decode, prefill = self.engines["decode"], self.engines["prefill"]
        self.cache: Cached = cached(decode.forward, self.formats.cache)
        self._shape()
        said = (*self.formats.assumptions, *decode.assumptions, *fabric.assumptions)
        every = dict.fromkeys((*said, *prefill.forward.assumptions))
        one_stage = self.devices > 1 and degrees.pp == 1
        counted = r"([\d,]+ of [\d,]+ weights) in"  # a rank's, where there are several
        self.assumptions = tuple(
            re.sub(counted, r"\1 of a device in", line) if one_stage else line for line in every
        )

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
        p, formats = self.profile, self.formats.formats._replace(absorbed=self.profile.absorbed)
        made = traced(self.model, phase, formats, self.parallel)
        sixteen = precision(formats.precision).activations
        narrow = formats.storage is not None or sixteen != "bf16"
        vector = "" if p.vector == "bf16" and narrow else p.vector
        stored = formats.storage is not None
        int8 = p.int8 if stored and phase == "prefill" else 0.0
        few = not p.aligned_below or self.parallel.etp < p.aligned_below
        blocks = few and formats.precision == "fp8" and in_blocks(self.model)
        how = Software(
            gemv=p.gemv,
            weights=p.gemv_weights,
            stream=p.stream,
            grouped=p.grouped,
            fp4=p.fp4,
            half=p.half and phase == "prefill" and not int8,
            int8=int8,
            vector=vector,
            dots=p.dots if stored else 0.0,
            start=p.start_s,
            converts=p.converts if self.formats.widened else 0.0,
            gathers=self.degrees.dp > 1 and not p.to_experts,
            aligned=p.aligned if blocks else 0,
        )
        if self.shared is not None:
            return self.shared.engine(made, self.device, sixteen, how, self.degrees.ep)
        return Engine(made, self.device, sixteen, how=how, ranks=self.degrees.ep)

    def _shape(self) -> None:
        """Memory, and limits of the software."""
        d, made = self.degrees, self.engines["decode"].forward
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
        board = self.engines["decode"].board
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

    @property
    def fused_experts(self) -> bool:
        """Whether experts run in fused kernels, as engines have them for 4-bit units."""
        formats = self.formats.formats
        stored = formats.storage is not None and formats.storage.precision is not None
        return stored or formats.precision == "nvfp4"

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
        return timed([self.asked("decode", sequences, context)])[0]

    def prefilling(self, prompts: ArrayLike, new: ArrayLike, cached: ArrayLike = 0) -> Spending:
        """The parts of a forward of prompts; those of one size are computed once."""
        if not all(isinstance(size, int | float) for size in (prompts, new, cached)):
            return timed([self.asked("prefill", prompts, new, cached)])[0]
        key, kept = (prompts, new, cached), (self.links, self.profile, self.engines["prefill"])
        if (found := self._passes.get(key)) is None or any(map(is_not, found[0], kept)):
            found = self._passes[key] = kept, timed([self.asked("prefill", *key)])[0]
        return found[1]

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
        return timed([self.asked("mixed", sequences, context, new, cached, prompts)])[0]

    def asked(self, step: str, *sizes: ArrayLike) -> Pass:
        """A step whose kernels are still to be timed; step: decode | prefill | mixed, sizes: the
        arguments of the method of that name.
        """
        return PASSES[step](self, *sizes)


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
