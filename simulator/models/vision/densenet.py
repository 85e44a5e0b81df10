"""DenseNet-BC: each layer of a block takes the outputs of all earlier ones [huang2016]."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.models.vision.parts import (
    activation,
    avg_pool,
    batch_norm,
    classify,
    conv_norm,
    convolve,
    global_average,
    images,
    max_pool,
)
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape, batch: int, size: int, *, depths: Sequence[int], growth: int = 32, classes: int = 1000
) -> Value:
    """`growth` channels per layer, `depths` layers per block; transitions halve channels, sides."""
    with t.scope("features"):
        x, names = images(t, batch, size), ("conv0", "norm0", "act0")
        x = conv_norm(t, x, 2 * growth, 7, stride=2, padding=3, names=names)
        x = max_pool(t, "pool0", x, 3, stride=2, padding=1)
        for index, depth in enumerate(depths, 1):
            with t.scope(f"denseblock{index}"):
                x = dense_block(t, x, depth, growth)
            if index < len(depths):
                with t.scope(f"transition{index}"):
                    x = activation(t, "act", "relu", batch_norm(t, "norm", x))
                    x = convolve(t, "conv", x, x.shape[1] // 2, 1, bias=False)
                    x = avg_pool(t, "pool", x, 2)
        x = activation(t, "act5", "relu", batch_norm(t, "norm5", x))
    return classify(t, global_average(t, x), classes, name="classifier")


def dense_block(t: Tape, x: Value, depth: int, growth: int) -> Value:
    """Layers of a 1x1 and a 3x3 convolution on all earlier outputs; all are concatenated."""
    outputs = [x]
    for index in range(1, depth + 1):
        with t.scope(f"denselayer{index}"):
            with t.op("cat", "concat"):
                h = pointwise.concat(t, outputs, 1)
            h = activation(t, "act1", "relu", batch_norm(t, "norm1", h))
            h = conv_norm(t, h, 4 * growth, 1, names=("conv1", "norm2", "act2"))
            outputs.append(convolve(t, "conv2", h, growth, 3, padding=1, bias=False))
    with t.op("cat", "concat"):
        return pointwise.concat(t, outputs, 1)
