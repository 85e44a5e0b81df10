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

    Of a teacher whose top logits alone are there, the student's are gathered at their places.
    Raises BadInput where the two have not the same classes.
    """
    part = t.taught_classes is not None
    if part and t.taught_classes != logits.shape[-1]:
        raise BadInput(
            f"teacher: it has {t.taught_classes:,} classes, the student {logits.shape[-1]:,}; both"
            " must have the same vocabulary, or classes"
        )
    if not part and (taught.size != logits.size or taught.shape[-1] != logits.shape[-1]):
        raise BadInput(
            f"teacher: its logits are {_sizes(taught)}, the student's {_sizes(logits)}; both must"
            " have the same vocabulary, or classes"
        )
    n, k = logits.size, taught.size
    cooled = pointwise.scale(t, logits)
    log_p = t.new(logits.shape, cooled.dtype, logits.grad)
    t.emit("softmax", (cooled,), (log_p,), vector=4 * n, special=n)
    some = log_p
    if part:
        some = t.new(taught.shape, log_p.dtype, logits.grad)
        t.emit("gather", (log_p,), (some,), read=some.bytes)
    target = t.new(taught.shape, taught.dtype)
    t.emit("elementwise", (taught,), (target,), vector=k)
    p = t.new(taught.shape, taught.dtype)
    t.emit("softmax", (target,), (p,), vector=4 * k, special=k)
    each, out = t.new(taught.shape, log_p.dtype, logits.grad), t.new((), log_p.dtype, logits.grad)
    t.emit("elementwise", (some, p), (each,), vector=3 * k, special=k)
    t.emit("reduce", (each,), (out,), vector=k)
    if not logits.grad:
        return
    t.save(log_p, p)
    bytes_, dtype = log_p.bytes, log_p.dtype
    t.backward("elementwise", vector=k, read=p.bytes, written=some.bytes, product=dtype)
    if part:  # into zeros
        t.backward("scatter", vector=k, read=some.bytes, written=bytes_, product=dtype)
    t.backward("softmax", vector=4 * n, special=n, read=2 * bytes_, written=bytes_, product=dtype)


def _sizes(v: Value) -> str:
    return " x ".join(f"{n:,}" for n in v.shape)
