"""Context parallelism in a ring: what stands around the attention of each step."""

from __future__ import annotations

from roofcast.simulator.work.ops.embedding import INDEX
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value

BESIDE = (0.0, 0.0)  # bytes of what is launched and costs the device no time of its own


def joined(t: Tape, q: Value, k: Value, v: Value, out: Value, ranks: int) -> None:
    """The kernels of Transformer Engine that split and join the steps of a causal ring, averaged
    over ranks; attention itself apart.

        forward     keys and values into one buffer, zeros for the output, the statistics widened
                    and narrowed; each later step, on a second stream beside the attention of the
                    one before, a half of them or of the queries copied, half the lengths, the
                    statistics joined, attention; each step's output added, scaled
        backward    a copy of keys and values, half of the statistics; each later step the same
                    halves, of three tensors where queries are halved; each step's gradients of
                    queries added, those of keys and values put together and added

    With `ranks` D these are 5 D + 1 launches forward and 7 D - 1 backward, where attention is one.
    Source: github NVIDIA/TransformerEngine, transformer_engine/pytorch/attention.py of 2024,
    AttnFuncWithCP.
    """
    batch, heads, length, _ = q.shape
    rows = batch * heads * length
    kv, half = k.bytes + v.bytes, (k.bytes + v.bytes + q.bytes) / 4.0
    later, narrow, wide = ranks - 1, WIDTH["fp32"] * rows, WIDTH["fp64"] * rows
    forward = [(kv, kv), (0.0, out.bytes), (narrow, narrow), (narrow, wide), (wide, narrow)]
    forward += later * 4 * [BESIDE]
    forward += ranks * [(2.0 * out.bytes, out.bytes)]
    for read, written in forward:
        t.emit("eager", (), (), vector=(read + written) / 4.0, read=read, written=written)
    if not out.grad:
        return
    backward = [(kv, kv), (narrow / 2.0, narrow / 2.0)]
    backward += later * [(half, half), (out.bytes / 2.0, out.bytes / 2.0), (INDEX, INDEX)]
    backward += later * [BESIDE] + ranks * [(kv, kv), (2.0 * kv, kv)]
    backward += (ranks + 1) * [(2.0 * q.bytes, q.bytes)]
    for read, written in backward:
        t.backward(
            "eager", vector=(read + written) / 4.0, read=read, written=written, product=q.dtype
        )
