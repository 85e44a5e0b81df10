"""U-Nets of medical volumes and slices with strided convolutions: 3-D U-Net [cicek2016] as MLPerf
and NVIDIA train it, nnU-Net [isensee2018], V-Net [milletari2016] as NVIDIA trains it.
"""

from __future__ import annotations

from functools import partial

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

WIDTHS = (32, 64, 128, 256, 320, 320)  # channels of the levels [isensee2018]


def build(t: Tape, batch: int, size: int, *, kind: str = "unet", **sizes):
    """`kind` unet or vnet."""
    return (unet if kind == "unet" else vnet)(t, batch, size, **sizes)


def volumes(t: Tape, batch: int, channels: int, sides: tuple[int, ...], halvings: int) -> Value:
    """A batch of slices or volumes, each side of which can be halved so often; the smallest map has
    more than one cell.
    """
    step = 2**halvings
    if any(side % step for side in sides) or sides == (step,) * len(sides):
        raise BadInput(
            f"the net halves its input {halvings} times, but {[batch, channels, *sides]} arrives:"
            f" take sides of {2 * step}, {3 * step} .."
        )
    t.said.append(
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
    shape=(1, 1, 1),
    act: str = "relu",
    last: int = 1,
    widths=WIDTHS,
):
    """Slices or volumes whose sides stand to one another as `shape`, the first one of `size`;
    `last` the kernel of the classifier.
    """
    sides = tuple(size * side // shape[0] for side in shape)
    x = volumes(t, batch, channels, sides, len(widths) - 1)
    dims, seen = len(sides), []
    for level, width in enumerate(widths):
        with t.scope(f"down{level}"):
            x = unit(t, "conv1", x, width, act, stride=2 if level else 1)
            x = unit(t, "conv2", x, width, act)
        seen.append(x)
    seen.pop()
    for level in reversed(range(len(widths) - 1)):
        with t.scope(f"up{level}"):
            with t.op("up", "conv_transpose"):
                x = conv.conv_transpose(t, x, widths[level], 2, stride=2, dims=dims)
            with t.op("cat", "concat"):
                x = pointwise.concat(t, [x, seen.pop()], 1)
            x = unit(t, "conv1", x, widths[level], act)
            x = unit(t, "conv2", x, widths[level], act)
    x = convolve(t, "output", x, classes, last, padding=last // 2, dims=dims)
    return cross_entropy(t, t.view(x, batch, *sides, classes))


def unit(t: Tape, name: str, x: Value, width: int, act: str, stride: int = 1) -> Value:
    """Convolution of 3 without bias, instance norm, activation in place."""
    x = convolve(
        t, f"{name}.conv", x, width, 3, stride=stride, padding=1, bias=False, dims=len(x.shape) - 2
    )
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
):
    """Residual blocks of `depth` convolutions at each level; on the way up they see both halves
    joined.
    """
    x = volumes(t, batch, 1, (size,) * 3, halvings)
    x = residual(t, normed(t, "input", x, width), x, "input.add")
    seen = []
    for level in range(halvings):
        seen.append(x)
        with t.scope(f"down{level}"):
            x = normed(t, "pool", x, 2 * x.shape[1], 2, stride=2, padding=0)
            x = block(t, x, depth)
    for level in reversed(range(1, halvings)):
        skip = seen.pop()
        with t.scope(f"up{level}"):
            x = enlarged(t, x, skip.shape[1])
            with t.op("cat", "concat"):
                x = pointwise.concat(t, [x, skip], 1)
            x = block(t, x, depth)
    with t.scope("output"):
        x = convolve(t, "conv", enlarged(t, x, width), classes, 3, padding=1, dims=3)
    return cross_entropy(t, t.view(x, batch, size, size, size, classes))


def normed(t: Tape, name: str, x: Value, width: int, kernel: int = 3, **how) -> Value:
    """Convolution with bias, batch norm, relu."""
    x = convolve(t, f"{name}.conv", x, width, kernel, dims=3, **{"padding": 1, **how})
    return activation(t, f"{name}.relu", "relu", batch_norm(t, f"{name}.norm", x))


def enlarged(t: Tape, x: Value, width: int) -> Value:
    """x[batch, channels, ..space] with twice each side, by a transposed convolution, BatchNorm and
    ReLU.
    """
    with t.op("up", "conv_transpose"):
        x = conv.conv_transpose(t, x, width, 2, stride=2, dims=3)
    return activation(t, "up.relu", "relu", batch_norm(t, "up.norm", x))


def block(t: Tape, x: Value, depth: int) -> Value:
    """x + what `depth` convolutions make of it."""
    return residual(
        t, t.repeat(numbered(0, depth), depth, partial(normed, t, "unit", width=x.shape[1]), x), x
    )
