"""VGG [simonyan2014]: blocks of 3x3 convolutions, three linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    classify,
    convolve,
    global_average,
    images,
    max_pool,
)
from roofcast.simulator.work.ops import conv
from roofcast.simulator.work.tape import Tape, Value

WIDTHS = (64, 128, 256, 512, 512)


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    depths: Sequence[int],
    normed: bool = False,
    classes: int = 1000,
    kept: float = 1.0,
) -> Value:
    """`depths` are the numbers of 3x3 convolutions before each halving.

    The linear layers are convolutions, as in timm, with the same counts; `kept` is the share of
    channels that pruning has left.
    """
    x = images(t, batch, size)
    index = 0
    with t.scope("features"):
        for width, depth in zip(WIDTHS, depths, strict=True):
            for _ in range(depth):
                channels = max(8, int(kept * width) // 8 * 8)
                x = convolve(t, str(index), x, channels, 3, padding=1)
                if normed:
                    index += 1
                    x = batch_norm(t, str(index), x)
                x = activation(t, str(index + 1), "relu", x)
                index += 2
            x = max_pool(t, str(index), x, 2)
            index += 1
    with t.scope("pre_logits"):
        if x.shape[-1] < 7:
            with t.op("pool", "avg_pool"):
                x = conv.adaptive_pool(t, x, "avg", 7)
        x = activation(t, "act1", "relu", convolve(t, "fc1", x, 4096, 7))
        x = activation(t, "act2", "relu", convolve(t, "fc2", x, 4096, 1))
    return classify(t, global_average(t, x, "head.global_pool"), classes, name="head.fc")
