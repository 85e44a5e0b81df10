"""Blocks of Swin V2 [liu2021v2]: norms after the branches, cosine attention, biases from an MLP."""

from __future__ import annotations

from functools import partial

from roofcast.simulator.models.vision.parts import activation, dense, layer_norm, residual
from roofcast.simulator.models.vision.vit import mlp, partly_biased
from roofcast.simulator.models.vision.windows import drop_path, windowed
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

HIDDEN = 512  # inner width of the MLP that computes the biases


def block(t: Tape, x: Value, heads: int, window: int, *, shifted: bool, dropped: float) -> Value:
    """Cosine attention within windows, then the MLP, each followed by a norm."""
    with t.scope("attn"):
        h = windowed(t, x, window, shifted, partial(cosine_attention, heads=heads))
    x = residual(t, x, drop_path(t, "drop_path1", layer_norm(t, "norm1", h), dropped), "add1")
    h = layer_norm(t, "norm2", mlp(t, x, 4 * x.shape[-1]))
    return residual(t, x, drop_path(t, "drop_path2", h, dropped), "add2")


def cosine_attention(t: Tape, x: Value, window: int, mask: Value | None, heads: int) -> Value:
    """softmax(cos(q, k) * scale + bias) v, run eagerly."""
    batch, length, width = x.shape
    qkv = partly_biased(t, x)
    with t.op("logit_scale", "exp"):
        scale = pointwise.unary(t, "exp", pointwise.unary(t, "clamp", t.parameter(heads, 1, 1)))
    bias = made_bias(t, window, heads)
    with t.op("attention", "attention"):
        q, k, v = (t.view(qkv, batch, heads, length, width // heads) for _ in range(3))
        q, k = (attention.contiguous(t, t.low(unit_length(t, each))) for each in (q, k))
        scores = linear.matmul(t, q, k, transposed=True)
        scores = pointwise.mul(t, scores, t.view(scale, 1, heads, 1, 1))
        scores = pointwise.add(t, scores, bias)
        if mask is not None:
            scores = pointwise.add(t, scores, mask)
        p = norm.softmax(t, scores)
        x = attention.merged(t, linear.matmul(t, p, attention.contiguous(t, t.low(v))))
    return dense(t, "proj", x, width)


def unit_length(t: Tape, x: Value) -> Value:
    """x / max(|x|, eps) over the last dimension; x, its length and the bounded length are kept."""
    # autocast sums in fp32 without a cast of x
    length = t.new((*x.shape[:-1], 1), "fp32" if t.precision.autocast else x.dtype, x.grad)
    t.emit("reduce", (x,), (length,), vector=2 * x.size)
    bounded = pointwise.unary(t, "clamp", length)
    out = t.new(x.shape, t.promoted(x, bounded), x.grad)
    t.emit("elementwise", (x, bounded), (out,), vector=x.size)
    if out.grad:
        t.save(x, length, bounded)
        flops, read, dtype = 2 * x.size, 2 * out.bytes, out.dtype
        t.backward("elementwise", vector=flops, read=read, written=x.bytes, product=dtype)
        t.backward("reduce", vector=3 * x.size, read=read, written=length.bytes, product=dtype)
        read = x.bytes + 2 * length.bytes
        t.backward("elementwise", vector=flops, read=read, written=x.bytes, product=x.dtype)
    return out


def made_bias(t: Tape, window: int, heads: int) -> Value:
    """A bias per head and relative position, computed by an MLP and expanded to all pairs."""
    pairs = window**4
    with t.scope("cpb_mlp"):
        x = dense(t, "0", t.buffer(1, (2 * window - 1) ** 2, 2, dtype=t.precision.weights), HIDDEN)
        table = dense(t, "2", activation(t, "1", "relu", x), heads, bias=False)
    with t.op("relative_position_bias", "embedding"):
        index = t.buffer(pairs, dtype="int64")
        table = embedding.embedding(t, index, table.shape[1], heads, weight=table)
        bias = pointwise.copy(t, table, 1, heads, window * window, window * window)
        return pointwise.scale(t, pointwise.unary(t, "sigmoid", bias))
