"""Nets of inverted bottlenecks: MobileNet v2 [sandler2018] and v3 [howard2019], MnasNet [tan2018],
EfficientNet v1 [tan2019] and v2 [tan2021].

A net is rows of blocks: (kind, repeats, kernel, stride, expansion, width, excitation, activation).
Kinds: "separable" a depthwise and a 1x1 convolution; "inverted" 1x1 up, depthwise, 1x1 down;
"fused" kxk up, 1x1 down; "plain" one convolution. Rows in a tuple of their own make one stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Any, NamedTuple

from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    classify,
    conv_norm,
    convolve,
    global_average,
    images,
    numbered,
    residual,
    squeeze_excite,
)
from roofcast.simulator.work.ops import conv
from roofcast.simulator.work.tape import Tape, Value

S, I, F, P = "separable", "inverted", "fused", "plain"  # noqa: E741
MOBILE_V2 = (
    (S, 1, 3, 1, 1, 16),
    (I, 2, 3, 2, 6, 24),
    (I, 3, 3, 2, 6, 32),
    (I, 4, 3, 2, 6, 64),
    (I, 3, 3, 1, 6, 96),
    (I, 3, 3, 2, 6, 160),
    (I, 1, 3, 1, 6, 320),
)
MNAS_B1 = (
    (S, 1, 3, 1, 1, 16),
    (I, 3, 3, 2, 3, 24),
    (I, 3, 5, 2, 3, 40),
    (I, 3, 5, 2, 6, 80),
    (I, 2, 3, 1, 6, 96),
    (I, 4, 5, 2, 6, 192),
    (I, 1, 3, 1, 6, 320),
)
MOBILE_V3_LARGE = (
    (S, 1, 3, 1, 1, 16, 0, "relu"),
    ((I, 1, 3, 2, 4, 24, 0, "relu"), (I, 1, 3, 1, 3, 24, 0, "relu")),
    (I, 3, 5, 2, 3, 40, 0.25, "relu"),
    ((I, 1, 3, 2, 6, 80), (I, 1, 3, 1, 2.5, 80), (I, 2, 3, 1, 2.3, 80)),
    (I, 2, 3, 1, 6, 112, 0.25),
    (I, 3, 5, 2, 6, 160, 0.25),
    (P, 1, 1, 1, 1, 960),
)
MOBILE_V3_SMALL = (
    (S, 1, 3, 2, 1, 16, 0.25, "relu"),
    ((I, 1, 3, 2, 4.5, 24, 0, "relu"), (I, 1, 3, 1, 3.67, 24, 0, "relu")),
    ((I, 1, 5, 2, 4, 40, 0.25), (I, 2, 5, 1, 6, 40, 0.25)),
    (I, 2, 5, 1, 3, 48, 0.25),
    (I, 3, 5, 2, 6, 96, 0.25),
    (P, 1, 1, 1, 1, 576),
)
EFFICIENT = (
    (S, 1, 3, 1, 1, 16, 0.25),
    (I, 2, 3, 2, 6, 24, 0.25),
    (I, 2, 5, 2, 6, 40, 0.25),
    (I, 3, 3, 2, 6, 80, 0.25),
    (I, 3, 5, 1, 6, 112, 0.25),
    (I, 4, 5, 2, 6, 192, 0.25),
    (I, 1, 3, 1, 6, 320, 0.25),
)
EFFICIENT_V2_S = (
    (P, 2, 3, 1, 1, 24),
    (F, 4, 3, 2, 4, 48),
    (F, 4, 3, 2, 4, 64),
    (I, 6, 3, 2, 4, 128, 0.25),
    (I, 9, 3, 1, 6, 160, 0.25),
    (I, 15, 3, 2, 6, 256, 0.25),
)
EFFICIENT_V2_M = (
    (P, 3, 3, 1, 1, 24),
    (F, 5, 3, 2, 4, 48),
    (F, 5, 3, 2, 4, 80),
    (I, 7, 3, 2, 4, 160, 0.25),
    (I, 14, 3, 1, 6, 176, 0.25),
    (I, 18, 3, 2, 6, 304, 0.25),
    (I, 5, 3, 1, 6, 512, 0.25),
)
EFFICIENT_V2_L = (
    (P, 4, 3, 1, 1, 32),
    (F, 7, 3, 2, 4, 64),
    (F, 7, 3, 2, 4, 96),
    (I, 10, 3, 2, 4, 192, 0.25),
    (I, 19, 3, 1, 6, 224, 0.25),
    (I, 25, 3, 2, 6, 384, 0.25),
    (I, 7, 3, 1, 6, 640, 0.25),
)
NETS: dict[str, tuple[Any, int, int, str]] = {  # rows, stem width, head width, activation
    "mobilenetv2": (MOBILE_V2, 32, 1280, "relu6"),
    "mnasnet": (MNAS_B1, 32, 1280, "relu"),
    "mobilenetv3_large": (MOBILE_V3_LARGE, 16, 1280, "hardswish"),
    "mobilenetv3_small": (MOBILE_V3_SMALL, 16, 1024, "hardswish"),
    "efficientnet": (EFFICIENT, 32, 1280, "silu"),
    "efficientnetv2_s": (EFFICIENT_V2_S, 24, 1280, "silu"),
    "efficientnetv2_m": (EFFICIENT_V2_M, 24, 1280, "silu"),
    "efficientnetv2_l": (EFFICIENT_V2_L, 32, 1280, "silu"),
}


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never below 90 % of `channels` [sandler2018].

    >>> rounded(32 * 1.4), rounded(320 * 1.4)
    (48, 448)
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


class How(NamedTuple):
    """What all blocks of a net have in common."""

    act: str  # default activation
    width: float  # factor of the numbers of channels
    depth: float  # factor of the numbers of repeats
    same: bool  # pad as TensorFlow does
    third: bool  # MobileNet v3: excitation sized by the expanded width, head after the pool
    ends_bare: bool  # MnasNet: first and last block have no shortcut


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    net: str,
    width: float = 1.0,
    depth: float = 1.0,
    same: bool = False,
    classes: int = 1000,
) -> Value:
    """`width` and `depth` multiply channels and repeats [tan2019]; `same`: TensorFlow's padding."""
    rows, stem, head, act = NETS[net]
    how = How(act, width, depth, same, net.startswith("mobilenetv3"), net == "mnasnet")
    x, names = images(t, batch, size), ("conv_stem", "bn1", "bn1.act")
    x = conv_norm(
        t, x, rounded(stem * width), 3, stride=2, names=names, act=act, **_pad(3, 2, same)
    )
    with t.scope("blocks"):
        for stage, row in enumerate(rows):
            x = _stage(t, x, stage, row if isinstance(row[0], tuple) else (row,), how)
    if how.third:
        with t.op("global_pool", "avg_pool"):
            x = conv.adaptive_pool(t, x, "avg", 1)
        x = activation(t, "act2", act, convolve(t, "conv_head", x, head, 1))
        x = t.view(x, batch, head)
    else:
        names = ("conv_head", "bn2", "bn2.act")
        x = conv_norm(t, x, max(head, rounded(head * width)), 1, names=names, act=act)
        x = global_average(t, x)
    return classify(t, x, classes, name="classifier")


