"""Attention: softmax(q k^T / sqrt(d) + mask) v, in the three ways frameworks run it.

    eager      the score matrix is written out, at least twice; batched products around a softmax
    efficient  one kernel, scores stay on the chip; keys and values repeated to all heads (PyTorch's
    fp32 choice)
    flash      one kernel, scores stay on the chip; grouped keys and values as they are [dao2022]

Counted FLOPs are those of the full score matrix, causal or not, as PyTorch counts them; a causal
flash kernel skips about half of them, which its time formula knows.
"""

from __future__ import annotations

import math

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

LSE = 4  # bytes of a row's log-sum-exp
MASK_ALIGNED = 16  # elements: the efficient kernel wants rows of its mask to start there
FLASH_ALIGNED = 8  # elements: the flash kernel's head width is padded to it
FLASH_LARGEST = 256  # widest head that the flash kernel takes


def attention_flops(batch, heads, q_len, kv_len, dim, dim_v=None):
    """FLOPs of both products of attention forward: 2 b h q k (d + d_v). Broadcasts over arrays.

    >>> attention_flops(1, 1, 4, 4, 8)
    512
    """
    return 2 * batch * heads * q_len * kv_len * (dim + (dim if dim_v is None else dim_v))


def attention(
    t: Tape,
    q: Value,
    k: Value,
    v: Value,
    *,
    causal: bool,
    mask: Value | None = None,
    bias: Value | None = None,
    dropout: float = 0.0,
    softmax_fp32: bool = False,
    softcap: bool = False,
    window: int | None = None,
    scaled: bool = True,
    by_heads: bool = False,
    eager: bool = False,
) -> Value:
    """q[B, H, S, D], k[B, G, K, D], v[B, G, K, E] -> [B, S, H * E].

    `mask` is what the eager path adds to the scores. The fused kernels take `causal` or a `window`
    of the last keys instead; PyTorch's flash kernel takes no mask, so where the window is shorter
    than the sequence its efficient kernel runs, on a mask made anew in each layer. `bias` is a
    learned addition to the scores, which needs a gradient; the fused kernel hides no later keys
    beside it. `softmax_fp32`: the eager softmax runs in fp32 and is cast back. `scaled=False`:
    scores are taken as they are. `by_heads`: q lies in memory head after head; a flash kernel's
    result then does so too, and is copied token after token. `eager`: the model has no other way.
    """
    how = t.implementation("attention", "flash")
    if t.parallel.cp > 1 and (eager or how == "eager" or mask is not None or bias is not None):
        raise BadInput(
            f"cp {t.parallel.cp}: context parallelism needs a fused attention without a mask; use"
            " cp 1"
        )
    if eager or how == "eager":
        return _eager(t, q, k, v, mask, bias, dropout, softmax_fp32, softcap, scaled)
    low = t.precision.autocast or q.dtype
    if mask is not None:
        k, v = repeated(t, k, q.shape[1]), repeated(t, v, q.shape[1])
    q, k, v = t.low(q), t.low(k), t.low(v)
    if bias is not None:
        mask = t.low(bias)
    elif mask is not None:
        mask = _additive(t, mask, low)
    dim, dim_v = q.shape[-1], v.shape[-1]
    if how == "flash" and (
        low == "fp32" or mask is not None or dim != dim_v or dim > FLASH_LARGEST
    ):
        how = "efficient"
    if how == "flash" and dim % FLASH_ALIGNED:
        padded = -(-dim // FLASH_ALIGNED) * FLASH_ALIGNED
        q, k, v = (pointwise.copy(t, x, *x.shape[:-1], padded) for x in (q, k, v))
        out = _fused(t, q, k, v, how, causal, mask, window)
        return pointwise.copy(t, out, *out.shape[:-1], q.shape[1] * dim)
    out = _fused(t, q, k, v, how, causal, mask, window)
    return pointwise.copy(t, out) if how == "flash" and by_heads and q.shape[1] > 1 else out


def _additive(t: Tape, mask: Value, dtype: str) -> Value:
    """A mask as the efficient kernel takes it: numbers in its operands' format, rows aligned; made
    anew where it is not so.
    """
    length = mask.shape[-1]
    if mask.dtype == dtype and length % MASK_ALIGNED == 0:
        return mask
    return pointwise.copy(
        t, mask, *mask.shape[:-1], -(-length // MASK_ALIGNED) * MASK_ALIGNED, dtype=dtype
    )


def repeated(t: Tape, kv: Value, heads: int) -> Value:
    """Grouped keys or values, one copy a query head; a single group is only stretched, which copies
    nothing.
    """
    batch, groups, length, dim = kv.shape
    if groups == heads:
        return kv
    return (
        t.view(kv, batch, heads, length, dim)
        if groups == 1
        else pointwise.copy(t, kv, batch, heads, length, dim)
    )


def contiguous(t: Tape, x: Value) -> Value:
    """What a batched product takes: samples and heads in one row. Several of both are copied, and
    the copy is kept.
    """
    return x if 1 in x.shape[:2] else pointwise.copy(t, x)


def _eager(t, q, k, v, mask, bias, dropout, softmax_fp32, softcap, scaled):
    batch, heads, length, _ = q.shape
    grouped = 1 < k.shape[1] < heads
    k, v = repeated(t, k, heads), repeated(t, v, heads)
    scores = linear.matmul(
        t, contiguous(t, t.low(q)), k if grouped else contiguous(t, t.low(k)), transposed=True
    )
    if scaled:
        scores = pointwise.scale(t, scores)
    if softcap:
        scores = pointwise.scale(t, pointwise.unary(t, "tanh", pointwise.scale(t, scores)))
    for extra in (bias, mask):
        if extra is not None:
            scores = pointwise.add(t, scores, extra)
    p = norm.softmax(t, scores, dtype="fp32" if softmax_fp32 else None)
    p = t.cast(p, q.dtype) if softmax_fp32 else p
    p = pointwise.dropout(t, p, dropout)
    return merged(t, linear.matmul(t, p, v if grouped else contiguous(t, t.low(v))))


def merged(t: Tape, heads: Value) -> Value:
    """[B, H, S, D] -> [B, S, H * D]: a copy, unless there is one head."""
    batch, n, length, dim = heads.shape
    shape = (batch, length, n * dim)
    return t.view(heads, *shape) if n == 1 else pointwise.copy(t, heads, *shape)


def _around(t: Tape, x: Value, kind: str, shape, *, times: int = 1) -> Value:
    """Every context-parallel rank's part of x, or x with heads dealt to the ranks instead of
    tokens; its gradient comes back that way.
    """
    out = t.new(shape, x.dtype, x.grad)
    out.split = x.split
    t.send(kind, "cp", max(out.bytes, x.bytes))
    if t.training and kind == "all_gather":  # not kept: gathered once more
        t.send("all_gather", "cp", out.bytes, phase="backward")
    if t.training:
        t.send(
            "reduce_scatter" if kind == "all_gather" else kind,
            "cp",
            max(out.bytes, x.bytes),
            phase="backward",
        )
    return out


def _fused(t, q, k, v, how, causal, mask, window):
    """One kernel. Under context parallelism tokens are dealt so that each rank has an equal part of
    a causal square.
    """
    cp, kind = t.parallel.cp, t.parallel.cp_kind
    if cp == 1 or kind == "ring":
        return _kernel(t, q, k, v, how, causal, mask, window, cp)
    if kind == "all-gather":  # keys and values of all ranks, gathered before the kernel [llama2024]
        whole = [
            _around(t, x, "all_gather", (*x.shape[:2], x.shape[2] * cp, x.shape[3])) for x in (k, v)
        ]
        return _kernel(t, q, k, v, how, causal, mask, window, cp, tuple(whole))
    # heads are dealt for the kernel, tokens for everything else [jacobs2023]
    batch, heads, length, _ = q.shape
    if heads % cp:
        most = math.gcd(cp, heads)
        raise BadInput(
            f"cp {cp}: Ulysses deals heads, and {heads} a rank are not divisible; use cp {most} or"
            " --cp-kind ring"
        )
    k, v = (x if x.shape[1] % cp == 0 else repeated(t, x, math.lcm(x.shape[1], cp)) for x in (k, v))
    q, k, v = (
        _around(t, x, "all_to_all", (batch, x.shape[1] // cp, length * cp, x.shape[3]))
        for x in (q, k, v)
    )
    out = _kernel(t, q, k, v, how, causal, mask, window, 1)
    return _around(t, out, "all_to_all", (batch, length, heads * v.shape[-1]))


def _kernel(t, q, k, v, how, causal, mask, window, ring, gathered=()):
    batch, heads, length, dim = q.shape
    dim_v, kv_len = v.shape[-1], k.shape[2] * ring
    if how == "efficient":
        k, v = (
            x if x.shape[1] == heads else pointwise.copy(t, x, batch, heads, *x.shape[2:])
            for x in (k, v)
        )
    out = t.new((batch, length, heads * dim_v), q.dtype, q.grad or k.grad or v.grad)
    flops = attention_flops(batch, heads, length, kv_len, dim, dim_v)
    scores = batch * heads * length * kv_len * (0.5 if causal else 1)
    shape = (
        batch,
        heads,
        k.shape[1],
        length,
        kv_len if window is None else min(window, kv_len),
        dim,
        causal,
    )
    if ring > 1:  # every rank has half of a causal square
        shape = (*shape[:4], -(-shape[4] // 2) if causal else shape[4], dim, False)
    if ring > 1 and not gathered:  # keys and values go round [liu2023]
        t.send("ring", "cp", ring * (k.bytes + v.bytes), behind=True)
        if t.training:
            t.send("ring", "cp", 2 * ring * (k.bytes + v.bytes), phase="backward", behind=True)
    ins = (q, *(gathered or (k, v)), *(() if mask is None else (mask,)))
    rows = length if how == "flash" else -(-length // 32) * 32
    statistics = LSE * batch * heads * rows
    t.emit("attention", ins, (out,), matrix=flops, vector=4 * scores, special=scores, shape=shape)
    if out.grad:
        t.save(q, k, v, out)
        if mask is not None:
            t.save(mask)
        t.keep(statistics)
        t.keep(24 if how == "flash" else 16)  # state of the random generator
        t.backward(
            "attention",
            matrix=2
            * batch
            * heads
            * length
            * kv_len
            * (3 * dim + 2 * dim_v),  # the scores once more, and four products
            vector=10 * scores,
            special=scores,
            shape=shape,
            product=q.dtype,
            read=q.bytes + k.bytes + v.bytes + 2 * out.bytes + statistics,
            written=q.bytes + k.bytes + v.bytes,
        )
    return out
