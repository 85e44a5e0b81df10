"""Attention in windows: cutting a picture [B, H, W, C] into them and back, a bias for every
distance, stochastic depth.
"""

from __future__ import annotations

from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


def cut(t: Tape, x: Value, window: int) -> Value:
    """[B, H, W, C] -> [B * windows, window^2, C], as a copy."""
    batch, height, width, channels = x.shape
    with t.op("window_partition", "copy"):
        return pointwise.copy(
            t, x, batch * (height // window) * (width // window), window * window, channels
        )


def join(t: Tape, x: Value, batch: int, height: int, width: int) -> Value:
    """Windows back to a picture, as a copy."""
    with t.op("window_reverse", "copy"):
        return pointwise.copy(t, x, batch, height, width, x.shape[-1])


def windowed(t: Tape, x: Value, window: int, shifted: bool, attend) -> Value:
    """Roll by half a window, pad, cut, `attend(t, windows, window, mask)`, join, roll back."""
    batch, side, _, width = x.shape
    if side <= window:
        window, shifted = side, False
    padded = -(-side // window) * window
    if shifted:
        with t.op("roll", "copy"):
            x = pointwise.copy(t, x)
    with t.op("pad", "copy"):
        x = pointwise.copy(t, x, batch, padded, padded, width)
    mask = (
        t.buffer(1, 1, window * window, window * window, dtype=t.precision.weights)
        if shifted
        else None
    )
    x = join(t, attend(t, cut(t, x, window), window, mask), batch, padded, padded)
    if padded != side:
        with t.op("crop", "copy"):
            x = pointwise.copy(t, x, batch, side, side, width)
    if shifted:
        with t.op("roll_back", "copy"):
            x = pointwise.copy(t, x)
    return x


def relative_bias(t: Tape, length: int, distances: int, heads: int) -> Value:
    """A row of a learned table for every pair of tokens, as [1, heads, length, length]."""
    with t.op("relative_position_bias", "embedding"):
        index = t.buffer(length * length, dtype="int64")
        return pointwise.copy(
            t, embedding.embedding(t, index, distances, heads), 1, heads, length, length
        )


def composed_attention(
    t: Tape, qkv: Value, heads: int, bias: Value, mask: Value | None = None
) -> Value:
    """Attention on [windows, tokens, 3 C] out of single kernels, scores written out: there is no
    fused one for it in timm.
    """
    windows, length, width = qkv.shape
    q, k, v = (t.view(qkv, windows, heads, length, width // 3 // heads) for _ in range(3))
    q, k = attention.contiguous(t, pointwise.scale(t, q)), attention.contiguous(t, k)
    scores = pointwise.add(t, linear.matmul(t, q, k, transposed=True), bias)
    if mask is not None:
        scores = pointwise.add(t, scores, mask)
    return attention.merged(
        t, linear.matmul(t, norm.softmax(t, scores), attention.contiguous(t, v))
    )


def drop_path(t: Tape, name: str, x: Value, probability: float) -> Value:
    """A whole branch left out for some samples of the batch; keeps one number a sample
    [huang2016depth].
    """
    if not probability or not t.training:
        return x
    with t.op(name, "dropout"):
        kept = t.new((x.shape[0],) + (1,) * (len(x.shape) - 1), x.dtype)
        t.emit("elementwise", (), (kept,), special=kept.size)
        return pointwise.mul(t, x, kept)
