"""Residual nets [he2015], with grouped [xie2016] and wider [zagoruyko2016] bottlenecks and
squeeze-excitation [hu2017].

The stride of a bottleneck stands in its 3x3 convolution, as in torchvision and timm ("version
1.5").
"""

from __future__ import annotations

from functools import partial

from roofcast.simulator.models.vision.parts import (  # fmt: skip
    activation,
    classify,
    conv_norm,
    global_average,
    images,
    max_pool,
    numbered,
    residual,
    squeeze_excite,
)
from roofcast.simulator.work.tape import Tape, Value

PLANES = (64, 128, 256, 512)


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    block: str,
    depths,
    groups: int = 1,
    width: int = 64,
    excite: int = 0,
    classes: int = 1000,
):
    """`block` basic or bottleneck; `width` channels a group where planes are 64; `excite` channels
    a squeezed one.
    """
    x = features(
        t, images(t, batch, size), block, depths, groups=groups, width=width, excite=excite
    )
    return classify(t, global_average(t, x), classes)


def features(
    t: Tape,
    x: Value,
    block: str,
    depths,
    *,
    strides=(1, 2, 2, 2),
    groups: int = 1,
    width: int = 64,
    excite: int = 0,
) -> Value:
    """All stages that `depths` has, without a classifier; `strides` of the stages."""
    x = conv_norm(t, x, 64, 7, stride=2, padding=3, names=("conv1", "bn1", "act1"))
    x = max_pool(t, "maxpool", x, 3, stride=2, padding=1)
    for stage, (planes, depth, stride) in enumerate(zip(PLANES, depths, strides, strict=False)):
        if block == "basic":
            body = partial(basic, t, planes=planes, excite=excite)
        else:
            body = partial(
                bottleneck,
                t,
                inner=planes * width // 64 * groups,
                planes=4 * planes,
                groups=groups,
                excite=excite,
            )
        with t.scope(f"layer{stage + 1}"):
            with t.scope("0"):
                x = body(x, stride=stride)
            x = t.repeat(numbered(1, depth - 1), depth - 1, body, x)
    return x


def basic(t: Tape, x: Value, planes: int, stride: int = 1, excite: int = 0) -> Value:
    """Two 3x3 convolutions."""
    h = conv_norm(t, x, planes, 3, stride=stride, padding=1, names=("conv1", "bn1", "act1"))
    h = conv_norm(t, h, planes, 3, padding=1, names=("conv2", "bn2"), act=None)
    return activation(
        t, "act2", "relu", residual(t, excited(t, h, excite), downsampled(t, x, planes, stride))
    )


def bottleneck(
    t: Tape, x: Value, inner: int, planes: int, stride: int = 1, groups: int = 1, excite: int = 0
) -> Value:
    """1x1 down, 3x3, 1x1 up."""
    h = conv_norm(t, x, inner, 1, names=("conv1", "bn1", "act1"))
    h = conv_norm(
        t, h, inner, 3, stride=stride, padding=1, groups=groups, names=("conv2", "bn2", "act2")
    )
    h = conv_norm(t, h, planes, 1, names=("conv3", "bn3"), act=None)
    return activation(
        t, "act3", "relu", residual(t, excited(t, h, excite), downsampled(t, x, planes, stride))
    )


def downsampled(t: Tape, x: Value, planes: int, stride: int) -> Value:
    """The shortcut: x itself, or a 1x1 convolution where the shape changes."""
    if stride == 1 and x.shape[1] == planes:
        return x
    return conv_norm(
        t, x, planes, 1, stride=stride, names=("downsample.0", "downsample.1"), act=None
    )


def excited(t: Tape, x: Value, reduction: int) -> Value:
    """Squeeze and excitation where the net has it."""
    return squeeze_excite(t, x, x.shape[1] // reduction) if reduction else x
