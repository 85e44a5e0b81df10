"""Small convolutional nets of tutorials: convolutions with pools, then linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.models.vision.parts import (
    activation,
    classify,
    convolve,
    dense,
    flatten,
    images,
    max_pool,
)
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    channels: int,
    convolutions: Sequence[int],
    kernel: int,
    padding: int,
    flat: int,
    widths: Sequence[int] = (),
    dropout: float = 0.0,
    classes: int = 10,
) -> Value:
    """Each convolution is followed by relu and a 2x2 max-pool; then linear layers of `widths`.

    The first linear layer takes `flat` features. Raises BadInput if an image of side `size` does
    not give that number.
    """
    x = images(t, batch, size, channels)
    for index, width in enumerate(convolutions, 1):
        x = convolve(t, f"conv{index}", x, width, kernel, padding=padding)
        x = activation(t, f"relu{index}", "relu", x, in_place=False)
        x = max_pool(t, f"pool{index}", x, 2)
    x = flatten(t, x, flat, "fc1")
    if dropout:
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, dropout)
    for index, width in enumerate(widths, 1):
        x = dense(t, f"fc{index}", x, width)
        x = activation(t, f"fc{index}.relu", "relu", x, in_place=False)
    return classify(t, x, classes, name=f"fc{len(widths) + 1}")
