"""Xception: depthwise-separable convolutions with shortcuts [chollet2016]."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    classify,
    conv_norm,
    convolve,
    global_average,
    images,
    max_pool,
    residual,
)
from roofcast.simulator.work.tape import Tape, Value


def build(t: Tape, batch: int, size: int, *, classes: int = 1000) -> Value:
    """One step on `batch` images of `size` x `size` pixels: the loss, or the logits."""
    x = images(t, batch, size)
    x = conv_norm(t, x, 32, 3, stride=2, names=("conv1", "bn1", "act1"))
    x = conv_norm(t, x, 64, 3, names=("conv2", "bn2", "act2"))
    for index, widths in enumerate(((128, 128), (256, 256), (728, 728)), 1):
        with t.scope(f"block{index}"):
            x = block(t, x, widths, 2, activated=index > 1)
    x = t.repeat("block4-11", 8, lambda x: block(t, x, (728, 728, 728), 1), x)
    with t.scope("block12"):
        x = block(t, x, (728, 1024), 2)
    for index, width in ((3, 1536), (4, 2048)):
        x = separable(t, f"conv{index}", x, width)
        x = activation(t, f"act{index}", "relu", batch_norm(t, f"bn{index}", x))
    return classify(t, global_average(t, x), classes)


def separable(t: Tape, name: str, x: Value, width: int) -> Value:
    """A depthwise 3x3 convolution, then a 1x1 one."""
    x = convolve(t, f"{name}.conv1", x, x.shape[1], 3, padding=1, groups=x.shape[1], bias=False)
    return convolve(t, f"{name}.pointwise", x, width, 1, bias=False)


def block(
    t: Tape, x: Value, widths: Sequence[int], stride: int, *, activated: bool = True
) -> Value:
    """Separable convolutions, each after a relu, a max-pool if strided, and a shortcut.

    `activated`: there is a relu before the first convolution too.
    """
    h = x
    for index, width in enumerate(widths):
        if index or activated:
            h = activation(t, f"rep.{3 * index}", "relu", h, in_place=index > 0)
        h = batch_norm(t, f"rep.{3 * index + 2}", separable(t, f"rep.{3 * index + 1}", h, width))
    if stride > 1:
        h = max_pool(t, "rep.pool", h, 3, stride=stride, padding=1)
    if stride > 1 or x.shape[1] != widths[-1]:
        x = conv_norm(t, x, widths[-1], 1, stride=stride, names=("skip", "skipbn"), act=None)
    return residual(t, h, x)
