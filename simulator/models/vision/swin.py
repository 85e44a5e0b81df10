"""Swin transformer: attention in windows, shifted in every other block [liu2021]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision import swinv2
from roofcast.simulator.models.vision.parts import classify, dense, images, layer_norm, residual
from roofcast.simulator.models.vision.vit import mlp, patches
from roofcast.simulator.models.vision.windows import (
    composed_attention,
    drop_path,
    relative_bias,
    windowed,
)
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    width: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window: int = 7,
    patch: int = 4,
    dropped: float = 0.1,
    second: bool = False,
    classes: int = 1000,
) -> Value:
    """`depths` and `heads` are those of the stages.

    `dropped` is the probability of dropping a branch of the last block; it rises from 0 at the
    first. `second`: Swin V2 [liu2021v2], with norms after the branches and cosine attention.
    """
    x = layer_norm(t, "patch_embed.norm", patches(t, images(t, batch, size), width, patch))
    side, total, index = size // patch, sum(depths), 0
    x = t.view(x, batch, side, side, width)
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        with t.scope(f"layers.{stage}"):
            if stage:
                x = merge(t, x, second)
            for number in range(depth):
                with t.scope(f"blocks.{number}"):
                    body = swinv2.block if second else block
                    p = dropped * index / (total - 1)
                    x = body(t, x, count, window, shifted=number % 2 == 1, dropped=p)
                index += 1
    x = layer_norm(t, "norm", x)
    with t.op("head.global_pool", "mean"):
        x = t.view(x, batch, x.shape[1] * x.shape[2], x.shape[3])
        x = pointwise.mean(t, x, 1, keepdim=False)
    return classify(t, x, classes, name="head.fc")


def block(t: Tape, x: Value, heads: int, window: int, *, shifted: bool, dropped: float) -> Value:
    """Attention within windows, which are `shifted` or not, then the MLP."""
    h = layer_norm(t, "norm1", x)
    with t.scope("attn"):
        h = windowed(t, h, window, shifted, partial(window_attention, heads=heads))
    x = residual(t, x, drop_path(t, "drop_path1", h, dropped), "add1")
    h = mlp(t, layer_norm(t, "norm2", x), 4 * x.shape[-1])
    return residual(t, x, drop_path(t, "drop_path2", h, dropped), "add2")


def window_attention(t: Tape, x: Value, window: int, mask: Value | None, heads: int) -> Value:
    """Attention within each window, with a learned bias per relative position."""
    width = x.shape[-1]
    qkv = dense(t, "qkv", x, 3 * width)
    bias = relative_bias(t, window * window, (2 * window - 1) ** 2, heads)
    with t.op("attention", "attention"):
        x = composed_attention(t, qkv, heads, bias, mask)
    return dense(t, "proj", x, width)


def merge(t: Tape, x: Value, second: bool) -> Value:
    """Patch merging: 2 x 2 tokens of x [B, side, side, C] become one token of twice the width.

    The norm comes before the projection, in the second version after it. Raises BadInput for an odd
    side.
    """
    batch, side, _, width = x.shape
    if side % 2:
        raise BadInput(
            f"downsample joins 2x2 tokens, but its input is {list(x.shape)}: use an image whose"
            " side is divisible by 32"
        )
    with t.scope("downsample"):
        with t.op("gather", "copy"):
            x = pointwise.copy(t, x, batch, side // 2, side // 2, 4 * width)
        if second:
            return layer_norm(t, "norm", dense(t, "reduction", x, 2 * width, bias=False))
        return dense(t, "reduction", layer_norm(t, "norm", x), 2 * width, bias=False)