def _stage(t: Tape, x: Value, stage: int, rows: Sequence[Any], how: How) -> Value:
    first = 0
    for row, count in zip(rows, _deepened([r[1] for r in rows], how.depth), strict=True):
        full = row if len(row) == 8 else (*row, how.act) if len(row) == 7 else (*row, 0, how.act)
        kind, _, kernel, stride, expansion, channels, excite, act = full
        body = partial(
            block,
            t,
            kind=kind,
            kernel=kernel,
            expansion=expansion,
            channels=rounded(channels * how.width),
            excite=excite,
            act=act,
            same=how.same,
            third=how.third,
            bare=how.ends_bare and stage in (0, 6),
        )
        with t.scope(f"{stage}.{first}"):
            x = body(x, stride=stride)
        if count > 1:
            x = t.repeat(f"{stage}.{numbered(first + 1, count - 1)}", count - 1, body, x)
        first += count
    return x


def _deepened(repeats: list[int], depth: float) -> list[int]:
    """Repeats times `depth`; their sum is rounded up and distributed from the last row on."""
    left, scaled, out = sum(repeats), ceil(sum(repeats) * depth), []
    for r in reversed(repeats):
        out.append(max(1, round(r / left * scaled)))
        left, scaled = left - r, scaled - out[-1]
    return out[::-1]


def _pad(kernel: int, stride: int, same: bool) -> dict[str, Any]:
    """The argument of a convolution that sets its padding."""
    return {"same": True} if same else {"padding": (stride - 1 + kernel - 1) // 2}


def block(
    t: Tape,
    x: Value,
    *,
    kind: str,
    kernel: int,
    expansion: float,
    channels: int,
    excite: float,
    act: str,
    same: bool,
    third: bool,
    bare: bool,
    stride: int = 1,
) -> Value:
    """One block; a shortcut if the shape stays, unless the block is `bare`."""
    c_in = x.shape[1]
    how = {"stride": stride, **_pad(kernel, stride, same)}
    kept = stride == 1 and c_in == channels
    if kind == P:
        h = conv_norm(t, x, channels, kernel, names=("conv", "bn1", "bn1.act"), act=act, **how)
        return residual(t, h, x) if kept else h
    mid = c_in if kind == S else rounded(c_in * expansion)
    h, number = x, 1
    if kind == F:
        h = conv_norm(t, h, mid, kernel, names=("conv_exp", "bn1", "bn1.act"), act=act, **how)
    else:
        if kind == I:
            h = conv_norm(t, h, mid, 1, names=("conv_pw", "bn1", "bn1.act"), act=act)
            number = 2
        names = ("conv_dw", f"bn{number}", f"bn{number}.act")
        h = conv_norm(t, h, mid, kernel, groups=mid, names=names, act=act, **how)
    if excite:
        parts = ("conv_reduce", "act1", "conv_expand", "gate")
        if third:
            h = squeeze_excite(t, h, rounded(mid * excite), "relu", "hardsigmoid", names=parts)
        else:
            squeezed = round(mid * (excite / (1 if kind == S else expansion)))
            h = squeeze_excite(t, h, squeezed, act, names=parts)
    last = "conv_pw" if kind == S else "conv_pwl"
    h = batch_norm(t, f"bn{number + 1}", convolve(t, last, h, channels, 1, bias=False))
    return residual(t, h, x) if kept and not bare else h
