"""YOLO v3: Darknet-53, predictions at three scales, three boxes per cell [redmon2018].

The loss is a squared error over all predictions; matching boxes to objects is not counted.
"""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.darknet import features, unit
from roofcast.simulator.models.vision.parts import Output, convolve, images
from roofcast.simulator.work.ops import conv, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(t: Tape, batch: int, size: int, *, classes: int = 80, boxes: int = 3) -> Output:
    """One step on `batch` images of `size` x `size` pixels: the loss, or all predictions.

    Raises BadInput unless 32 divides `size`.
    """
    if size % 32:
        raise BadInput(
            f"head.1.cat joins scales of 1/16 and twice 1/32, but the input is [{batch}, 3, {size},"
            f" {size}]: use a side divisible by 32"
        )
    with t.scope("backbone"):
        scales = features(t, images(t, batch, size))[:-4:-1]
    x: Value | None = None
    outs: list[Value] = []
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
    """Five convolutions, alternately 1x1 and 3x3, and from their result the predictions."""
    for index, factor in enumerate((1, 2, 1, 2, 1)):
        x = unit(t, str(index), x, factor * width, 3 if factor == 2 else 1)
    return x, convolve(t, "predict", unit(t, "5", x, 2 * width, 3), predicted, 1)


def detection_loss(t: Tape, outs: list[Value]) -> Output:
    """The sum of the squared errors of all scales; in inference the predictions."""
    if not t.training:
        return outs
    with t.op("loss", "mse"):
        parts = [loss.pairwise(t, "mse", out, t.input(out.shape)) for out in outs]
        total = parts[0]
        for part in parts[1:]:
            total = pointwise.add(t, total, part)
        return total
