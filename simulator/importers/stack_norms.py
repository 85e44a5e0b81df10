"""Batch norm of a traced module as the software stack runs it, as simulator/work/ops/norm.py does.

A trace has one kernel that passes twice over its operands, as eager PyTorch launches it.
"""

from __future__ import annotations

from roofcast.simulator.importers.aten_tables import BATCH_NORM
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Kernel

# FLOPs of the statistics as a fraction of those of the whole norm: forward, backward
_STATISTICS = {"forward": 3 / 7, "backward": 5 / 11}


def as_run(tape: Tape, name: str, k: Kernel) -> list[Kernel]:
    """The kernels of a traced launch of aten op `name`: two of a batch norm under a compiler.

    The first computes the sums over the batch, and nothing fuses with it.
    """
    if name.removesuffix("_backward") not in BATCH_NORM:
        return [k]
    if k.kind != "batch_norm":  # of inference, which has no statistics to return
        return [k._replace(outputs=k.outputs[:1])]
    how = tape.implementation("batch_norm", "passes")
    if how == "passes":
        return [k]
    once = k._replace(kind="elementwise", read=k.read / 2)
    if how == "persistent":
        return [once]
    vector = _STATISTICS[k.phase] * k.vector
    sums = k._replace(vector=vector, read=k.read / 2, written=0, inputs=(), outputs=())
    return [sums, once]
