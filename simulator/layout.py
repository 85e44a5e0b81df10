"""Layouts: how a step is cut over devices, and which cuts cannot be."""

from __future__ import annotations

import math

import msgspec

from hwdb.errors import BadInput, unknown
from simulator.model import Model
from simulator.offload import HOST_BANDWIDTH
from simulator.scenario import Scenario
from simulator.schedule import refusal
from simulator.step import Step
from simulator.traced import Parallel

CP_KINDS = ("ring", "all-gather", "ulysses")
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe")
WHOLE = "{} can be data-parallel and sharded (--dp, --zero): tp, cp and pp need the layers of a transformer"
MOST = 10**9  # of any degree: ten times the accelerators there are
UNCUT = ("mamba", "mamba2")  # families whose layers tensor parallelism does not cut here


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Degrees of parallelism. Their product tp x cp x pp x dp is the number of devices; ep lies over dp (and cp)."""

    tp: int = 1
    sp: bool = False
    cp: int = 1
    cp_kind: str = "ring"
    pp: int = 1
    vpp: int = 1
    stages: tuple[int, ...] = ()  # layers of each stage, or part of one, where they were given
    dp: int = 1
    ep: int = 1
    etp: int = 1
    zero: int = 0
    shard: int = 1  # ranks that one copy of the states is sharded over, of the dp x cp that hold the same
    reshard: bool = True  # ZeRO-3: gathered weights are dropped after each pass
    schedule: str = "1f1b"
    micro_batch: int = 1
    micro_batches: int = 1  # a rank and step
    offload: tuple[str, ...] = ()  # with the host: activations, optimizer

    @property
    def devices(self) -> int:
        """How many devices the layout takes."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def parallel(self) -> Parallel:
        """What the tape needs of it."""
        return Parallel(
            tp=self.tp, sp=self.sp and self.tp > 1, cp=self.cp, cp_kind=self.cp_kind, ep=self.ep, etp=self.etp, stages=self.pp * self.vpp
        )


def spread(s: Scenario) -> bool:
    """Does the scenario ask for several devices, or for anything only several devices have?"""
    degrees = (s.tp, s.pp, s.dp, s.cp, s.ep, s.etp, s.vpp, s.devices)
    asked = (s.micro_batch, s.zero, s.system, s.shard, s.reshard, s.cp_kind, s.schedule)
    return any(d is not None and d != 1 for d in degrees) or any(a is not None for a in asked) or bool(s.stages or s.offload or s.sp)


