"""RegNet X and Y: widths on a line, quantised [radosavovic2020]."""

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
    """(width, blocks) of each stage: block j wants first + slope j channels; it gets first
    factor^s, s whole, rounded to 8 and then to the group [radosavovic2020, Section 3.3].

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
):
    """The net over `batch` pictures of `size` pixels a side, to its loss."""
    x = conv_norm(
        t,
        images(t, batch, size),
        32,
        3,
        stride=2,
        padding=1,
        names=("stem.conv", "stem.bn", "stem.act"),
    )
    for index, (width, blocks) in enumerate(stages(slope, first, factor, depth, group), 1):
        body = partial(bottleneck, t, width=width, group=min(group, width), excite=excite)
        with t.scope(f"s{index}"):
            with t.scope("b1"):
                x = body(x, stride=2)
            if blocks > 1:
                x = t.repeat(f"b{numbered(2, blocks - 1)}", blocks - 1, body, x)
    return classify(t, global_average(t, x, "head.global_pool"), classes, name="head.fc")


def bottleneck(t: Tape, x: Value, width: int, group: int, excite: float, stride: int = 1) -> Value:
    """1x1, grouped 3x3, excitation sized by the block's input, 1x1."""
    h = conv_norm(t, x, width, 1, names=("conv1.conv", "conv1.bn", "conv1.act"))
    h = conv_norm(
        t,
        h,
        width,
        3,
        stride=stride,
        padding=1,
        groups=width // group,
        names=("conv2.conv", "conv2.bn", "conv2.act"),
    )
    if excite:
        h = squeeze_excite(t, h, round(x.shape[1] * excite), names=("fc1", "act", "fc2", "gate"))
    h = conv_norm(t, h, width, 1, names=("conv3.conv", "conv3.bn"), act=None)
    if stride > 1 or x.shape[1] != width:
        x = conv_norm(
            t, x, width, 1, stride=stride, names=("downsample.conv", "downsample.bn"), act=None
        )
    return activation(t, "act3", "relu", residual(t, h, x), in_place=False)
