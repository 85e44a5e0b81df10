"""The loss of distillation: a student's logits against those of a teacher [hinton2015]."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def against_teacher(t: Tape, logits: Value, taught: Value) -> None:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), as PyTorch composes it.

        student   division by T, log-softmax (kept)
        teacher   division by T, softmax (kept); no gradient
        loss      one pointwise kernel over both, and its sum; backward through all of the student's

    Raises BadInput where the two have not the same classes.
    """
    if taught.size != logits.size or taught.shape[-1] != logits.shape[-1]:
        raise BadInput(
            f"teacher: its logits are {_sizes(taught)}, the student's {_sizes(logits)}; both must"
            " have the same vocabulary, or classes"
        )
    n = logits.size
    cooled = pointwise.scale(t, logits)
    log_p = t.new(logits.shape, cooled.dtype, logits.grad)
    t.emit("softmax", (cooled,), (log_p,), vector=4 * n, special=n)
    target = t.new(taught.shape, taught.dtype)
    t.emit("elementwise", (taught,), (target,), vector=n)
    p = t.new(taught.shape, taught.dtype)
    t.emit("softmax", (target,), (p,), vector=4 * n, special=n)
    each, out = t.new(logits.shape, log_p.dtype, logits.grad), t.new((), log_p.dtype, logits.grad)
    t.emit("elementwise", (log_p, p), (each,), vector=3 * n, special=n)
    t.emit("reduce", (each,), (out,), vector=n)
    if not logits.grad:
        return
    t.save(log_p, p)
    bytes_, dtype = log_p.bytes, log_p.dtype
    t.backward("elementwise", vector=n, read=p.bytes, written=bytes_, product=dtype)
    t.backward("softmax", vector=4 * n, special=n, read=2 * bytes_, written=bytes_, product=dtype)


def _sizes(v: Value) -> str:
    return " x ".join(f"{n:,}" for n in v.shape)
