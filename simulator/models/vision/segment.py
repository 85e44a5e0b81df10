"""U-Nets [ronneberger2015] as NVIDIA's TensorFlow examples train them: biases instead of norms,
relu behind transposed convolutions.

medical     nothing padded: 572 pixels in, 388 out; what comes over from the left is cropped
industrial  padded; a level hands on half its channels; one sigmoid a pixel
"""

from __future__ import annotations

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


def build(t: Tape, batch: int, size: int, *, kind: str, **sizes):
    """`kind` medical or industrial."""
    return (medical if kind == "medical" else industrial)(t, batch, size, **sizes)


def pair(t: Tape, x: Value, widths, padding: int) -> Value:
    """Two 3x3 convolutions with relu."""
    for index, width in enumerate(widths):
        x = activation(
            t, f"relu{index}", "relu", convolve(t, f"conv{index}", x, width, 3, padding=padding)
        )
    return x


def enlarged(t: Tape, x: Value, width: int, kernel: int) -> Value:
    """A transposed convolution to twice the side, with relu."""
    with t.op("up", "conv_transpose"):
        x = conv.conv_transpose(
            t, x, width, kernel, stride=2, padding=kernel // 3, output_padding=kernel // 3
        )
    return activation(t, "up.relu", "relu", x)


def down(t: Tape, x: Value, widths, padding: int) -> tuple[Value, list[Value]]:
    """The way down: what each level hands to the one below, and all that the way up will see."""
    seen = []
    for level, width in enumerate(widths):
        with t.scope(f"down{level}"):
            seen.append(pair(t, x, (width, width), padding))
            x = max_pool(t, "pool", seen[-1], 2)
    return x, seen


def joined(t: Tape, x: Value, skip: Value) -> Value:
    """x beside the middle of `skip`."""
    with t.op("cat", "concat"):
        return pointwise.concat(t, [x, t.view(skip, *skip.shape[:2], *x.shape[2:])], 1)


def medical(t: Tape, batch: int, size: int, *, widths=(64, 128, 256, 512), classes: int = 2):
    """Slices of one channel; the loss over the pixels that come out."""
    x, seen = down(t, images(t, batch, size, 1), widths, 0)
    if x.shape[-1] < 5 or any(skip.shape[-1] % 2 for skip in seen):
        raise BadInput(
            "bottleneck takes what four levels of unpadded convolutions leave of"
            f" {[batch, 1, size, size]}; sides of 188, 204 .. 572 fit"
        )
    with t.scope("bottleneck"):
        x = pair(t, x, (2 * widths[-1],) * 2, 0)
        x = dropped(t, "dropout", x, 0.5)
        x = enlarged(t, x, widths[-1], 3)
    for level in reversed(range(len(widths))):
        with t.scope(f"up{level}"):
            x = pair(t, joined(t, x, seen.pop()), (widths[level],) * 2, 0)
            if level:
                x = enlarged(t, x, widths[level - 1], 3)
    x = convolve(t, "output", x, classes, 1)
    return cross_entropy(t, t.view(x, batch, *x.shape[2:], classes))


def industrial(t: Tape, batch: int, size: int, *, widths=(32, 32, 64, 128), bottleneck: int = 256):
    """Pictures of one channel; is a pixel defective."""
    if size % 16:
        raise BadInput(
            f"up0.cat joins scales of 1/16 to 1, but {[batch, 1, size, size]} arrives: take a side"
            " divisible by 16"
        )
    x, seen = down(t, images(t, batch, size, 1), widths, 1)
    with t.scope("bottleneck"):
        x = enlarged(t, pair(t, x, (bottleneck, bottleneck), 1), bottleneck // 2, 2)
    for level in reversed(range(1, len(widths))):
        with t.scope(f"up{level}"):
            x = pair(t, joined(t, x, seen.pop()), (widths[level], widths[level] // 2), 1)
            x = enlarged(t, x, widths[level] // 2, 2)
    with t.scope("up0"):
        x = pair(t, joined(t, x, seen.pop()), (widths[0], widths[0]), 1)
    return pairwise_loss(t, "bce_with_logits", convolve(t, "output", x, 1, 1))
