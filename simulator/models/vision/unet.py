"""U-Nets for segmentation [ronneberger2015] and for denoising in diffusion models [ho2020].

The first has padding, batch norms and transposed convolutions; the second time embeddings and
attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    activation,
    conv_norm,
    convolve,
    cross_entropy,
    dense,
    images,
    max_pool,
    pairwise_loss,
    residual,
)
from roofcast.simulator.work.ops import attention, conv, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

GROUPS = 32  # of the group norms


def build(t: Tape, batch: int, size: int, *, kind: str, **sizes: Any) -> Value:
    """`kind` is "segment" or "denoise"; `sizes` are the further arguments of that function."""
    if kind == "segment":
        return segment(t, batch, size, **sizes)
    return denoise(t, batch, size, **sizes)


def _check_even(x: Value, layer: str) -> None:
    if x.shape[-1] % 2:
        raise BadInput(
            f"{layer} halves the image, but its input is {list(x.shape)}: use a side divisible by"
            " 32"
        )


def segment(
    t: Tape, batch: int, size: int, *, width: int = 64, depth: int = 4, classes: int = 2
) -> Value:
    """`depth` halvings, each doubling the channels; every pixel gets a class."""
    with t.scope("inc"):
        skips = [double(t, images(t, batch, size), width)]
    for level in range(depth):
        with t.scope(f"down{level + 1}"):
            _check_even(skips[-1], f"down{level + 1}.pool")
            skips.append(double(t, max_pool(t, "pool", skips[-1], 2), width * 2 ** (level + 1)))
    x = skips.pop()
    for level in reversed(range(depth)):
        with t.scope(f"up{depth - level}"):
            with t.op("up", "conv_transpose"):
                x = conv.conv_transpose(t, x, width * 2**level, 2, stride=2)
            with t.op("cat", "concat"):
                x = pointwise.concat(t, [skips.pop(), x], 1)
            x = double(t, x, width * 2**level)
    x = convolve(t, "outc", x, classes, 1)
    return cross_entropy(t, t.view(x, batch, size, size, classes))


def double(t: Tape, x: Value, width: int) -> Value:
    """Two 3x3 convolutions, each with batch norm and relu."""
    x = conv_norm(t, x, width, 3, padding=1, names=("0", "1", "2"))
    return conv_norm(t, x, width, 3, padding=1, names=("3", "4", "5"))


def denoise(
    t: Tape,
    batch: int,
    size: int,
    *,
    width: int = 128,
    multiples: Sequence[int] = (1, 2, 2, 2),
    blocks: int = 2,
    attended: Sequence[int] = (1,),
    dropout: float = 0.1,
    channels: int = 3,
) -> Value:
    """`blocks` residual blocks per level; level i has `multiples[i]` x `width` channels.

    Levels in `attended` also have attention.
    """
    x = images(t, batch, size, channels)
    e = time_embedding(t, batch, width)
    x = convolve(t, "conv_in", x, width, 3, padding=1)
    skips = [x]
    for level, multiple in enumerate(multiples):
        with t.scope(f"down.{level}"):
            for index in range(blocks):
                x = stage(t, str(index), x, e, width * multiple, level in attended, dropout)
                skips.append(x)
            if level < len(multiples) - 1:
                _check_even(x, f"down.{level}.downsample")
                x = convolve(t, "downsample", x, x.shape[1], 3, stride=2, padding=1)
                skips.append(x)
    x = stage(t, "mid.0", x, e, x.shape[1], True, dropout)
    x = stage(t, "mid.1", x, e, x.shape[1], False, dropout)
    for level in reversed(range(len(multiples))):
        with t.scope(f"up.{level}"):
            for index in range(blocks + 1):
                with t.op(f"{index}.cat", "concat"):
                    x = pointwise.concat(t, [x, skips.pop()], 1)
                x = stage(t, str(index), x, e, width * multiples[level], level in attended, dropout)
            if level:
                with t.op("upsample", "interpolate"):
                    x = conv.resize(t, x, 2 * x.shape[-1])
                x = convolve(t, "upsample.conv", x, x.shape[1], 3, padding=1)
    x = activation(t, "act_out", "silu", group_norm(t, "norm_out", x), in_place=False)
    return pairwise_loss(t, "mse", convolve(t, "conv_out", x, channels, 3, padding=1))


def time_embedding(t: Tape, batch: int, width: int) -> Value:
    """The embedding of the time step: sines and cosines, two linear layers."""
    with t.scope("time_embed"):
        with t.op("sinusoid", "rotary"):
            step = t.input((batch,), "int64")
            e = t.new((batch, width))
            t.emit("elementwise", (step,), (e,), special=e.size)
        e = activation(t, "act", "silu", dense(t, "0", e, 4 * width), in_place=False)
        return dense(t, "2", e, 4 * width)


def group_norm(t: Tape, name: str, x: Value) -> Value:
    """GroupNorm of x [batch, channels, ...], as an op called `name`."""
    with t.op(name, "group_norm"):
        return norm.group_norm(t, x, GROUPS)


def stage(
    t: Tape, name: str, x: Value, e: Value, width: int, attended: bool, dropout: float
) -> Value:
    """A residual block with time embedding `e`; `attended`: followed by attention."""
    with t.scope(name):
        h = activation(t, "act1", "silu", group_norm(t, "norm1", x), in_place=False)
        h = convolve(t, "conv1", h, width, 3, padding=1)
        shift = dense(t, "time", activation(t, "time_act", "silu", e, in_place=False), width)
        h = residual(t, h, t.view(shift, *shift.shape, 1, 1), "time_add")
        h = activation(t, "act2", "silu", group_norm(t, "norm2", h), in_place=False)
        with t.op("dropout", "dropout"):
            h = pointwise.dropout(t, h, dropout)
        h = convolve(t, "conv2", h, width, 3, padding=1)
        shortcut = convolve(t, "shortcut", x, width, 1) if x.shape[1] != width else x
        x = residual(t, shortcut, h)
        return attend(t, x) if attended else x


def attend(t: Tape, x: Value) -> Value:
    """Attention over all pixels, one head, with a residual."""
    batch, width, *space = x.shape
    length = space[0] * space[1]
    with t.scope("attn"):
        h = group_norm(t, "norm", x)
        with t.op("transpose", "copy"):
            h = pointwise.copy(t, t.low(h), batch, length, width)
        qkv = dense(t, "qkv", h, 3 * width)
        with t.op("attention", "attention"):
            h = attention.attention(
                t, *(t.view(qkv, batch, 1, length, width) for _ in range(3)), causal=False
            )
        h = dense(t, "proj", h, width)
        with t.op("transpose_back", "copy"):
            h = pointwise.copy(t, h, *x.shape)
    return residual(t, x, h, "attn_add")
