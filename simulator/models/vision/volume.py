"""U-Nets for medical volumes and slices: 3-D U-Net [cicek2016], nnU-Net [isensee2018], V-Net.

3-D U-Net is the variant of MLPerf and NVIDIA, V-Net [milletari2016] that of NVIDIA.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    convolve,
    cross_entropy,
    numbered,
    residual,
)
from roofcast.simulator.work.ops import conv, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

WIDTHS = (32, 64, 128, 256, 320, 320)  # channels per level [isensee2018]


def build(t: Tape, batch: int, size: int, *, kind: str = "unet", **sizes: Any) -> Value:
    """`kind` is "unet" or "vnet"; `sizes` are the further arguments of that function."""
    return unet(t, batch, size, **sizes) if kind == "unet" else vnet(t, batch, size, **sizes)


def volumes(t: Tape, batch: int, channels: int, sides: tuple[int, ...], halvings: int) -> Value:
    """A batch of slices or volumes with these `sides` [pixels], for a net of `halvings` halvings.

    Raises BadInput unless 2^halvings divides every side and the smallest map has more than one
    position.
    """
    step = 2**halvings
    if any(side % step for side in sides) or sides == (step,) * len(sides):
        raise BadInput(
            f"the net halves its input {halvings} times, but the input is"
            f" {[batch, channels, *sides]}: use sides of {2 * step}, {3 * step} .."
        )
    t.assumptions.append(
        f"{'volumes' if len(sides) > 2 else 'slices'} of {'x'.join(str(side) for side in sides)},"
        f" {channels} channels"
    )
    return t.input((batch, channels, *sides))


def unet(
    t: Tape,
    batch: int,
    size: int,
    *,
    channels: int,
    classes: int,
    shape: Sequence[int] = (1, 1, 1),
    act: str = "relu",
    last: int = 1,
    widths: Sequence[int] = WIDTHS,
) -> Value:
    """Slices or volumes with sides in the ratio `shape`, the first of `size` pixels.

    `last` is the kernel size of the classifier.
    """
    sides = tuple(size * side // shape[0] for side in shape)
    x = volumes(t, batch, channels, sides, len(widths) - 1)
    dims, skips = len(sides), []
    for level, width in enumerate(widths):
        with t.scope(f"down{level}"):
            x = unit(t, "conv1", x, width, act, stride=2 if level else 1)
            x = unit(t, "conv2", x, width, act)
        skips.append(x)
    skips.pop()
    for level in reversed(range(len(widths) - 1)):
        with t.scope(f"up{level}"):
            with t.op("up", "conv_transpose"):
                x = conv.conv_transpose(t, x, widths[level], 2, stride=2, dims=dims)
            with t.op("cat", "concat"):
                x = pointwise.concat(t, [x, skips.pop()], 1)
            x = unit(t, "conv1", x, widths[level], act)
            x = unit(t, "conv2", x, widths[level], act)
    x = convolve(t, "output", x, classes, last, padding=last // 2, dims=dims)
    return cross_entropy(t, t.view(x, batch, *sides, classes))


def unit(t: Tape, name: str, x: Value, width: int, act: str, stride: int = 1) -> Value:
    """Convolution of size 3 without bias, instance norm, activation in place."""
    dims = len(x.shape) - 2
    x = convolve(t, f"{name}.conv", x, width, 3, stride=stride, padding=1, bias=False, dims=dims)
    with t.op(f"{name}.norm", "instance_norm"):
        x = norm.instance_norm(t, x)
    return activation(t, f"{name}.act", act, x)


def vnet(
    t: Tape,
    batch: int,
    size: int,
    *,
    width: int = 16,
    halvings: int = 3,
    depth: int = 3,
    classes: int = 3,
) -> Value:
    """Residual blocks of `depth` convolutions per level; on the way up, also on the skip input."""
    x = volumes(t, batch, 1, (size,) * 3, halvings)
    x = residual(t, normed(t, "input", x, width), x, "input.add")
    skips = []
    for level in range(halvings):
        skips.append(x)
        with t.scope(f"down{level}"):
            x = normed(t, "pool", x, 2 * x.shape[1], 2, stride=2, padding=0)
            x = block(t, x, depth)
    for level in reversed(range(1, halvings)):
        skip = skips.pop()
        with t.scope(f"up{level}"):
            x = enlarged(t, x, skip.shape[1])
            with t.op("cat", "concat"):
                x = pointwise.concat(t, [x, skip], 1)
            x = block(t, x, depth)
    with t.scope("output"):
        x = convolve(t, "conv", enlarged(t, x, width), classes, 3, padding=1, dims=3)
    return cross_entropy(t, t.view(x, batch, size, size, size, classes))


def normed(t: Tape, name: str, x: Value, width: int, kernel: int = 3, **how: Any) -> Value:
    """Convolution with bias, batch norm, relu; `how` are further arguments of the convolution."""
    x = convolve(t, f"{name}.conv", x, width, kernel, dims=3, **{"padding": 1, **how})
    return activation(t, f"{name}.relu", "relu", batch_norm(t, f"{name}.norm", x))


def enlarged(t: Tape, x: Value, width: int) -> Value:
    """x [batch, channels, ...] with twice each side: transposed convolution, batch norm, relu."""
    with t.op("up", "conv_transpose"):
        x = conv.conv_transpose(t, x, width, 2, stride=2, dims=3)
    return activation(t, "up.relu", "relu", batch_norm(t, "up.norm", x))


def block(t: Tape, x: Value, depth: int) -> Value:
    """x plus the result of `depth` convolutions on it."""
    body = partial(normed, t, "unit", width=x.shape[1])
    return residual(t, t.repeat(numbered(0, depth), depth, body, x), x)
