"""Attention in windows of an image [B, H, W, C]: partition and reverse, biases, drop path."""

from __future__ import annotations

from collections.abc import Callable

from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Attend = Callable[[Tape, Value, int, Value | None], Value]  # (tape, windows, window, mask)


def cut(t: Tape, x: Value, window: int) -> Value:
    """x [B, H, W, C] -> [B * windows, window^2, C], a copy."""
    batch, height, width, channels = x.shape
    with t.op("window_partition", "copy"):
        windows = (height // window) * (width // window)
        return pointwise.copy(t, x, batch * windows, window * window, channels)


def join(t: Tape, x: Value, batch: int, height: int, width: int) -> Value:
    """Windows -> image [batch, height, width, C], a copy."""
    with t.op("window_reverse", "copy"):
        return pointwise.copy(t, x, batch, height, width, x.shape[-1])


def windowed(t: Tape, x: Value, window: int, shifted: bool, attend: Attend) -> Value:
    """`attend` within windows of x [B, side, side, C]; `shifted`: x is rolled by half a window.

    The image is padded to a multiple of the window, and cropped and rolled back afterwards.
    """
    batch, side, _, width = x.shape
    if side <= window:
        window, shifted = side, False
    padded = -(-side // window) * window
    if shifted:
        with t.op("roll", "copy"):
            x = pointwise.copy(t, x)
    with t.op("pad", "copy"):
        x = pointwise.copy(t, x, batch, padded, padded, width)
    area, mask = window * window, None
    if shifted:
        mask = t.buffer(1, 1, area, area, dtype=t.precision.weights)
    x = join(t, attend(t, cut(t, x, window), window, mask), batch, padded, padded)
    if padded != side:
        with t.op("crop", "copy"):
            x = pointwise.copy(t, x, batch, side, side, width)
    if shifted:
        with t.op("roll_back", "copy"):
            x = pointwise.copy(t, x)
    return x


def relative_bias(t: Tape, length: int, distances: int, heads: int) -> Value:
    """A learned bias per relative position, for all pairs of tokens [1, heads, length, length]."""
    with t.op("relative_position_bias", "embedding"):
        index = t.buffer(length * length, dtype="int64")
        rows = embedding.embedding(t, index, distances, heads)
        return pointwise.copy(t, rows, 1, heads, length, length)


def composed_attention(
    t: Tape, qkv: Value, heads: int, bias: Value, mask: Value | None = None
) -> Value:
    """Eager attention on qkv [windows, tokens, 3 C]: timm has no fused kernel for it."""
    windows, length, width = qkv.shape
    q, k, v = (t.view(qkv, windows, heads, length, width // 3 // heads) for _ in range(3))
    q, k = attention.contiguous(t, pointwise.scale(t, q)), attention.contiguous(t, k)
    scores = pointwise.add(t, linear.matmul(t, q, k, transposed=True), bias)
    if mask is not None:
        scores = pointwise.add(t, scores, mask)
    p = norm.softmax(t, scores)
    return attention.merged(t, linear.matmul(t, p, attention.contiguous(t, v)))


def drop_path(t: Tape, name: str, x: Value, probability: float) -> Value:
    """Stochastic depth [huang2016depth]: drops the branch x for random samples.

    One number per sample is kept for backward.
    """
    if not probability or not t.training:
        return x
    with t.op(name, "dropout"):
        kept = t.new((x.shape[0],) + (1,) * (len(x.shape) - 1), x.dtype)
        t.emit("elementwise", (), (kept,), special=kept.size)
        return pointwise.mul(t, x, kept)


def divided_drop_path(t: Tape, name: str, x: Value, probability: float) -> Value:
    """Stochastic depth as transformers composes it: the branch is divided first."""
    if not probability or not t.training:
        return x
    with t.op(name, "dropout"):
        return drop_path(t, name, pointwise.scale(t, x), probability)
