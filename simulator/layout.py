"""Layouts: how a step is cut over devices, and which cuts cannot be."""

from __future__ import annotations

import msgspec

from hwdb.errors import BadInput, unknown
from simulator.models import Model
from simulator.scenario import Scenario
from simulator.schedule import refusal
from simulator.tape import Parallel

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe")


UNCUT = ("mamba", "mamba2")  # families whose layers tensor parallelism does not cut here


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Degrees of parallelism. Their product tp x cp x pp x dp is the number of devices; ep lies over dp (and cp)."""

    tp: int = 1
    sp: bool = False
    cp: int = 1
    pp: int = 1
    vpp: int = 1
    dp: int = 1
    ep: int = 1
    etp: int = 1
    zero: int = 0
    schedule: str = "1f1b"
    micro_batch: int = 1
    micro_batches: int = 1  # a rank and step

    @property
    def devices(self) -> int:
        return self.tp * self.cp * self.pp * self.dp

    @property
    def parallel(self) -> Parallel:
        """What the tape needs of it."""
        return Parallel(tp=self.tp, sp=self.sp and self.tp > 1, cp=self.cp, ep=self.ep, etp=self.etp)


def spread(s: Scenario) -> bool:
    """Does the scenario ask for several devices, or for anything only several devices have?"""
    degrees = (s.tp, s.pp, s.dp, s.cp, s.ep, s.etp, s.vpp, s.devices)
    return any(d is not None and d != 1 for d in degrees) or s.micro_batch is not None or s.zero is not None or s.system is not None


def decide(s: Scenario, model: Model, batch: int, size: int | None) -> tuple[Layout, list[str]]:
    """The layout of a scenario: degrees left out are 1, dp takes the devices that are left; each default is said.

    Refuses what cannot be, with the nearest that can.
    """
    said: list[str] = []
    for name in ("devices", "tp", "pp", "dp", "cp", "ep", "etp", "vpp", "micro_batch"):
        value = getattr(s, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise BadInput(f"{name} {value}: a whole number of at least 1 is wanted")
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
        raise BadInput(f"{model.name} can be data-parallel and sharded (--dp, --zero): tp, cp and pp need the layers of a transformer")
    if s.schedule is not None and pp == 1:
        raise BadInput(f"schedule {s.schedule}: there is no pipeline; use --pp 2 or more, or leave --schedule out")
    if tp > 1 and model.family in UNCUT:
        raise BadInput(f"tp {tp}: the layers of {model.name} have no heads to cut; use --dp, --zero or --pp")
    zero = s.zero if s.zero is not None else 0
    if zero not in (0, 1, 2, 3):
        raise BadInput(f"zero {zero}: a stage of 0 to 3 is wanted")
    if zero >= 2 and pp > 1:
        raise BadInput(f"zero {zero} with pp {pp}: gradients of all micro-batches are needed until the last; use zero 1, or pp 1")
    micro, count = _micro_batches(s, dp, batch, said)
    vpp = s.vpp or 1
    schedule = s.schedule or ("interleaved" if vpp > 1 else "1f1b")
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES, f"known: {', '.join(SCHEDULES)}")
    if vpp > 1 and pp == 1:
        raise BadInput(f"vpp {vpp}: virtual stages need a pipeline; use --pp 2 or more, or leave --vpp out")
    vpp = 2 if schedule == "zb-v" and pp > 1 else vpp
    if pp > 1 and (why := refusal(schedule, pp, vpp, count)):
        raise BadInput(why)
    if cp > 1 and size and size % (2 * cp):
        raise BadInput(
            f"cp {cp}: {size} tokens cannot be dealt in {2 * cp} equal pieces; use a sequence of {2 * cp * max(size // (2 * cp), 1)}"
        )
    ep = s.ep or 1
    if (dp * cp * tp) % ep:
        raise BadInput(f"ep {ep} does not divide tp x dp x cp ({tp * dp * cp}): experts are spread over the ranks of a stage")
    if (s.etp or 1) != 1:
        raise BadInput(f"etp {s.etp}: experts are kept whole here; use etp 1 and a larger ep")
    sp = s.sp if s.sp is not None else tp > 1
    if sp and tp > 1 and size and (size // cp) % tp:
        raise BadInput(f"sequence parallel: {size // cp} tokens are not divisible by tp {tp}; use --no-sp")
    return (
        Layout(tp=tp, sp=sp, cp=cp, pp=pp, vpp=vpp, dp=dp, ep=ep, zero=zero,
               schedule=schedule, micro_batch=micro, micro_batches=count),
        said,
    )  # fmt: skip


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
