"""RegNet X and Y: widths that grow linearly, quantized [radosavovic2020]."""

from __future__ import annotations

from functools import partial
from math import log

from roofcast.simulator.models.vision.parts import (
    activation,
    classify,
    conv_norm,
    global_average,
    images,
    numbered,
    residual,
    squeeze_excite,
)
from roofcast.simulator.work.tape import Tape, Value


def stages(
    slope: float, first: int, factor: float, depth: int, group: int
) -> list[tuple[int, int]]:
    """(width, blocks) of each stage [radosavovic2020, Section 3.3].

    Block j is meant to have first + slope j channels. It gets first factor^s for a whole s, rounded
    to a multiple of 8 and then of the group.

    >>> stages(42.63, 80, 2.66, 21, 24)
    [(72, 2), (216, 5), (576, 13), (1512, 1)]
    """
    widths = [
        round(first * factor ** round(log((first + slope * j) / first) / log(factor)) / 8) * 8
        for j in range(depth)
    ]
    return [
        (round(w / min(group, w)) * min(group, w), widths.count(w)) for w in sorted(set(widths))
    ]


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    slope: float,
    first: int,
    factor: float,
    depth: int,
    group: int,
    excite: float = 0.0,
    classes: int = 1000,
) -> Value:
    """`slope` to `group` define the stages; `excite` is the ratio of the squeeze-excitation."""
    names = ("stem.conv", "stem.bn", "stem.act")
    x = conv_norm(t, images(t, batch, size), 32, 3, stride=2, padding=1, names=names)
    for index, (width, blocks) in enumerate(stages(slope, first, factor, depth, group), 1):
        body = partial(bottleneck, t, width=width, group=min(group, width), excite=excite)
        with t.scope(f"s{index}"):
            with t.scope("b1"):
                x = body(x, stride=2)
            if blocks > 1:
                x = t.repeat(f"b{numbered(2, blocks - 1)}", blocks - 1, body, x)
    return classify(t, global_average(t, x, "head.global_pool"), classes, name="head.fc")


def bottleneck(t: Tape, x: Value, width: int, group: int, excite: float, stride: int = 1) -> Value:
    """1x1, grouped 3x3, squeeze-excitation sized by the block's input, 1x1; a shortcut."""
    h = conv_norm(t, x, width, 1, names=("conv1.conv", "conv1.bn", "conv1.act"))
    names = ("conv2.conv", "conv2.bn", "conv2.act")
    groups = width // group
    h = conv_norm(t, h, width, 3, stride=stride, padding=1, groups=groups, names=names)
    if excite:
        h = squeeze_excite(t, h, round(x.shape[1] * excite), names=("fc1", "act", "fc2", "gate"))
    h = conv_norm(t, h, width, 1, names=("conv3.conv", "conv3.bn"), act=None)
    if stride > 1 or x.shape[1] != width:
        shortcut = ("downsample.conv", "downsample.bn")
        x = conv_norm(t, x, width, 1, stride=stride, names=shortcut, act=None)
    return activation(t, "act3", "relu", residual(t, h, x), in_place=False)
