"""Inception v3 [szegedy2015] and v4 [szegedy2016] as in timm, without the auxiliary classifier.

A net is a table of blocks. A block is a dict of branches, whose results are concatenated; a branch
is a list of steps. A step is (width, kernel[, stride[, padding]]), "avg", "max", or a list of
convolutions on the same input. Without a padding, stride 1 keeps the size.
"""

from __future__ import annotations

from typing import Any

from roofcast.simulator.models.vision.parts import (
    avg_pool,
    classify,
    conv_norm,
    global_average,
    images,
    max_pool,
)
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value

# (width, kernel[, stride[, padding]]), "avg" or "max", or convolutions side by side
Step = str | tuple[Any, ...] | list[Any]
Block = dict[str, list[Step]]
WIDE, TALL = (1, 7), (7, 1)


def _v3_a(pooled: int) -> Block:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": ["avg", (pooled, 1)],
    }


def _v3_c(inner: int) -> Block:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(inner, 1), (inner, WIDE), (192, TALL)],
        "branch7x7dbl": [(inner, 1), (inner, TALL), (inner, WIDE), (inner, TALL), (192, WIDE)],
        "branch_pool": ["avg", (192, 1)],
    }


V3_E: Block = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), [(384, (1, 3)), (384, (3, 1))]],
    "branch3x3dbl": [(448, 1), (384, 3), [(384, (1, 3)), (384, (3, 1))]],
    "branch_pool": ["avg", (192, 1)],
}
V4_A: Block = {
    "branch0": [(96, 1)],
    "branch1": [(64, 1), (96, 3)],
    "branch2": [(64, 1), (96, 3), (96, 3)],
    "branch3": ["avg", (96, 1)],
}
V4_B: Block = {
    "branch0": [(384, 1)],
    "branch1": [(192, 1), (224, WIDE), (256, TALL)],
    "branch2": [(192, 1), (192, TALL), (224, WIDE), (224, TALL), (256, WIDE)],
    "branch3": ["avg", (128, 1)],
}
V4_C: Block = {
    "branch0": [(256, 1)],
    "branch1": [(384, 1), [(256, (1, 3)), (256, (3, 1))]],
    "branch2": [(384, 1), (448, (3, 1)), (512, (1, 3)), [(256, (1, 3)), (256, (3, 1))]],
    "branch3": ["avg", (256, 1)],
}

# (name, repeats, block); a block of one branch is a plain convolution or pool
NETS: dict[str, tuple[tuple[str, int, Block], ...]] = {
    "v3": (
        ("Conv2d_1a_3x3", 1, {"": [(32, 3, 2)]}),
        ("Conv2d_2a_3x3", 1, {"": [(32, 3, 1, 0)]}),
        ("Conv2d_2b_3x3", 1, {"": [(64, 3)]}),
        ("Pool1", 1, {"": ["max"]}),
        ("Conv2d_3b_1x1", 1, {"": [(80, 1)]}),
        ("Conv2d_4a_3x3", 1, {"": [(192, 3, 1, 0)]}),
        ("Pool2", 1, {"": ["max"]}),
        ("Mixed_5b", 1, _v3_a(32)),
        ("Mixed_5c", 1, _v3_a(64)),
        ("Mixed_5d", 1, _v3_a(64)),
        (
            "Mixed_6a",
            1,
            {
                "branch3x3": [(384, 3, 2)],
                "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)],
                "branch_pool": ["max"],
            },
        ),
        ("Mixed_6b", 1, _v3_c(128)),
        ("Mixed_6c", 1, _v3_c(160)),
        ("Mixed_6d", 1, _v3_c(160)),
        ("Mixed_6e", 1, _v3_c(192)),
        (
            "Mixed_7a",
            1,
            {
                "branch3x3": [(192, 1), (320, 3, 2)],
                "branch7x7x3": [(192, 1), (192, WIDE), (192, TALL), (192, 3, 2)],
                "branch_pool": ["max"],
            },
        ),
        ("Mixed_7b", 1, V3_E),
        ("Mixed_7c", 1, V3_E),
    ),
    "v4": (
        ("features.0", 1, {"": [(32, 3, 2)]}),
        ("features.1", 1, {"": [(32, 3, 1, 0)]}),
        ("features.2", 1, {"": [(64, 3)]}),
        ("features.3", 1, {"maxpool": ["max"], "conv": [(96, 3, 2)]}),
        (
            "features.4",
            1,
            {
                "branch0": [(64, 1), (96, 3, 1, 0)],
                "branch1": [(64, 1), (64, WIDE), (64, TALL), (96, 3, 1, 0)],
            },
        ),
        ("features.5", 1, {"conv": [(192, 3, 2)], "maxpool": ["max"]}),
        ("features.6-9", 4, V4_A),
        (
            "features.10",
            1,
            {
                "branch0": [(384, 3, 2)],
                "branch1": [(192, 1), (224, 3), (256, 3, 2)],
                "branch2": ["max"],
            },
        ),
        ("features.11-17", 7, V4_B),
        (
            "features.18",
            1,
            {
                "branch0": [(192, 1), (192, 3, 2)],
                "branch1": [(256, 1), (256, WIDE), (320, TALL), (320, 3, 2)],
                "branch2": ["max"],
            },
        ),
        ("features.19-21", 3, V4_C),
    ),
}


def build(t: Tape, batch: int, size: int, *, version: str, classes: int = 1000) -> Value:
    """`version` is "v3" or "v4"."""
    x = images(t, batch, size)
    for name, count, block in NETS[version]:
        if count > 1:
            x = t.repeat(name, count, lambda x, block=block: mixed(t, x, block), x)
        else:
            with t.scope(name):
                x = mixed(t, x, block)
    name = "fc" if version == "v3" else "last_linear"
    return classify(t, global_average(t, x), classes, name=name)


def mixed(t: Tape, x: Value, block: Block) -> Value:
    """The branches of a block on x, concatenated along channels."""
    return _joined(t, [_branch(t, x, name, steps) for name, steps in block.items()])


def _branch(t: Tape, x: Value, name: str, steps: list[Step]) -> Value:
    for index, step in enumerate(steps, 1):
        inner = ".".join(p for p in (name, str(index) if len(steps) > 1 else "") if p)
        if isinstance(step, list):
            pairs = zip("ab", step, strict=True)
            x = _joined(t, [_step(t, x, f"{inner}{letter}", one) for letter, one in pairs])
        else:
            x = _step(t, x, inner, step)
    return x


def _joined(t: Tape, outs: list[Value]) -> Value:
    if len(outs) == 1:
        return outs[0]
    with t.op("cat", "concat"):
        return pointwise.concat(t, outs, 1)


def _step(t: Tape, x: Value, name: str, step: str | tuple[Any, ...]) -> Value:
    if isinstance(step, str):
        pooled = f"{name}.pool" if name else "pool"
        if step == "max":
            return max_pool(t, pooled, x, 3, stride=2)
        return avg_pool(t, pooled, x, 3, stride=1, padding=1)
    full: tuple[Any, ...] = (*step, *(1, None)[len(step) - 2 :])
    width, kernel, stride, padding = full
    kernel = conv.spread(kernel, 2)
    if padding is None:
        padding = 0 if stride > 1 else tuple(k // 2 for k in kernel)
    prefix = f"{name}." if name else ""
    names = (f"{prefix}conv", f"{prefix}bn", f"{prefix}act")
    return conv_norm(t, x, width, kernel, stride=stride, padding=padding, names=names)
