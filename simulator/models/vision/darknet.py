"""Darknet-53, the backbone of YOLO v3 [redmon2018]."""

from __future__ import annotations

from functools import partial

from roofcast.simulator.models.vision.parts import (
    classify,
    conv_norm,
    global_average,
    images,
    numbered,
    residual,
)
from roofcast.simulator.work.tape import Tape, Value

STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))


def build(t: Tape, batch: int, size: int, *, classes: int = 1000) -> Value:
    """One step on `batch` images of `size` x `size` pixels: the loss, or the logits."""
    x = features(t, images(t, batch, size))[-1]
    return classify(t, global_average(t, x, "head.global_pool"), classes, name="head.fc")


def features(t: Tape, x: Value) -> list[Value]:
    """The outputs of the stages, at 1/2 to 1/32 of the image's side."""
    x = unit(t, "stem.conv1", x, 32, 3)
    outs = []
    for stage, (width, depth) in enumerate(STAGES):
        with t.scope(f"stages.{stage}"):
            x = unit(t, "conv_down", x, width, 3, 2)
            x = t.repeat(f"blocks.{numbered(0, depth)}", depth, partial(block, t), x)
        outs.append(x)
    return outs


def unit(t: Tape, name: str, x: Value, width: int, kernel: int, stride: int = 1) -> Value:
    """Convolution, batch norm, leaky relu."""
    names = (f"{name}.conv", f"{name}.bn", f"{name}.act")
    padding = kernel // 2
    return conv_norm(
        t, x, width, kernel, stride=stride, padding=padding, names=names, act="leaky_relu"
    )


def block(t: Tape, x: Value) -> Value:
    """1x1 convolution to half the channels, 3x3 back to all, shortcut."""
    h = unit(t, "conv2", unit(t, "conv1", x, x.shape[1] // 2, 1), x.shape[1], 3)
    return residual(t, h, x)
