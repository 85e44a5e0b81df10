"""YOLO v3: Darknet-53, three scales joined from the smallest up, three boxes a cell [redmon2018].

The loss is a squared error over all predictions; matching boxes to objects is not counted.
"""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.darknet import features, unit
from roofcast.simulator.models.vision.parts import convolve, images
from roofcast.simulator.work.ops import conv, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(t: Tape, batch: int, size: int, *, classes: int = 80, boxes: int = 3):
    """The net over `batch` pictures of `size` pixels a side, to its loss."""
    if size % 32:
        raise BadInput(
            f"head.1.cat joins scales of 1/16 and twice 1/32, but [{batch}, 3, {size}, {size}]"
            " arrives: a side divisible by 32 fits"
        )
    with t.scope("backbone"):
        scales = features(t, images(t, batch, size))[:-4:-1]
    x, outs = None, []
    for index, (skip, width) in enumerate(zip(scales, (512, 256, 128), strict=True)):
        with t.scope(f"head.{index}"):
            if x is not None:
                x = unit(t, "reduce", x, width, 1)
                with t.op("upsample", "interpolate"):
                    x = conv.resize(t, x, skip.shape[-1])
                with t.op("cat", "concat"):
                    skip = pointwise.concat(t, [x, skip], 1)
            x, out = head(t, skip, width, boxes * (5 + classes))
            outs.append(out)
    return detection_loss(t, outs)


def head(t: Tape, x: Value, width: int, predicted: int) -> tuple[Value, Value]:
    """Five convolutions, 1x1 and 3x3 in turn, handed up; one more and the predictions."""
    for index, factor in enumerate((1, 2, 1, 2, 1)):
        x = unit(t, str(index), x, factor * width, 3 if factor == 2 else 1)
    return x, convolve(t, "predict", unit(t, "5", x, 2 * width, 3), predicted, 1)


def detection_loss(t: Tape, outs: list[Value]):
    """A squared error a scale, added up."""
    if not t.training:
        return outs
    with t.op("loss", "mse"):
        parts = [loss.pairwise(t, "mse", out, t.input(out.shape)) for out in outs]
        total = parts[0]
        for part in parts[1:]:
            total = pointwise.add(t, total, part)
        return total
