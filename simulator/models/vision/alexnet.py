"""AlexNet in its one-tower form, as in torchvision [krizhevsky2014]."""

from __future__ import annotations

from roofcast.simulator.models.vision.parts import (
    activation,
    classify,
    convolve,
    dense,
    flatten,
    images,
    max_pool,
)
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value

# index in `features` -> width, kernel, stride, padding, whether a pool follows
LAYERS = {
    0: (64, 11, 4, 2, True),
    3: (192, 5, 1, 2, True),
    6: (384, 3, 1, 1, False),
    8: (256, 3, 1, 1, False),
    10: (256, 3, 1, 1, True),
}


def build(t: Tape, batch: int, size: int, *, classes: int = 1000) -> Value:
    """Five convolutions, pooling to 6x6, three linear layers with dropout before the first two."""
    x = images(t, batch, size)
    with t.scope("features"):
        for index, (width, kernel, stride, padding, pooled) in LAYERS.items():
            x = convolve(t, str(index), x, width, kernel, stride=stride, padding=padding)
            x = activation(t, str(index + 1), "relu", x)
            if pooled:
                x = max_pool(t, str(index + 2), x, 3, stride=2)
    with t.op("avgpool", "avg_pool"):
        x = flatten(t, conv.adaptive_pool(t, x, "avg", 6))
    with t.scope("classifier"):
        for index in (0, 3):
            with t.op(str(index), "dropout"):
                x = pointwise.dropout(t, x, 0.5)
            x = dense(t, str(index + 1), x, 4096)
            x = activation(t, str(index + 2), "relu", x)
    return classify(t, x, classes, name="classifier.6")
