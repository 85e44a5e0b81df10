"""MaxViT [tu2022], timm's `_tf_` variant: inverted bottlenecks, window and grid attention."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    classify,
    convolve,
    dense,
    global_average,
    images,
    layer_norm,
    padded_same,
    residual,
    squeeze_excite,
)
from roofcast.simulator.models.vision.vit import mlp, scaled_attention
from roofcast.simulator.models.vision.windows import cut, join
from roofcast.simulator.work.ops import conv, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

HEAD = 32  # channels of a head
ACT = "gelu_tanh"


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    stem: int,
    widths: Sequence[int],
    depths: Sequence[int],
    classes: int = 1000,
) -> Value:
    """Each stage halves the image; windows and grid have 1/32 of its side.

    Raises BadInput unless `size` is a multiple of 32 from 64 on.
    """
    if size % 32 or size < 64:
        raise BadInput(
            f"stem.conv1 takes images whose side is a multiple of 32 from 64 on, not [{batch}, 3,"
            f" {size}, {size}]"
        )
    window = size // 32
    x = convolve(t, "stem.conv1", images(t, batch, size), stem, 3, stride=2, same=True)
    x = activation(t, "stem.act1", ACT, batch_norm(t, "stem.norm1", x), in_place=False)
    x = convolve(t, "stem.conv2", x, stem, 3, same=True)
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for number in range(depth):
            with t.scope(f"stages.{stage}.blocks.{number}"):
                x = block(t, x, width, 2 if number == 0 else 1, window)
    x = layer_norm(t, "head.norm", global_average(t, x, "head.global_pool"))
    x = dense(t, "head.pre_logits.fc", x, widths[-1])
    x = activation(t, "head.pre_logits.act", "tanh", x, in_place=False)
    return classify(t, x, classes, name="head.fc")


def block(t: Tape, x: Value, width: int, stride: int, window: int) -> Value:
    """Inverted bottleneck, attention within windows, attention over a grid."""
    with t.scope("conv"):
        x = inverted(t, x, width, stride)
    batch, _, side, _ = x.shape
    x = t.view(x, batch, side, side, width)
    for name in ("attn_block", "attn_grid"):
        with t.scope(name):
            x = residual(t, x, partition_attention(t, layer_norm(t, "norm1", x), window), "add1")
            x = residual(t, x, mlp(t, layer_norm(t, "norm2", x), 4 * width, ACT), "add2")
    return t.view(x, batch, width, side, side)


def inverted(t: Tape, x: Value, width: int, stride: int) -> Value:
    """Norm, 1x1 up, depthwise 3x3, squeeze-excitation, 1x1 down; the shortcut pools and widens."""
    shortcut = x
    if stride == 2:
        with t.op("shortcut.pool", "avg_pool"):
            shortcut = conv.pool(t, padded_same(t, x, 2, 2)[0], "avg", 2)
        if x.shape[1] != width:
            shortcut = convolve(t, "shortcut.expand", shortcut, width, 1)
    inner = 4 * width
    h = convolve(t, "conv1_1x1", batch_norm(t, "pre_norm", x), inner, 1, bias=False)
    h = activation(t, "act1", ACT, batch_norm(t, "norm1", h), in_place=False)
    h = convolve(t, "conv2_kxk", h, inner, 3, stride=stride, groups=inner, bias=False, same=True)
    h = activation(t, "act2", ACT, batch_norm(t, "norm2", h), in_place=False)
    h = squeeze_excite(t, h, width // 4, "silu")
    return residual(t, convolve(t, "conv3_1x1", h, width, 1), shortcut)


def partition_attention(t: Tape, x: Value, window: int) -> Value:
    """Attention within windows of x [B, side, side, C].

    Grid attention has the same counts: its groups are tokens at the same place of each window.
    """
    batch, side, _, width = x.shape
    heads = width // HEAD
    x = cut(t, x, window)
    with t.scope("attn"):
        qkv = dense(t, "qkv", x, 3 * width)
        bias = looked_up_bias(t, window, heads)
        with t.op("attention", "attention"):
            q, k, v = (t.view(qkv, x.shape[0], heads, window * window, HEAD) for _ in range(3))
            h = scaled_attention(t, q, k, v, bias=bias)
        h = dense(t, "proj", h, width)
    return join(t, h, batch, side, side)


def looked_up_bias(t: Tape, window: int, heads: int) -> Value:
    """A learned bias per relative position, for all pairs, by products with one-hot tables."""
    span, pairs = 2 * window - 1, window * window
    with t.op("rel_pos", "matmul"):
        table = t.parameter(heads, span, span)
        rows = t.view(table, 1, heads * span, span)
        rows = linear.matmul(t, rows, one_hot(t, span, pairs))
        rows = t.view(rows, 1, heads * pairs, span)
        both = linear.matmul(t, rows, one_hot(t, span, pairs))
        return pointwise.copy(t, both, 1, heads, pairs, pairs)


def one_hot(t: Tape, rows: int, columns: int) -> Value:
    """A constant table [1, rows, columns]."""
    return t.buffer(1, rows, columns, dtype=t.precision.weights)
