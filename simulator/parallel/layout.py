"""Layouts: how a step is cut over devices."""

from __future__ import annotations

import msgspec

from roofcast.simulator.work.traced import Parallel


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Degrees of parallelism. Their product tp x cp x pp x dp is the number of devices; ep lies
    over dp (and cp).
    """

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
    # ranks that one copy of the states is sharded over, of the dp x cp that hold the same
    shard: int = 1
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
            tp=self.tp,
            sp=self.sp and self.tp > 1,
            cp=self.cp,
            cp_kind=self.cp_kind,
            ep=self.ep,
            etp=self.etp,
            stages=self.pp * self.vpp,
        )