def decide(s: Scenario, model: Model, batch: int, size: int | None) -> tuple[Layout, list[str]]:
    """The layout of a scenario: degrees left out are 1, dp takes the devices that are left; each default is said.

    Refuses what cannot be, with the nearest that can.
    """
    said: list[str] = []
    for name in ("devices", "tp", "pp", "dp", "cp", "ep", "etp", "vpp", "shard", "micro_batch"):
        value = getattr(s, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise BadInput(f"{name} {value}: a whole number of at least 1 is wanted")
        if value is not None and value > MOST:
            raise BadInput(f"{name} {value}: more than a forecast can be made for; give at most {MOST:,}")
    tp, pp, cp = s.tp or 1, s.pp or 1, s.cp or 1
    model_parallel = tp * pp * cp
    devices = s.devices or model_parallel * (s.dp or 1)
    if s.dp is None and devices % model_parallel:
        near = max(model_parallel * (devices // model_parallel), model_parallel)
        raise BadInput(f"devices {devices}: tp {tp} x cp {cp} x pp {pp} = {model_parallel} does not divide them; use {near}")
    dp = s.dp or devices // model_parallel
    if model_parallel * dp != devices:
        raise BadInput(f"devices {devices}: tp {tp} x cp {cp} x pp {pp} x dp {dp} = {model_parallel * dp}; leave --dp or --devices out")
    if s.mode == "infer" and (pp > 1 or (s.zero or 0) > 0):
        raise BadInput("inference over several devices takes tp, cp and dp; leave --pp and --zero out")
    if model.takes != "sequence" and (tp > 1 or cp > 1 or pp > 1):
        raise BadInput(WHOLE.format(model.name))
    if s.schedule is not None and pp == 1:
        raise BadInput(f"schedule {s.schedule}: there is no pipeline; use --pp 2 or more, or leave --schedule out")
    if tp > 1 and model.family in UNCUT:
        raise BadInput(f"tp {tp}: the layers of {model.name} have no heads to cut; use --dp, --zero or --pp")
    zero = s.zero if s.zero is not None else 0
    if zero not in (0, 1, 2, 3):
        raise BadInput(f"zero {zero}: a stage of 0 to 3 is wanted")
    if zero == 2 and pp > 1:
        raise BadInput(f"zero 2 with pp {pp}: gradients of all micro-batches are needed until the last; use zero 1 or 3, or pp 1")
    shard, reshard = _sharding(s, zero, dp * cp, pp, said)
    if "optimizer" in s.offload:
        said.append(f"optimizer on the host: its memory assumed to serve each device at {HOST_BANDWIDTH / 1e9:.0f} GB/s")
    micro, count = _micro_batches(s, dp, batch, said)
    vpp = s.vpp or 1
    schedule = s.schedule or ("interleaved" if vpp > 1 else "1f1b")
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES, f"known: {', '.join(SCHEDULES)}")
    if s.schedule == "interleaved" and vpp == 1:
        raise BadInput("schedule interleaved: with one run of layers a stage it is 1f1b; use --vpp 2 or more, or leave --schedule out")
    if s.sp and tp == 1:
        raise BadInput("sp: there is no tensor parallelism whose ranks could share a sequence; use --tp 2 or more, or leave --sp out")
    if vpp > 1 and pp == 1:
        raise BadInput(f"vpp {vpp}: virtual stages need a pipeline; use --pp 2 or more, or leave --vpp out")
    vpp = 2 if schedule == "zb-v" and pp > 1 else vpp
    if pp > 1 and (why := refusal(schedule, pp, vpp, count)):
        raise BadInput(why)
    kind = s.cp_kind or "ring"
    if kind not in CP_KINDS:
        raise unknown("cp_kind", kind, CP_KINDS, f"known: {', '.join(CP_KINDS)}")
    if s.cp_kind is not None and cp == 1:
        raise BadInput(f"cp_kind {kind}: there is no context parallelism; use --cp 2 or more, or leave --cp-kind out")
    pieces = cp if kind == "ulysses" else 2 * cp
    if cp > 1 and size and size % pieces:
        near = pieces * max(size // pieces, 1)
        raise BadInput(f"cp {cp}: {size} tokens cannot be dealt in {pieces} equal pieces; use a sequence of {near}")
    ep, etp = s.ep or 1, s.etp or 1
    if (dp * cp * tp) % (ep * etp):
        what = f"ep {ep} x etp {etp}" if etp > 1 else f"ep {ep}"
        least = math.lcm(tp * cp, ep * etp) * pp
        why = f"{what} does not divide tp x dp x cp ({dp * cp * tp}), the ranks of a stage, over which experts are spread"
        raise BadInput(f"{why}; use --devices {least} or a multiple of it")
    sp = s.sp if s.sp is not None else tp > 1
    if sp and tp > 1 and size and (size // cp) % tp:
        raise BadInput(f"sequence parallel: {size // cp} tokens are not divisible by tp {tp}; use --no-sp")
    return (
        Layout(tp=tp, sp=sp, cp=cp, cp_kind=kind, pp=pp, vpp=vpp, stages=_stages(s, pp, vpp), dp=dp, ep=ep, etp=etp, zero=zero, shard=shard,
               reshard=reshard, schedule=schedule, micro_batch=micro, micro_batches=count, offload=tuple(dict.fromkeys(s.offload))),
        said,
    )  # fmt: skip


def check(layout: Layout, step: Step, name: str) -> None:
    """Refuses degrees that would cut nothing of what a rank's step turned out to be."""
    if layout.tp * layout.cp * layout.pp > 1 and not any(block.count > 1 for block in step.blocks):
        raise BadInput(WHOLE.format(name))
    for degree in ("ep", "etp"):
        n = getattr(layout, degree)
        if n > 1 and not any(w.expert for w in step.weights):
            raise BadInput(f"{degree} {n}: {name} has no experts; leave --{degree} out")


def _sharding(s: Scenario, zero: int, alike: int, pp: int, said: list[str]) -> tuple[int, bool]:
    """Ranks that states are sharded over, of the `alike` that hold the same, and whether gathered weights are dropped."""
    shard = s.shard or alike
    if s.shard is not None and zero == 0:
        raise BadInput(f"shard {shard}: nothing is sharded under ZeRO 0; use --zero 1, 2 or 3")
    if alike % shard:
        near = max(d for d in range(1, min(shard, alike) + 1) if alike % d == 0)
        raise BadInput(f"shard {shard} does not divide dp x cp ({alike}), the ranks that hold the same weights; use {near}")
    if s.reshard is not None and zero != 3:
        raise BadInput(f"reshard: only ZeRO 3 gathers weights, and this is ZeRO {zero}; use --zero 3, or leave it out")
    reshard = s.reshard if s.reshard is not None else pp == 1
    if zero and alike == 1:
        said.append(f"ZeRO {zero} shards nothing here: no other device holds the same weights (dp and cp are 1)")
    if zero == 3 and pp > 1 and s.reshard is None:
        said.append("weights stay gathered over a step of the pipeline (reshard not given)")
    return shard, reshard


def _stages(s: Scenario, pp: int, vpp: int) -> tuple[int, ...]:
    """Layers of each stage, or part of one, as they were given."""
    given = tuple(s.stages)
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in given):
        raise BadInput(f"stages {','.join(map(str, given))}: whole numbers of layers are wanted, one a stage")
    if given and pp == 1:
        raise BadInput(f"stages {','.join(map(str, given))}: there is no pipeline; use --pp {max(len(given), 2)}, or leave --stages out")
    if given and len(given) != pp * vpp:
        parts = f"pp {pp} x vpp {vpp} = {pp * vpp} parts" if vpp > 1 else f"pp {pp}"
        raise BadInput(f"stages {','.join(map(str, given))}: {len(given)} numbers, but {parts}; give one a part")
    return given


def _micro_batches(s: Scenario, dp: int, batch: int, said: list[str]) -> tuple[int, int]:
    """Samples a micro-batch, and micro-batches a rank, of a global batch."""
    if batch % dp:
        raise BadInput(f"batch {batch} is global: dp {dp} does not divide it; use {max(dp, dp * round(batch / dp))}")
    each = batch // dp
    micro = s.micro_batch
    if micro is None:
        micro = 1 if (s.pp or 1) > 1 else each
        said.append(f"micro-batch of {micro} (not given)")
    if each % micro:
        near = max(d for d in range(1, micro + 1) if each % d == 0)
        raise BadInput(f"micro_batch {micro} does not divide the {each} samples of a data-parallel rank; use {near}")
    return micro, each // micro
