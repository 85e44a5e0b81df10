"""Residual nets [he2015]; grouped [xie2016] and wide [zagoruyko2016] bottlenecks, SE [hu2017].

The stride of a bottleneck is in its 3x3 convolution, as in torchvision and timm ("version 1.5").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from roofcast.simulator.models.vision.parts import (
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
    depths: Sequence[int],
    groups: int = 1,
    width: int = 64,
    excite: int = 0,
    classes: int = 1000,
    kept: float = 1.0,
) -> Value:
    """`block` is "basic" or "bottleneck".

    `width` is the number of channels per group where the stage has 64 planes; `excite` is the
    reduction of the squeeze-excitation, 0 for none; `kept` is the share of channels that pruning
    has left.
    """
    pixels = images(t, batch, size)
    inner = features(t, pixels, block, depths, groups=groups, width=width, excite=excite, kept=kept)
    return classify(t, global_average(t, inner), classes)


def features(
    t: Tape,
    x: Value,
    block: str,
    depths: Sequence[int],
    *,
    strides: Sequence[int] = (1, 2, 2, 2),
    groups: int = 1,
    width: int = 64,
    excite: int = 0,
    kept: float = 1.0,
) -> Value:
    """The stages without a classifier, as many as `depths` has, with these `strides`."""
    stem, *all_planes = (max(8, int(kept * n) // 8 * 8) for n in (64, *PLANES))
    x = conv_norm(t, x, stem, 7, stride=2, padding=3, names=("conv1", "bn1", "act1"))
    x = max_pool(t, "maxpool", x, 3, stride=2, padding=1)
    for stage, (planes, depth, stride) in enumerate(zip(all_planes, depths, strides, strict=False)):
        if block == "basic":
            body = partial(basic, t, planes=planes, excite=excite)
        else:
            inner, out = max(planes * width // 64, 1) * groups, 4 * planes
            body = partial(bottleneck, t, inner=inner, planes=out, groups=groups, excite=excite)
        with t.scope(f"layer{stage + 1}"):
            with t.scope("0"):
                x = body(x, stride=stride)
            x = t.repeat(numbered(1, depth - 1), depth - 1, body, x)
    return x


def basic(t: Tape, x: Value, planes: int, stride: int = 1, excite: int = 0) -> Value:
    """A basic block: two 3x3 convolutions and a shortcut."""
    h = conv_norm(t, x, planes, 3, stride=stride, padding=1, names=("conv1", "bn1", "act1"))
    h = conv_norm(t, h, planes, 3, padding=1, names=("conv2", "bn2"), act=None)
    h = excited(t, h, excite)
    return activation(t, "act2", "relu", residual(t, h, downsampled(t, x, planes, stride)))


def bottleneck(
    t: Tape, x: Value, inner: int, planes: int, stride: int = 1, groups: int = 1, excite: int = 0
) -> Value:
    """A bottleneck block: 1x1 to `inner` channels, 3x3, 1x1 to `planes`, and a shortcut."""
    h = conv_norm(t, x, inner, 1, names=("conv1", "bn1", "act1"))
    h = conv_norm(
        t, h, inner, 3, stride=stride, padding=1, groups=groups, names=("conv2", "bn2", "act2")
    )
    h = conv_norm(t, h, planes, 1, names=("conv3", "bn3"), act=None)
    h = excited(t, h, excite)
    return activation(t, "act3", "relu", residual(t, h, downsampled(t, x, planes, stride)))


def downsampled(t: Tape, x: Value, planes: int, stride: int) -> Value:
    """The shortcut: x itself, or a 1x1 convolution where the shape changes."""
    if stride == 1 and x.shape[1] == planes:
        return x
    names = ("downsample.0", "downsample.1")
    return conv_norm(t, x, planes, 1, stride=stride, names=names, act=None)


def excited(t: Tape, x: Value, reduction: int) -> Value:
    """Squeeze-excitation of x, if `reduction` is not 0."""
    return squeeze_excite(t, x, max(8, x.shape[1] // reduction)) if reduction else x
