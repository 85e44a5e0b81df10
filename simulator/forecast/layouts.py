"""From a scenario to a layout: defaults for what was left out, each listed as an assumption, and
refusals of invalid layouts, with the nearest valid one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from roofcast.hwdb.errors import BadInput, number_of, unknown
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choices import CP_KINDS, SCHEDULES, ZERO_STAGES, with_optimizer
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import WHOLE, Layout, divisors
from roofcast.simulator.parallel.pipeline.schedule import refusal
from roofcast.simulator.times.offload import HOST_BANDWIDTH
from roofcast.simulator.work.model import Model

DEGREES = ("devices", "tp", "pp", "dp", "cp", "ep", "etp", "vpp", "shard", "micro_batch")
DEGREES_OF_SEVERAL = ("tp", "pp", "dp", "cp", "ep", "etp", "vpp", "devices")
OF_SEVERAL = (
    *DEGREES_OF_SEVERAL,
    *("micro_batch", "zero", "system", "shard", "reshard", "cp_kind", "schedule"),
    *("stages", "offload", "sp"),
)
MOST = 10**9  # of any degree: ten times the accelerators there are
SHARED = ("albert", "zamba", "zamba2")  # families whose layers are one layer run many times
# families whose layers tensor parallelism cannot cut here
UNCUT = ("mamba", "falcon_mamba", "jamba", "rwkv", "zamba")


def is_parallel(s: Scenario) -> bool:
    """Does the scenario ask for several devices, or for anything only several devices have?"""
    return any(asks_for_several(name, getattr(s, name)) for name in OF_SEVERAL)


def asks_for_several(option: str, value: Any) -> bool:
    """Whether this value of an option of OF_SEVERAL asks for several devices."""
    if option in DEGREES_OF_SEVERAL:
        return value is not None and value != 1
    return bool(value) if option in ("sp", "stages", "offload") else value is not None


class Rule(NamedTuple):
    """A step of deciding a layout, which raises BadInput for what cannot be.

    `decide` takes the options (a Scenario, or an object with the options that it reads), what was
    decided before, the model, and the list of assumptions, to which it adds.
    """

    reads: tuple[str, ...]  # options
    knows: tuple[str, ...]  # what earlier rules have decided, and batch and size
    gives: tuple[str, ...]  # what it decides: fields of a Layout
    decide: Callable[[Any, Any, Model, list[str]], tuple]


def layout_of(s: Scenario, model: Model, batch: int, size: int | None) -> tuple[Layout, list[str]]:
    """The layout of a scenario, and the assumptions it rests on.

    batch: global batch [samples]; size: tokens of a sample. Degrees left out are 1; dp takes the
    devices that are left. Raises BadInput for a layout that cannot be.
    """
    assumptions: list[str] = []
    decided = SimpleNamespace(batch=batch, size=size)
    layout: dict[str, Any] = {}
    for rule in RULES:
        values = rule.decide(s, decided, model, assumptions)
        layout |= dict(zip(rule.gives, values, strict=True))
        vars(decided).update(layout)
    return Layout(**layout), assumptions


def _check_degree(name: str, value: Any) -> tuple[()]:
    if value is None:
        return ()
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{name} {value}: a whole number of at least 1 is wanted")
    if value > MOST:
        raise BadInput(f"{name} {value}: too large for a forecast; give at most {MOST:,}")
    return ()


def _degrees(s: Scenario) -> tuple[int, int, int, int]:
    """tp, cp, pp and dp, whose product is the number of devices."""
    tp, pp, cp = s.tp or 1, s.pp or 1, s.cp or 1
    model_parallel = tp * pp * cp
    devices = s.devices or model_parallel * (s.dp or 1)
    if s.dp is None and devices % model_parallel:
        near = max(model_parallel * (devices // model_parallel), model_parallel)
        raise BadInput(
            f"devices {devices}: not a multiple of tp {tp} x cp {cp} x pp {pp} = {model_parallel};"
            f" use {near} or {near + model_parallel}"
        )
    dp = s.dp or devices // model_parallel
    if model_parallel * dp != devices:
        raise BadInput(
            f"devices {devices}: tp {tp} x cp {cp} x pp {pp} x dp {dp} = {model_parallel * dp};"
            " leave --dp or --devices out"
        )
    return tp, cp, pp, dp


def _model_can_be_cut(s: Scenario, d: Any, model: Model, assumptions: list[str]) -> tuple[()]:
    if s.mode == "infer" and (d.pp > 1 or (s.zero or 0) > 0):
        raise BadInput(
            "inference over several devices takes tp, cp and dp; leave --pp and --zero out"
        )
    if model.takes != "sequence" and (d.tp > 1 or d.cp > 1 or d.pp > 1):
        raise BadInput(WHOLE.format(model.name))
    if s.schedule is not None and d.pp == 1:
        raise BadInput(
            f"schedule {s.schedule}: there is no pipeline; use --pp 2 or more, or leave"
            " --schedule out"
        )
    if d.pp > 1 and model.family in SHARED:
        raise BadInput(
            f"pp {d.pp}: the layers of {model.name} share their weights, and each stage would hold"
            " them all; use --dp, --tp or --zero"
        )
    if d.tp > 1 and model.family in UNCUT:
        raise BadInput(
            f"tp {d.tp}: the layers of {model.name} have no heads to cut; use --dp, --zero or --pp"
        )
    later = getattr(model.config, "num_kv_shared_layers", 0) if d.pp > 1 else 0
    if later:
        assumptions.append(
            f"num_kv_shared_layers {later}: keys and values of earlier layers, which these read,"
            " are not sent between stages"
        )
    return ()


def _zero_stage(s: Scenario, pp: int) -> int:
    zero = s.zero if s.zero is not None else 0
    if zero not in ZERO_STAGES:
        raise BadInput(f"zero {zero}: a stage of 0 to 3 is wanted")
    if zero == 2 and pp > 1:
        raise BadInput(
            f"zero 2 with pp {pp}: gradients of all micro-batches are needed until the last; use"
            " zero 1 or 3, or pp 1"
        )
    return zero


def _sharding(
    s: Scenario, zero: int, replicas: int, pp: int, assumptions: list[str]
) -> tuple[int, bool]:
    """Size of a ZeRO sharding group, of the `replicas` that hold the same weights, and whether
    gathered weights are dropped after each pass.
    """
    shard = s.shard or replicas
    if s.shard is not None and zero == 0:
        raise BadInput(f"shard {shard}: nothing is sharded under ZeRO 0; use --zero 1, 2 or 3")
    if replicas % shard:
        near = max(d for d in divisors(replicas) if d <= shard)
        raise BadInput(
            f"shard {shard}: dp x cp = {replicas}, the ranks that hold the same weights, is not"
            f" divisible by it; use {near}"
        )
    if s.reshard is not None and zero != 3:
        raise BadInput(
            f"reshard: only ZeRO 3 gathers weights, and this is ZeRO {zero}; use --zero 3, or leave"
            " it out"
        )
    if zero and replicas == 1:
        assumptions.append(
            f"ZeRO {zero} shards nothing here: no other device holds the same weights (dp and cp"
            " are 1)"
        )
    if zero == 3 and pp > 1 and s.reshard is None:
        assumptions.append("weights stay gathered during a pipeline's step (reshard not given)")
    return shard, s.reshard if s.reshard is not None else pp == 1


def _offload(s: Scenario, d: Any, assumptions: list[str]) -> tuple[str, ...]:
    found = with_optimizer(s.offload)
    if "parameters" in s.offload:
        if d.dp * d.cp > 1 and d.zero != 3:
            raise BadInput(
                "offload parameters: each of the devices that hold the same weights offloads its"
                f" shard, and ZeRO {d.zero} shards none; use --zero 3"
            )
        if d.pp > 1:
            raise BadInput(
                "offload parameters: over pipeline stages it is not modelled; use --pp 1 with"
                " --zero 3 or --tp"
            )
        assumptions.append(
            "parameters offloaded: weights come to the device layer by layer, one ahead, before the"
            " forward and again before the backward; gradients leave as they are computed, and the"
            " host updates"
        )
    if "optimizer" in found:
        assumptions.append(
            "optimizer on the host: its memory assumed to serve each device at"
            f" {HOST_BANDWIDTH / 1e9:.0f} GB/s"
        )
    return found


def _micro_batches(s: Scenario, dp: int, batch: int, assumptions: list[str]) -> tuple[int, int]:
    """Samples per micro-batch, and micro-batches per rank and step, of a global batch."""
    if batch % dp:
        raise BadInput(
            f"batch {batch}: the global batch must be divisible by dp {dp}; use"
            f" {max(dp, dp * round(batch / dp))}"
        )
    each = batch // dp
    micro = s.micro_batch
    if micro is None:
        micro = 1 if (s.pp or 1) > 1 else each
        assumptions.append(default_micro_batch(micro))
    if each % micro:
        near = max(d for d in divisors(each) if d <= micro)
        raise BadInput(
            f"micro_batch {micro}: a data-parallel rank has {each} samples, which is not divisible"
            f" by it; use {near}"
        )
    return micro, each // micro


def default_micro_batch(micro: int, why: str = "") -> str:
    """The assumption of a micro-batch that was not given."""
    text = f"micro-batch of {micro} {'sample' if micro == 1 else 'samples'} (not given)"
    return f"{text}: {why}" if why else text


def _schedule(s: Scenario, pp: int, micro_batches: int) -> tuple[str, int]:
    """Schedule of the pipeline, and virtual stages per device."""
    vpp = s.vpp or 1
    schedule = s.schedule or ("interleaved" if vpp > 1 else "1f1b")
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES, f"known: {', '.join(SCHEDULES)}")
    if s.schedule == "interleaved" and vpp == 1:
        raise BadInput(
            "schedule interleaved: with one virtual stage per device it is 1f1b; use --vpp 2 or"
            " more, or leave --schedule out"
        )
    if vpp > 1 and pp == 1:
        raise BadInput(
            f"vpp {vpp}: virtual stages need a pipeline; use --pp 2 or more, or leave --vpp out"
        )
    vpp = 2 if schedule == "zb-v" and pp > 1 else vpp
    if pp > 1 and (why := refusal(schedule, pp, vpp, micro_batches)):
        raise BadInput(why)
    return schedule, vpp


def _stages(s: Scenario, pp: int, vpp: int) -> tuple[int, ...]:
    """Layers of each stage, or virtual stage, as they were given."""
    given = tuple(s.stages)
    if not given:
        return given
    text = f"stages {','.join(map(str, given))}"
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in given):
        raise BadInput(f"{text}: whole numbers of layers are wanted, one per stage")
    if pp == 1:
        raise BadInput(
            f"{text}: there is no pipeline; use --pp {max(len(given), 2)}, or leave --stages out"
        )
    if len(given) != pp * vpp:
        parts = f"pp {pp} x vpp {vpp} = {pp * vpp} virtual stages" if vpp > 1 else f"pp {pp}"
        raise BadInput(
            f"{text}: {number_of(len(given), 'number')}, but {parts}; give one per stage"
        )
    return given


def _context(s: Scenario, cp: int, size: int | None) -> str:
    """Algorithm of context parallelism."""
    kind = s.cp_kind or "ring"
    if kind not in CP_KINDS:
        raise unknown("cp_kind", kind, CP_KINDS, f"known: {', '.join(CP_KINDS)}")
    if s.cp_kind is not None and cp == 1:
        raise BadInput(
            f"cp_kind {kind}: there is no context parallelism; use --cp 2 or more, or leave"
            " --cp-kind out"
        )
    pieces = cp if kind == "ulysses" else 2 * cp
    if cp > 1 and size and size % pieces:
        raise BadInput(
            f"cp {cp}: {size} tokens cannot be cut into {pieces} equal pieces; use a sequence of"
            f" {pieces * max(size // pieces, 1)}"
        )
    return kind


def _experts(s: Scenario, d: Any, model: Model, assumptions: list[str]) -> tuple[int, int]:
    """Expert-parallel degree, and tensor-parallel degree of an expert: that of the other layers
    where it is not given and can be, as in Megatron and vLLM.
    """
    ranks, ep = d.dp * d.cp * d.tp, s.ep or 1
    etp, width = s.etp or 1, getattr(model.config, "expert_width", None)
    if s.etp is None and d.tp > 1 and width:
        if ranks % (ep * d.tp) == 0 and width % d.tp == 0:
            etp = d.tp
        cut = f"each expert is cut over {etp} ranks" if etp > 1 else "experts stay whole"
        assumptions.append(f"etp {etp} (not given): {cut}; --etp sets another")
    if ranks % (ep * etp):
        what = f"ep {ep} x etp {etp}" if etp > 1 else f"ep {ep}"
        least = math.lcm(d.tp * d.cp, ep * etp) * d.pp
        raise BadInput(
            f"{what}: the {ranks} ranks of a stage (tp x dp x cp), over which experts are spread,"
            f" are not divisible by it; use --devices {least} or a multiple of it"
        )
    return ep, etp


def _sequence_parallel(s: Scenario, d: Any, size: int | None) -> bool:
    if s.sp and d.tp == 1:
        raise BadInput(
            "sp: sequence parallelism shares the ranks of tensor parallelism, of which there is"
            " none; use --tp 2 or more, or leave --sp out"
        )
    sp = s.sp if s.sp is not None else d.tp > 1
    if sp and d.tp > 1 and size and (size // d.cp) % d.tp:
        whole = d.cp * d.tp
        raise BadInput(
            f"sequence parallel: {size // d.cp} tokens are not divisible by tp {d.tp}; use --seq"
            f" {-(-size // whole) * whole}, or without experts --no-sp"
        )
    return sp


def _of_degree(name: str) -> Rule:
    """The rule of what numbers a degree may be."""
    return Rule((name,), (), (), lambda s, d, model, said: _check_degree(name, getattr(s, name)))


# a search asks each rule once for every combination of what the rule reads and knows
RULES = (
    *map(_of_degree, DEGREES),
    Rule(
        ("devices", "tp", "pp", "cp", "dp"),
        (),
        ("tp", "cp", "pp", "dp"),
        lambda s, d, model, said: _degrees(s),
    ),
    Rule(("zero", "schedule"), ("tp", "cp", "pp"), (), _model_can_be_cut),
    Rule(("zero",), ("pp",), ("zero",), lambda s, d, model, said: (_zero_stage(s, d.pp),)),
    Rule(
        ("shard", "reshard"),
        ("zero", "dp", "cp", "pp"),
        ("shard", "reshard"),
        lambda s, d, model, said: _sharding(s, d.zero, d.dp * d.cp, d.pp, said),
    ),
    Rule(
        ("offload",),
        ("zero", "dp", "cp", "pp"),
        ("offload",),
        lambda s, d, model, said: (_offload(s, d, said),),
    ),
    Rule(
        ("micro_batch", "pp"),
        ("dp", "batch"),
        ("micro_batch", "micro_batches"),
        lambda s, d, model, said: _micro_batches(s, d.dp, d.batch, said),
    ),
    Rule(
        ("schedule", "vpp"),
        ("pp", "micro_batches"),
        ("schedule", "vpp"),
        lambda s, d, model, said: _schedule(s, d.pp, d.micro_batches),
    ),
    Rule(
        ("cp_kind",),
        ("cp", "size"),
        ("cp_kind",),
        lambda s, d, model, said: (_context(s, d.cp, d.size),),
    ),
    Rule(
        ("ep", "etp"),
        ("tp", "cp", "pp", "dp"),
        ("ep", "etp"),
        lambda s, d, model, said: _experts(s, d, model, said),
    ),
    Rule(
        ("sp",),
        ("tp", "cp", "size"),
        ("sp",),
        lambda s, d, model, said: (_sequence_parallel(s, d, d.size),),
    ),
    Rule(
        ("stages",),
        ("pp", "vpp"),
        ("stages",),
        lambda s, d, model, said: (_stages(s, d.pp, d.vpp),),
    ),
)
