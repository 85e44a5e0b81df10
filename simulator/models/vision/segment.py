"""U-Nets [ronneberger2015] of NVIDIA's TensorFlow examples: biases instead of norms.

Transposed convolutions are followed by relu.

medical     no padding: 572 pixels in, 388 out; skip connections are cropped
industrial  padded; half the channels go up from each level; one sigmoid per pixel
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    activation,
    convolve,
    cross_entropy,
    dropped,
    images,
    max_pool,
    pairwise_loss,
)
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(t: Tape, batch: int, size: int, *, kind: str, **sizes: Any) -> Value:
    """`kind` is "medical" or "industrial"; `sizes` are the further arguments of that function."""
    if kind == "medical":
        return medical(t, batch, size, **sizes)
    return industrial(t, batch, size, **sizes)


def pair(t: Tape, x: Value, widths: Sequence[int], padding: int) -> Value:
    """3x3 convolutions of these widths, each with relu."""
    for index, width in enumerate(widths):
        x = convolve(t, f"conv{index}", x, width, 3, padding=padding)
        x = activation(t, f"relu{index}", "relu", x)
    return x


def enlarged(t: Tape, x: Value, width: int, kernel: int) -> Value:
    """A transposed convolution to twice the side, with relu."""
    with t.op("up", "conv_transpose"):
        pad = kernel // 3
        x = conv.conv_transpose(t, x, width, kernel, stride=2, padding=pad, output_padding=pad)
    return activation(t, "up.relu", "relu", x)


def down(t: Tape, x: Value, widths: Sequence[int], padding: int) -> tuple[Value, list[Value]]:
    """The contracting path: its result, and the skip connections of all levels."""
    skips = []
    for level, width in enumerate(widths):
        with t.scope(f"down{level}"):
            skips.append(pair(t, x, (width, width), padding))
            x = max_pool(t, "pool", skips[-1], 2)
    return x, skips


def joined(t: Tape, x: Value, skip: Value) -> Value:
    """x concatenated with the cropped `skip`."""
    with t.op("cat", "concat"):
        return pointwise.concat(t, [x, t.view(skip, *skip.shape[:2], *x.shape[2:])], 1)


def medical(
    t: Tape, batch: int, size: int, *, widths: Sequence[int] = (64, 128, 256, 512), classes: int = 2
) -> Value:
    """Slices of one channel; the loss covers the pixels of the (smaller) output.

    Raises BadInput for a size whose levels have odd sides.
    """
    x, skips = down(t, images(t, batch, size, 1), widths, 0)
    if x.shape[-1] < 5 or any(skip.shape[-1] % 2 for skip in skips):
        raise BadInput(
            "bottleneck needs even sides at four levels of unpadded convolutions, but the input is"
            f" {[batch, 1, size, size]}: use sides of 188, 204 .. 572"
        )
    with t.scope("bottleneck"):
        x = pair(t, x, (2 * widths[-1],) * 2, 0)
        x = dropped(t, "dropout", x, 0.5)
        x = enlarged(t, x, widths[-1], 3)
    for level in reversed(range(len(widths))):
        with t.scope(f"up{level}"):
            x = pair(t, joined(t, x, skips.pop()), (widths[level],) * 2, 0)
            if level:
                x = enlarged(t, x, widths[level - 1], 3)
    x = convolve(t, "output", x, classes, 1)
    return cross_entropy(t, t.view(x, batch, *x.shape[2:], classes))


def industrial(
    t: Tape,
    batch: int,
    size: int,
    *,
    widths: Sequence[int] = (32, 32, 64, 128),
    bottleneck: int = 256,
) -> Value:
    """Images of one channel; every pixel is classified as defective or not.

    Raises BadInput unless 16 divides `size`.
    """
    if size % 16:
        raise BadInput(
            f"up0.cat joins scales of 1/16 to 1, but the input is {[batch, 1, size, size]}: use a"
            " side divisible by 16"
        )
    x, skips = down(t, images(t, batch, size, 1), widths, 1)
    with t.scope("bottleneck"):
        x = enlarged(t, pair(t, x, (bottleneck, bottleneck), 1), bottleneck // 2, 2)
    for level in reversed(range(1, len(widths))):
        with t.scope(f"up{level}"):
            x = pair(t, joined(t, x, skips.pop()), (widths[level], widths[level] // 2), 1)
            x = enlarged(t, x, widths[level] // 2, 2)
    with t.scope("up0"):
        x = pair(t, joined(t, x, skips.pop()), (widths[0], widths[0]), 1)
    return pairwise_loss(t, "bce_with_logits", convolve(t, "output", x, 1, 1))
