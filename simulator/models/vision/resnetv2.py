"""Residual nets with norm and activation before the convolutions [he2016]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    convolve,
    cross_entropy,
    images,
    max_pool,
    numbered,
    residual,
)
from roofcast.simulator.work.ops import conv
from roofcast.simulator.work.tape import Tape, Value


def build(t: Tape, batch: int, size: int, *, depths: Sequence[int], classes: int = 1000) -> Value:
    """One step on `batch` images of `size` x `size` pixels: the loss, or the logits."""
    x = convolve(t, "stem.conv", images(t, batch, size), 64, 7, stride=2, padding=3, bias=False)
    x = max_pool(t, "stem.pool", x, 3, stride=2, padding=1)
    for stage, (width, depth) in enumerate(zip((256, 512, 1024, 2048), depths, strict=True)):
        body = partial(bottleneck, t, width=width)
        with t.scope(f"stages.{stage}.blocks"):
            with t.scope("0"):
                x = body(x, stride=2 if stage else 1, projected=True)
            x = t.repeat(numbered(1, depth - 1), depth - 1, body, x)
    x = activation(t, "norm.act", "relu", batch_norm(t, "norm", x))
    with t.op("head.global_pool", "avg_pool"):
        x = conv.adaptive_pool(t, x, "avg", 1)
    return cross_entropy(t, t.view(convolve(t, "head.fc", x, classes, 1), batch, classes))


def bottleneck(t: Tape, x: Value, width: int, stride: int = 1, projected: bool = False) -> Value:
    """1x1, 3x3, 1x1 convolutions after norm and relu; `projected`: 1x1 on the shortcut too."""
    h = activation(t, "norm1.act", "relu", batch_norm(t, "norm1", x))
    shortcut = x
    if projected:
        shortcut = convolve(t, "downsample.conv", h, width, 1, stride=stride, bias=False)
    h = convolve(t, "conv1", h, width // 4, 1, bias=False)
    h = activation(t, "norm2.act", "relu", batch_norm(t, "norm2", h))
    h = convolve(t, "conv2", h, width // 4, 3, stride=stride, padding=1, bias=False)
    h = activation(t, "norm3.act", "relu", batch_norm(t, "norm3", h))
    return residual(t, convolve(t, "conv3", h, width, 1, bias=False), shortcut)
