"""Attention: softmax(q k^T / sqrt(d) + mask) v, in the three implementations of frameworks.

    eager      writes out the score matrix, at least twice; batched products around a softmax
    efficient  one kernel, scores stay on the chip; keys and values are repeated for all heads
               (PyTorch's choice in fp32)
    flash      one kernel, scores stay on the chip; takes grouped keys and values [dao2022]

Counted FLOPs are those of the full score matrix, causal or not, as PyTorch counts them. A causal
flash kernel skips about half of them, for which its time formula accounts.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.ops import linear, norm, pointwise, prompts, ring
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.traced import Cache

LSE = 4  # bytes of a row's log-sum-exp
MASK_ALIGNED = 16  # elements: alignment of the mask's rows that the efficient kernel requires
FLASH_ALIGNED = 8  # elements: the flash kernel pads the head dimension to a multiple of it
FLASH_LARGEST = 256  # largest head dimension of the flash kernel

Number = TypeVar("Number", int, float, np.ndarray)


def attention_flops(
    batch: Number,
    heads: Number,
    q_len: Number,
    kv_len: Number,
    dim: Number,
    dim_v: Number | None = None,
) -> Number:
    """FLOPs of both products of attention forward: 2 b h q k (d + d_v). Broadcasts over arrays.

    >>> attention_flops(1, 1, 4, 4, 8)
    512
    """
    return 2 * batch * heads * q_len * kv_len * (dim + (dim if dim_v is None else dim_v))


class _Kernel(NamedTuple):
    """How a fused kernel is called."""

    how: str  # flash | efficient
    causal: bool
    mask: Value | None
    window: int | None
    keys: int | None = None


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
    keys: int | None = None,
    scaled: bool = True,
    by_heads: bool = False,
    eager: bool = False,
    cache: int | None = None,
    memory: bool = False,
) -> Value:
    """q[B, H, S, D], k[B, G, K, D], v[B, G, K, E] -> [B, S, H * E].
    Raises BadInput for context parallelism without a fused kernel, or with a mask.

    causal        mask future keys (fused kernels only)
    mask          added to the scores, or a mask of bools
    bias          a learned addition to the scores; the fused kernel then masks no future keys
    softmax_fp32  run the eager softmax in fp32 and cast its result back
    softcap       bound the scores by a tanh (eager only)
    window        length of a sliding window of keys (fused kernels only)
    keys          number of keys chosen for each query: only their scores are computed and counted
    scaled        divide the scores by sqrt(d)
    by_heads      q lies in memory head by head, as a flash kernel's result then does, and is copied
    eager         the model supports no fused kernel
    cache         elements that generation keeps of a token, if other than its keys and values
    memory        the keys are of the encoder's output, which generation keeps
    """
    if t.generates and (causal or memory):
        return over_cache(t, q, k, v, window=window, keys=keys, elements=cache, source=memory)
    how = _implementation(t, eager, keys)
    if causal or memory:
        cached(t, k, v, window=window, elements=cache, source=memory)
    q, k, v = (t.cast(x, t.wide(x.dtype)) for x in (q, k, v))  # attention is not quantized
    k, v = prompts.prefixed(t, k, v) if (causal or mask is not None) and not memory else (k, v)
    _check_cp(t, fused=how != "eager" and mask is None and bias is None)
    if how == "eager":
        return _eager(t, q, k, v, (bias, mask), dropout, softmax_fp32, softcap, scaled)
    low = t.precision.autocast or q.dtype
    if mask is not None:
        k, v = repeated(t, k, q.shape[1]), repeated(t, v, q.shape[1])
    q, k, v = t.low(q), t.low(k), t.low(v)
    if mask is not None and bias is None:
        mask = _additive(t, mask, low)
    mask = mask if bias is None else t.low(bias)
    unfit = low == "fp32" or mask is not None or not _flash_takes(q, v)
    how = "efficient" if how == "flash" and unfit and keys is None else how
    kernel = _Kernel(how, causal, mask, window, keys)
    if how == "flash" and q.shape[-1] % FLASH_ALIGNED:
        return _padded(t, q, k, v, kernel)
    out = _fused(t, q, k, v, kernel)
    return pointwise.copy(t, out) if how == "flash" and by_heads and q.shape[1] > 1 else out


def _implementation(t: Tape, eager: bool, keys: int | None) -> str:
    """eager | efficient | flash; chosen keys have a fused kernel only."""
    if keys is not None:
        return "flash"
    return "eager" if eager else t.implementation("attention", "flash")


def _check_cp(t: Tape, *, fused: bool) -> None:
    if t.parallel.cp > 1 and not fused:
        raise BadInput(
            f"cp {t.parallel.cp}: context parallelism needs a fused attention without a mask; use"
            " cp 1"
        )


def _padded(t: Tape, q: Value, k: Value, v: Value, kernel: _Kernel) -> Value:
    """Flash attention of heads whose dimension the kernel does not take as it is."""
    dim = q.shape[-1]
    padded = -(-dim // FLASH_ALIGNED) * FLASH_ALIGNED
    q, k, v = (pointwise.copy(t, x, *x.shape[:-1], padded) for x in (q, k, v))
    out = _fused(t, q, k, v, kernel)
    return pointwise.copy(t, out, *out.shape[:-1], q.shape[1] * dim)


def cached(
    t: Tape,
    k: Value,
    v: Value,
    *,
    window: int | None = None,
    elements: int | None = None,
    source: bool = False,
) -> None:
    """Note what generation would keep of each token of a causal layer with k, v[B, G, K, D].

    elements: kept per token where these are not the keys and values, as in latent attention;
    source: the keys are those of the encoder's output.
    """
    held = (k.size + v.size) / (k.shape[0] * k.shape[-2])
    kept = elements if elements is not None else held
    width = WIDTH[t.precision.autocast or t.wide(k.dtype)]
    if kept:
        t.caches.append(Cache(kept * width, t.repeats, window, k.shape[-2] if source else None))


def over_cache(
    t: Tape,
    q: Value,
    k: Value,
    v: Value,
    *,
    window: int | None = None,
    keys: int | None = None,
    elements: int | None = None,
    source: bool = False,
    latent: bool = False,
) -> Value:
    """Attention of new tokens over a cache that their keys and values join: one fused kernel.

    q[B, H, S, D], k[B, G, S, D], v[B, G, S, E] of the new tokens -> [B, S, H * E]. How long the
    cache is, the tape does not know: the kernel's shape is (batch, heads, groups, new tokens,
    columns at most, D, E, whether keys and values are the same bytes, tokens of the encoder).
    """
    cached(t, k, v, window=window, elements=elements, source=source)
    batch, heads, length, dim = q.shape
    out = t.new((batch, length, heads * v.shape[-1]), t.wide(q.dtype))
    reach = min(x for x in (window, keys, math.inf) if x is not None)
    tokens = k.shape[2] if source else 0
    shape = (batch, heads, k.shape[1], length, reach, dim, v.shape[-1], latent, tokens)
    t.emit("cached_attention", (q, k) if latent else (q, k, v), (out,), shape=shape)
    return out


def _flash_takes(q: Value, v: Value) -> bool:
    """Whether the flash kernel supports these head dimensions."""
    return q.shape[-1] == v.shape[-1] <= FLASH_LARGEST


def _additive(t: Tape, mask: Value, dtype: str) -> Value:
    """The mask as the efficient kernel takes it: in its operands' format, with aligned rows.

    A mask that is not so is copied.
    """
    length = mask.shape[-1]
    if mask.dtype == dtype and length % MASK_ALIGNED == 0:
        return mask
    padded = -(-length // MASK_ALIGNED) * MASK_ALIGNED
    return pointwise.copy(t, mask, *mask.shape[:-1], padded, dtype=dtype)


def repeated(t: Tape, kv: Value, heads: int) -> Value:
    """kv[B, G, K, D], grouped keys or values, repeated for all query heads: [B, H, K, D].

    A single group is broadcast, which copies nothing.
    """
    batch, groups, length, dim = kv.shape
    if groups == heads:
        return kv
    shape = batch, heads, length, dim
    return t.view(kv, *shape) if groups == 1 else pointwise.copy(t, kv, *shape)


def contiguous(t: Tape, x: Value) -> Value:
    """x[B, H, S, D] as a batched product takes it, with samples and heads in one batch dimension.

    Copied if there are several samples and several heads; the copy is what the product keeps.
    """
    return x if 1 in x.shape[:2] else pointwise.copy(t, x)


def _eager(
    t: Tape,
    q: Value,
    k: Value,
    v: Value,
    added: tuple[Value | None, ...],
    dropout: float,
    softmax_fp32: bool,
    softcap: bool,
    scaled: bool,
) -> Value:
    """Attention composed of single kernels; `added` are added to the scores."""
    heads = q.shape[1]
    grouped = 1 < k.shape[1] < heads
    k, v = repeated(t, k, heads), repeated(t, v, heads)
    left, right = contiguous(t, t.low(q)), k if grouped else contiguous(t, t.low(k))
    scores = linear.matmul(t, left, right, transposed=True)
    if scaled:
        scores = pointwise.scale(t, scores)
    if softcap:
        scores = pointwise.scale(t, pointwise.unary(t, "tanh", pointwise.scale(t, scores)))
    for extra in added:
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


def _exchanged(t: Tape, x: Value, kind: str, shape: tuple[int, ...]) -> Value:
    """x after a collective over the context-parallel ranks; its gradient takes the way back.

    all_gather   the parts of all ranks; they are not kept, but gathered once more in backward
    all_to_all   split by heads instead of by tokens, or the reverse
    """
    out = t.new(shape, x.dtype, x.grad)
    out.split = x.split
    bytes_ = max(out.bytes, x.bytes)
    t.send(kind, "cp", bytes_)
    if t.training:
        if kind == "all_gather":
            t.send("all_gather", "cp", out.bytes, phase="backward")
        back = "reduce_scatter" if kind == "all_gather" else kind
        t.send(back, "cp", bytes_, phase="backward")
    return out


def _fused(t: Tape, q: Value, k: Value, v: Value, kernel: _Kernel) -> Value:
    """One kernel, and the exchanges of context parallelism around it.

    Tokens are distributed so that each rank has an equal part of a causal score matrix.
    """
    cp, kind = t.parallel.cp, t.parallel.cp_kind
    if cp == 1 or kind == "ring":
        return _launch(t, q, k, v, kernel, cp)
    if kind == "all-gather":  # keys and values of all ranks, gathered before the kernel [llama2024]
        whole = tuple(
            _exchanged(t, x, "all_gather", (*x.shape[:2], x.shape[2] * cp, x.shape[3]))
            for x in (k, v)
        )
        return _launch(t, q, k, v, kernel, cp, whole)
    # split by heads inside the kernel, by tokens elsewhere [jacobs2023]
    batch, heads, length, _ = q.shape
    if heads % cp:
        most = math.gcd(cp, heads)
        raise BadInput(
            f"cp {cp}: Ulysses distributes heads, and {heads} heads per rank are not divisible by"
            f" {cp}; use cp {most} or --cp-kind ring"
        )
    k, v = (x if x.shape[1] % cp == 0 else repeated(t, x, math.lcm(x.shape[1], cp)) for x in (k, v))
    q, k, v = (
        _exchanged(t, x, "all_to_all", (batch, x.shape[1] // cp, length * cp, x.shape[3]))
        for x in (q, k, v)
    )
    out = _launch(t, q, k, v, kernel, 1)
    return _exchanged(t, out, "all_to_all", (batch, length, heads * v.shape[-1]))


def _launch(
    t: Tape,
    q: Value,
    k: Value,
    v: Value,
    kernel: _Kernel,
    ranks: int,
    gathered: tuple[Value, ...] = (),
) -> Value:
    """A fused kernel on q and the keys and values of `ranks` ranks, gathered or sent in a ring."""
    how, causal, mask, window, keys = kernel
    batch, heads, length, dim = q.shape
    dim_v, kv_len = v.shape[-1], k.shape[2] * ranks
    if how == "efficient":
        k, v = (
            x if x.shape[1] == heads else pointwise.copy(t, x, batch, heads, *x.shape[2:])
            for x in (k, v)
        )
    out = t.new((batch, length, heads * dim_v), q.dtype, q.grad or k.grad or v.grad)
    kv_bytes = k.bytes + v.bytes
    if ranks > 1 and not gathered:  # keys and values travel round a ring [liu2023]
        t.send("ring", "cp", ranks * kv_bytes, behind=True)
        if t.training:
            t.send("ring", "cp", 2 * ranks * kv_bytes, phase="backward", behind=True)
    visible, skips = kv_len if window is None else min(window, kv_len), causal
    if keys is not None:
        kv_len = visible = min(keys, kv_len)
        skips = causal = False
    elif ranks > 1 and causal:  # every rank has half of a causal score matrix
        visible, skips = -(-visible // 2), False
    shape = (batch, heads, k.shape[1], length, visible, dim, skips)
    flops = attention_flops(batch, heads, length, kv_len, dim, dim_v)
    scores = batch * heads * length * kv_len * (0.5 if causal else 1)
    masks = () if mask is None else (mask,)
    ins = (q, *(gathered or (k, v)), *masks)
    t.emit("attention", ins, (out,), matrix=flops, vector=4 * scores, special=scores, shape=shape)
    if ranks > 1 and not gathered and t.implementation("ring", "") == "joined":
        ring.joined(t, q, k, v, out, ranks)
    if not out.grad:
        return out
    rows = length if how == "flash" else -(-length // 32) * 32
    statistics = LSE * batch * heads * rows
    t.save(q, k, v, out, *masks)
    t.keep(statistics)
    t.keep(24 if how == "flash" else 16)  # state of the random generator
    # the scores once more, and four products
    t.backward(
        "attention",
        matrix=2 * batch * heads * length * kv_len * (3 * dim + 2 * dim_v),
        vector=10 * scores,
        special=scores,
        shape=shape,
        product=q.dtype,
        read=q.bytes + kv_bytes + 2 * out.bytes + statistics,
        written=q.bytes + kv_bytes,
    )
    return out
