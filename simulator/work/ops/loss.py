"""Losses. All results are scalars."""

from __future__ import annotations

from roofcast.simulator.work.ops import distill
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value

CHUNKS = 8  # of the logits, where the loss is computed in chunks
ROWWISE = (16, 9)  # kernels of Megatron-LM's loss on a number per row, forward and backward


def cross_entropy(t: Tape, logits: Value, labels: Value, *, upcast: bool = False) -> Value:
    """- log softmax(logits)[label] over the last dimension, averaged over rows.

    Keeps the log-probabilities, the labels and one weight. With `upcast`, logits are cast to fp32
    first, as in transformers; without it, autocast computes the log-probabilities in the low format
    and copies them to fp32 for the loss. Implementations of a software stack: "composed", the
    above; "chunked", one kernel that keeps the logits; "compiled", the same for all rows at once,
    as inductor makes it; "pieces", eager kernels a few rows at a time; "shifted", as transformers
    before 4.46, on a copy without the last token's logits; "held", the same, and a variable of the
    script holds that copy in the backward, as in torchtune until July 2024; "fused", flash-attn's
    under llm-foundry; "sharded", nanotron's, on fp32 copies; "parallel", Megatron-LM's, in place on
    one fp32 copy; "sum", the sum of the logits instead of a loss.
    """
    if t.taught is not None:
        taught, t.taught = t.taught, None
        distill.against_teacher(t, logits, taught)
    how = t.implementation("loss", "composed")
    if how == "sum":
        return _sum(t, logits)
    if how in ("chunked", "compiled") and logits.split is None:
        return _chunked(t, logits, labels, CHUNKS if how == "chunked" else 1)
    if how == "pieces" and logits.split is None:
        return _pieces(t, logits, labels)
    if how == "fused" and logits.split is None:
        return _fused(t, logits, labels)
    if how == "sharded":
        return _sharded(t, logits, labels)
    if how == "parallel":
        return _parallel(t, logits, labels)
    x = t.cast(logits, "fp32") if upcast else logits
    if how in ("shifted", "held"):  # shift_logits = logits[..., :-1, :].contiguous()
        whole, x = x, t.new(x.shape, x.dtype, x.grad)
        t.emit("copy", (whole,), (x,))
        if whole.grad:
            t.backward("copy", read=x.bytes, written=whole.bytes, product=x.dtype)
    _exchange(t, x)
    if how == "held" and x.grad:
        t.save(x)
    log_p = t.new(x.shape, x.dtype, x.grad)
    _softmax(t, x, log_p)
    picked = t.full(log_p)
    rows = x.size // x.shape[-1]
    out = t.new((), picked.dtype, x.grad)
    t.emit("gather", (picked, labels), (out,), vector=rows, read=rows * 32 + labels.bytes)
    if x.grad:
        t.save(picked, labels)
        t.keep(WIDTH[picked.dtype])
        read, written, dtype = labels.bytes, picked.bytes, picked.dtype
        t.backward("scatter", vector=x.size, read=read, written=written, product=dtype)
    return out


