"""Losses."""

from __future__ import annotations

from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value


def cross_entropy(t: Tape, logits: Value, labels: Value, *, upcast: bool = False) -> Value:
    """- log softmax(logits)[label], averaged over rows. Keeps the log-probabilities, the labels and
    one weight.

    `upcast` as transformers does: logits.float() first. Without it, autocast computes the
    log-probabilities in the low format and copies them to fp32 for the loss. A stack may say how:
    "chunked", in one kernel; "sum", no loss at all.
    """
    how = t.implementation("loss", "composed")
    if how == "sum":
        return _sum(t, logits)
    if how == "chunked" and logits.split is None:
        return _chunked(t, logits, labels)
    x = t.cast(logits, "fp32") if upcast else logits
    if (
        logits.split == "features"
    ):  # each rank has a share of the vocabulary: maximum, sum and the label's own are exchanged
        t.send("all_reduce", "tp", 3 * 4 * x.size // x.shape[-1])
    log_p = t.new(x.shape, x.dtype, x.grad)
    t.emit("softmax", (x,), (log_p,), vector=4 * x.size, special=x.size)
    if x.grad:
        t.save(log_p)
        t.backward(
            "softmax",
            vector=4 * x.size,
            special=x.size,
            read=2 * x.bytes,
            written=x.bytes,
            product=x.dtype,
        )
    picked = t.full(log_p)
    rows = x.size // x.shape[-1]
    out = t.new((), picked.dtype, x.grad)
    t.emit("gather", (picked, labels), (out,), vector=rows, read=rows * 32 + labels.bytes)
    if x.grad:
        t.save(picked, labels)
        t.keep(WIDTH[picked.dtype])
        t.backward(
            "scatter", vector=x.size, read=labels.bytes, written=picked.bytes, product=picked.dtype
        )
    return out


def _chunked(t: Tape, logits: Value, labels: Value) -> Value:
    """The same, a few rows at a time in one compiled kernel: fp32 stays on the chip, and logits
    alone are kept.
    """
    out = t.new((), "fp32", logits.grad)
    t.emit("softmax", (logits, labels), (out,), vector=4 * logits.size, special=logits.size)
    if logits.grad:
        t.save(logits, labels)
        n, read = logits.size, logits.bytes + labels.bytes
        t.backward(
            "softmax",
            vector=4 * n,
            special=n,
            read=read,
            written=logits.bytes,
            product=logits.dtype,
        )
    return out


def _sum(t: Tape, logits: Value) -> Value:
    """The sum of all logits, as benchmarks without labels train to: the script holds the logits,
    and their gradient is a tensor of ones.
    """
    out = t.new((), logits.dtype, logits.grad)
    t.emit("reduce", (logits,), (out,), vector=logits.size)
    if logits.grad:
        t.save(logits)
        t.backward("elementwise", read=0, written=logits.bytes)
    return out


def smoothed(t: Tape, logits: Value, labels: Value) -> Value:
    """Cross-entropy against labels mixed with all classes alike [szegedy2015], log-probabilities in
    fp32. Keeps them and the labels.
    """
    log_p = t.new(logits.shape, "fp32", logits.grad)
    rows, n = logits.size // logits.shape[-1], logits.size
    t.emit("softmax", (logits,), (log_p,), vector=4 * n, special=n)
    out = t.new((), "fp32", logits.grad)
    t.emit("gather", (labels,), (), read=rows * 32 + labels.bytes)
    t.emit("reduce", (log_p,), (out,), vector=n)
    if logits.grad:
        t.save(log_p, labels)
        t.backward("scatter", read=labels.bytes, written=log_p.bytes)
        t.backward("elementwise", vector=n, read=0, written=log_p.bytes)  # of the mean over classes
        t.backward("accumulate", vector=n, read=2 * log_p.bytes, written=log_p.bytes)
        t.backward("softmax", vector=4 * n, special=n, read=2 * log_p.bytes, written=logits.bytes)
    return out


def shifted_labels(t: Tape, batch: int, sequence: int) -> Value:
    """Labels moved one to the left for a causal language model: padded by one, then sliced (copied
    unless one row).
    """
    padded = sequence + 1
    shifted = t.new((batch, padded) if batch == 1 else (batch, sequence), "int64")
    t.emit("copy", (), (shifted,), read=8 * batch * sequence)
    return shifted


def pairwise(t: Tape, kind: str, x: Value, target: Value) -> Value:
    """mse, l1, smooth_l1, bce, bce_with_logits: elementwise on prediction and target, then
    averaged. Keeps both.
    """
    x = t.full(x)
    out = t.new((), x.dtype, x.grad)
    special = {"bce": 2, "bce_with_logits": 3}.get(kind, 0)
    t.emit("reduce", (x, target), (out,), vector=3 * x.size, special=special * x.size)
    if x.grad:
        t.save(x, target)
        t.backward(
            "elementwise",
            vector=4 * x.size,
            special=special * x.size,
            read=x.bytes + target.bytes,
            written=x.bytes,
            product=x.dtype,
        )
    return out
