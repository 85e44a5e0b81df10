"""Nets of inverted bottlenecks: MobileNet v2 [sandler2018] and v3 [howard2019], MnasNet [tan2018],
EfficientNet v1 [tan2019] and v2 [tan2021].

A net is rows of blocks: (kind, repeats, kernel, stride, expansion, width, excitation, activation).
Kinds: "separable" a depthwise and a 1x1 convolution; "inverted" 1x1 up, depthwise, 1x1 down;
"fused" kxk up, 1x1 down; "plain" one convolution. Rows in brackets of their own make one stage.
"""

from __future__ import annotations

from functools import partial
from math import ceil

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
NETS = {  # rows, stem width, head width, activation
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
):
    """`width` and `depth` multiply channels and repeats [tan2019]; `same` pads as TensorFlow
    does.
    """
    rows, stem, head, act = NETS[net]
    # its excitation is sized by the expanded width, its head stands behind the pool
    third = net.startswith("mobilenetv3")
    x = conv_norm(
        t,
        images(t, batch, size),
        rounded(stem * width),
        3,
        stride=2,
        names=("conv_stem", "bn1", "bn1.act"),
        act=act,
        **_pad(3, 2, same),
    )
    with t.scope("blocks"):
        for stage, row in enumerate(rows):
            x = _stage(
                t,
                x,
                stage,
                row if isinstance(row[0], tuple) else (row,),
                act,
                width,
                depth,
                same,
                third,
                net == "mnasnet",
            )
    if third:
        with t.op("global_pool", "avg_pool"):
            x = conv.adaptive_pool(t, x, "avg", 1)
        x = activation(t, "act2", act, convolve(t, "conv_head", x, head, 1))
        x = t.view(x, batch, head)
    else:
        x = conv_norm(
            t, x, rounded(head * width), 1, names=("conv_head", "bn2", "bn2.act"), act=act
        )
        x = global_average(t, x)
    return classify(t, x, classes, name="classifier")


def _stage(t, x, stage, rows, act, width, depth, same, third, ends_bare):
    repeats = _deepened([r[1] for r in rows], depth)
    first = 0
    for row, count in zip(rows, repeats, strict=True):
        kind, _, kernel, stride, expansion, channels, excite, fn = (
            (*row, 0, act)[:8] if len(row) == 6 else (*row, act)[:8]
        )
        channels = rounded(channels * width)
        bare = ends_bare and stage in (0, 6)  # MnasNet's first and last block have no shortcut

        how = {
            "expansion": expansion,
            "channels": channels,
            "excite": excite,
            "act": fn,
            "same": same,
            "third": third,
            "bare": bare,
        }
        body = partial(block, t, kind=kind, kernel=kernel, **how)
        with t.scope(f"{stage}.{first}"):
            x = body(x, stride=stride)
        if count > 1:
            x = t.repeat(f"{stage}.{numbered(first + 1, count - 1)}", count - 1, body, x)
        first += count
    return x


def _deepened(repeats, depth):
    """Repeats times `depth`, rounded up in sum, shared out from the last row."""
    left, scaled, out = sum(repeats), ceil(sum(repeats) * depth), []
    for r in reversed(repeats):
        out.append(max(1, round(r / left * scaled)))
        left, scaled = left - r, scaled - out[-1]
    return out[::-1]


def _pad(kernel, stride, same):
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
    """One block, with a shortcut where the shape stays."""
    c_in = x.shape[1]
    how = {"stride": stride, **_pad(kernel, stride, same)}
    if kind == P:
        h = conv_norm(t, x, channels, kernel, names=("conv", "bn1", "bn1.act"), act=act, **how)
        return residual(t, h, x) if stride == 1 and c_in == channels else h
    mid = c_in if kind == S else rounded(c_in * expansion)
    h, last = x, "conv_pwl"
    if kind == F:
        h = conv_norm(t, h, mid, kernel, names=("conv_exp", "bn1", "bn1.act"), act=act, **how)
        number = 2
    else:
        number = 1
        if kind == I:
            h = conv_norm(t, h, mid, 1, names=("conv_pw", "bn1", "bn1.act"), act=act)
            number = 2
        h = conv_norm(
            t,
            h,
            mid,
            kernel,
            groups=mid,
            names=("conv_dw", f"bn{number}", f"bn{number}.act"),
            act=act,
            **how,
        )
        number += 1
        last = "conv_pwl" if kind == I else "conv_pw"
    if excite:
        names = ("conv_reduce", "act1", "conv_expand", "gate")
        if third:
            h = squeeze_excite(t, h, rounded(mid * excite), "relu", "hardsigmoid", names=names)
        else:
            h = squeeze_excite(
                t, h, round(mid * (excite / (1 if kind == S else expansion))), act, names=names
            )
    h = batch_norm(t, f"bn{number}", convolve(t, last, h, channels, 1, bias=False))
    return residual(t, h, x) if stride == 1 and c_in == channels and not bare else h