def _exchange(t: Tape, x: Value) -> None:
    """Where the vocabulary is split over tensor-parallel ranks: the exchange, per row, of the
    maximum, the sum and the label's logit, in fp32.
    """
    if x.split == "features":
        t.send("all_reduce", "tp", 3 * 4 * x.size // x.shape[-1])


def _softmax(t: Tape, x: Value, log_p: Value) -> None:
    """Log-probabilities of x, which are kept."""
    n, dtype = x.size, x.dtype
    t.emit("softmax", (x,), (log_p,), vector=4 * n, special=n)
    if x.grad:
        t.save(log_p)
        t.backward(
            "softmax", vector=4 * n, special=n, read=2 * x.bytes, written=x.bytes, product=dtype
        )


def _chunked(t: Tape, logits: Value, labels: Value, pieces: int) -> Value:
    """Cross-entropy in one compiled kernel, a few rows at a time.

    Values in fp32 stay on the chip, and only the logits and labels are kept. In backward the
    gradient of a chunk of logits is used up by the head before that of the next is computed.
    Source: github pytorch/torchtune, modules/loss/ce_chunked_output_loss.py: num_output_chunks = 8.
    """
    logits.pieces = pieces
    n, bytes_, dtype = logits.size, logits.bytes, logits.dtype
    out = t.new((), "fp32", logits.grad)
    t.emit("softmax", (logits, labels), (out,), vector=4 * n, special=n)
    if logits.grad:
        t.save(logits, labels)
        read = bytes_ + labels.bytes
        t.backward("softmax", vector=4 * n, special=n, read=read, written=bytes_, product=dtype)
    return out


def _pieces(t: Tape, logits: Value, labels: Value) -> Value:
    """Cross-entropy of a few rows at a time by eager kernels, in the format of the logits.

    Logits and log-probabilities of all pieces are held until backward, which makes the gradients
    of one piece after the other. Source: github Lightning-AI/litgpt, utils.py:
    chunked_cross_entropy, with lm_head_chunk_size.
    """
    logits.pieces = CHUNKS
    log_p = t.new(logits.shape, logits.dtype, logits.grad)
    _softmax(t, logits, log_p)
    rows = logits.size // logits.shape[-1]
    out = t.new((), logits.dtype, logits.grad)
    t.emit("gather", (log_p, labels), (out,), vector=rows, read=rows * 32 + labels.bytes)
    if logits.grad:
        t.save(logits, labels)
        read, written = labels.bytes, log_p.bytes
        t.backward("scatter", vector=logits.size, read=read, written=written, product=log_p.dtype)
    return out


def _sharded(t: Tape, logits: Value, labels: Value) -> Value:
    """Cross-entropy in fp32 as a sequence of eager kernels: maximum, difference, exponential, sum,
    quotient.

    At the exponential there are the logits, their fp32 copy, the difference and the result: 14
    bytes per logit in 16 bits. Keeps the last, which backward turns into the gradient in place.
    Source: github huggingface/nanotron, src/nanotron/parallel/tensor_parallel/functional.py.
    """
    x = t.cast(logits, "fp32")
    _exchange(t, x)
    difference, power = (t.new(x.shape, "fp32", x.grad) for _ in range(2))
    out, live = t.new((), "fp32", x.grad), (logits, x, difference, labels)
    n, bytes_ = x.size, x.bytes
    t.emit("softmax", live, (out,), vector=4 * n, special=n, read=5 * bytes_, written=3 * bytes_)
    if x.grad:
        t.save(power, labels)
        t.backward("softmax", vector=x.size, read=x.bytes, written=x.bytes, product="fp32")
    return out


def _parallel(t: Tape, logits: Value, labels: Value) -> Value:
    """Cross-entropy over tensor-parallel ranks in Megatron-LM: five eager kernels on one fp32 copy
    of the logits (maximum, difference, exponential, sum, quotient), all but two in place; backward
    turns it into the gradient in place. They are of a kind that no compiler fuses.

    Between them one kernel after the other works on a number per row: labels outside a rank's part
    of the vocabulary are masked, the logits of the others picked, and the losses of a micro-batch
    averaged under a mask. Maximum, sum and picked logit are exchanged one by one. Source: github
    NVIDIA/Megatron-LM, megatron/mpu/cross_entropy.py and pretrain_gpt.py (loss_func) of 2021.
    """
    x = t.cast(logits, "fp32")
    rows = x.size // x.shape[-1]
    if x.split == "features":
        for _ in range(3):
            t.send("all_reduce", "tp", 4 * rows)
    out, n = t.new((), "fp32", x.grad), x.size
    t.emit("loss", (x,), (out,), vector=n, written=4 * rows)
    for kind, special in (("eager", 0), ("eager", n), ("loss", 0), ("eager", 0)):
        written = x.bytes if kind == "eager" else 4 * rows
        t.emit(kind, (), (), vector=n, special=special, read=x.bytes, written=written)
    for _ in range(ROWWISE[0]):
        t.emit("eager", (), (), vector=rows, read=8 * rows, written=8 * rows)
    if x.grad:
        t.save(x, labels)
        for _ in range(ROWWISE[1]):
            t.backward("eager", vector=rows, read=8 * rows, written=8 * rows)
        t.backward("eager", vector=n, read=x.bytes, written=x.bytes, product="fp32")
    return out


def _fused(t: Tape, logits: Value, labels: Value) -> Value:
    """flash-attn's cross-entropy under llm-foundry: keeps the logits, and backward writes their
    gradient beside them; nothing of their size is held in fp32.

    Composer evaluates the training metrics of each micro-batch besides, cross-entropy among them:
    together the kernels move what the composed loss moves. Source: github mosaicml/llm-foundry,
    models/mpt: loss_fn; mosaicml/composer, trainer.
    """
    n, wide, rows = logits.size, 4 * logits.size, logits.size // logits.shape[-1]
    out = t.new((), "fp32", logits.grad)
    t.emit("cast", (logits,), (), product="fp32", read=logits.bytes, written=wide)
    t.emit("softmax", (), (), vector=4 * n, special=n, read=wide, written=wide)
    t.emit("gather", (labels,), (out,), vector=rows, read=32 * rows + labels.bytes)
    if logits.grad:
        t.save(logits, labels)
        t.backward("scatter", vector=n, read=labels.bytes, written=wide)
        t.backward("softmax", vector=4 * n, special=n, read=2 * wide, written=wide)
        t.backward("cast", read=wide, written=logits.bytes, product=logits.dtype)
    return out


def _sum(t: Tape, logits: Value) -> Value:
    """The sum of all logits, which benchmarks without labels use as a loss.

    The script holds the logits, and their gradient is a tensor of ones.
    """
    out = t.new((), logits.dtype, logits.grad)
    t.emit("reduce", (logits,), (out,), vector=logits.size)
    if logits.grad:
        t.save(logits)
        t.backward("elementwise", read=0, written=logits.bytes)
    return out


def smoothed(t: Tape, logits: Value, labels: Value) -> Value:
    """Cross-entropy against labels smoothed uniformly over all classes [szegedy2015].

    Keeps the log-probabilities, in fp32, and the labels.
    """
    log_p = t.new(logits.shape, "fp32", logits.grad)
    rows, n, bytes_ = logits.size // logits.shape[-1], logits.size, log_p.bytes
    t.emit("softmax", (logits,), (log_p,), vector=4 * n, special=n)
    out = t.new((), "fp32", logits.grad)
    t.emit("gather", (labels,), (), read=rows * 32 + labels.bytes)
    t.emit("reduce", (log_p,), (out,), vector=n)
    if logits.grad:
        t.save(log_p, labels)
        t.backward("scatter", read=labels.bytes, written=bytes_)
        t.backward("elementwise", vector=n, read=0, written=bytes_)  # of the mean over classes
        t.backward("accumulate", vector=n, read=2 * bytes_, written=bytes_)
        t.backward("softmax", vector=4 * n, special=n, read=2 * bytes_, written=logits.bytes)
    return out


def shifted_labels(t: Tape, batch: int, sequence: int) -> Value:
    """Labels of a causal language model: padded by one, then shifted by one position.

    The slice is copied if there are several rows.
    """
    padded = sequence + 1
    shifted = t.new((batch, padded) if batch == 1 else (batch, sequence), "int64")
    t.emit("copy", (), (shifted,), read=8 * batch * sequence)
    return shifted


def pairwise(t: Tape, kind: str, x: Value, target: Value) -> Value:
    """The mean of an elementwise loss of prediction and target. Keeps both; l1, their difference.

    Kinds: mse, l1, smooth_l1, bce, bce_with_logits.
    """
    x = t.full(x)
    n = x.size
    out = t.new((), x.dtype, x.grad)
    special = {"bce": 2, "bce_with_logits": 3}.get(kind, 0) * n
    t.emit("reduce", (x, target), (out,), vector=3 * n, special=special)
    if x.grad:
        if kind == "l1":
            t.keep(x.bytes)
        else:
            t.save(x, target)
        t.backward(
            "elementwise",
            vector=4 * n,
            special=special,
            read=x.bytes + target.bytes,
            written=x.bytes,
            product=x.dtype,
        )
    return out
