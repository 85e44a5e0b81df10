"""Layouts: how a step is cut over devices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.traced import Parallel

if TYPE_CHECKING:
    from roofcast.simulator.work.step import Step

WHOLE = (
    "{} can be data-parallel and sharded (--dp, --zero): tp, cp and pp need the layers of a"
    " transformer"
)


def divisors(n: int) -> list[int]:
    """Every divisor of n, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Degrees of parallelism. tp x cp x pp x dp is the number of devices; ep x etp divides the
    tp x cp x dp ranks of a pipeline stage.
    """

    tp: int = 1  # tensor parallel
    sp: bool = False  # sequence parallel, over the ranks of tp
    cp: int = 1  # context parallel
    cp_kind: str = "ring"  # context-parallel algorithm
    pp: int = 1  # pipeline stages
    vpp: int = 1  # virtual stages per device
    stages: tuple[int, ...] = ()  # layers of each stage, or virtual stage, where they were given
    dp: int = 1  # data parallel
    ep: int = 1  # expert parallel
    etp: int = 1  # tensor parallel of an expert
    zero: int = 0  # ZeRO stage
    shard: int = 1  # size of a ZeRO sharding group
    reshard: bool = True  # ZeRO 3: gathered weights are dropped after each pass
    schedule: str = "1f1b"
    micro_batch: int = 1  # samples
    micro_batches: int = 1  # per rank and step
    offload: tuple[str, ...] = ()  # kept in host memory: activations, optimizer, parameters

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def parallel(self) -> Parallel:
        """The degrees that shape one rank's tape."""
        return Parallel(
            tp=self.tp,
            sp=self.sp and self.tp > 1,
            cp=self.cp,
            cp_kind=self.cp_kind,
            ep=self.ep,
            etp=self.etp,
            stages=self.pp * self.vpp,
        )


def check(layout: Layout, step: Step, name: str) -> None:
    """Refuses degrees that would cut nothing of one rank's step of the model `name`."""
    if layout.tp * layout.cp * layout.pp > 1 and not any(block.count > 1 for block in step.blocks):
        raise BadInput(WHOLE.format(name))
    for degree in ("ep", "etp"):
        n = getattr(layout, degree)
        if n > 1 and not any(w.expert for w in step.weights):
            raise BadInput(f"{degree} {n}: {name} has no experts; leave --{degree} out")
