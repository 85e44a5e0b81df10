"""Swin transformer: attention in windows, which move by half a window in every other block [liu2021]."""

from __future__ import annotations

from hwdb.errors import BadInput
from simulator.models.vision.parts import classify, dense, images, layer_norm, residual
from simulator.models.vision.vit import mlp, patches
from simulator.models.vision.windows import composed_attention, cut, drop_path, join, relative_bias
from simulator.ops import pointwise
from simulator.tape import Tape, Value


def build(t: Tape, batch: int, size: int, *, width: int, depths, heads, window: int = 7, patch: int = 4, dropped: float = 0.1, classes: int = 1000):
    """`heads` a stage; `dropped`: the last block's probability of being left out, rising from 0 at the first."""
    x = layer_norm(t, "patch_embed.norm", patches(t, images(t, batch, size), width, patch))
    side, total, index = size // patch, sum(depths), 0
    x = t.view(x, batch, side, side, width)
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        with t.scope(f"layers.{stage}"):
            if stage:
                x = merge(t, x)
            for number in range(depth):
                with t.scope(f"blocks.{number}"):
                    x = block(t, x, count, window, shifted=number % 2 == 1, dropped=dropped * index / (total - 1))
                index += 1
    x = layer_norm(t, "norm", x)
    with t.op("head.global_pool", "mean"):
        x = pointwise.mean(t, t.view(x, batch, x.shape[1] * x.shape[2], x.shape[3]), 1, keepdim=False)
    return classify(t, x, classes, name="head.fc")


def block(t: Tape, x: Value, heads: int, window: int, *, shifted: bool, dropped: float) -> Value:
    h = layer_norm(t, "norm1", x)
    with t.scope("attn"):
        h = drop_path(t, "drop_path1", window_attention(t, h, heads, window, shifted), dropped)
    x = residual(t, x, h, "add1")
    h = mlp(t, layer_norm(t, "norm2", x), 4 * x.shape[-1])
    return residual(t, x, drop_path(t, "drop_path2", h, dropped), "add2")


def window_attention(t: Tape, x: Value, heads: int, window: int, shifted: bool) -> Value:
    """Roll, pad, cut into windows, attend, join, roll back."""
    batch, side, _, width = x.shape
    if side <= window:
        window, shifted = side, False
    padded = -(-side // window) * window
    if shifted:
        with t.op("roll", "copy"):
            x = pointwise.copy(t, x)
    with t.op("pad", "copy"):
        x = cut(t, pointwise.copy(t, x, batch, padded, padded, width), window)
    qkv = dense(t, "qkv", x, 3 * width)
    bias = relative_bias(t, window * window, (2 * window - 1) ** 2, heads)
    with t.op("attention", "attention"):
        mask = t.buffer((padded // window) ** 2, 1, window * window, window * window, dtype=t.precision.weights) if shifted else None
        x = composed_attention(t, qkv, heads, bias, None if mask is None else t.view(mask, 1, 1, *mask.shape[2:]))
    x = join(t, dense(t, "proj", x, width), batch, padded, padded)
    if padded != side:
        with t.op("crop", "copy"):
            x = pointwise.copy(t, x, batch, side, side, width)
    if shifted:
        with t.op("roll_back", "copy"):
            x = pointwise.copy(t, x)
    return x


def merge(t: Tape, x: Value) -> Value:
    """Four neighbours become one token of twice the width."""
    batch, side, _, width = x.shape
    if side % 2:
        raise BadInput(f"downsample joins 2x2 tokens, but {list(x.shape)} arrives: take a picture whose side is divisible by 32")
    with t.scope("downsample"):
        with t.op("gather", "copy"):
            x = pointwise.copy(t, x, batch, side // 2, side // 2, 4 * width)
        return dense(t, "reduction", layer_norm(t, "norm", x), 2 * width, bias=False)
