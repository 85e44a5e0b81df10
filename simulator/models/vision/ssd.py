"""Single-shot detectors on residual nets, as trained by MLPerf and NVIDIA.

SSD300 [liu2016]: the first three stages of a ResNet, the third without stride; six feature maps of
38 to 1 positions a side, each with a 3x3 convolution for boxes and one for classes. RetinaNet
[lin2017]: a feature pyramid and two towers of four convolutions shared by its levels. Matching
boxes to objects and choosing hard negatives (sorting) is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision import rcnn
from roofcast.simulator.models.vision.parts import Output, activation, conv_norm, convolve, images
from roofcast.simulator.models.vision.resnet import features
from roofcast.simulator.work.ops import loss, pointwise
from roofcast.simulator.work.tape import Tape, Value

BOXES = (4, 6, 6, 6, 4, 4)  # default boxes per position of the six maps [liu2016, Section 3.1]


def build(t: Tape, batch: int, size: int, *, kind: str = "ssd", **sizes: Any) -> Output:
    """`kind` is "ssd" or "retina"; `sizes` are the further arguments of that function."""
    if kind == "ssd":
        return single_shot(t, batch, size, **sizes)
    return retina(t, batch, size, **sizes)


def single_shot(
    t: Tape,
    batch: int,
    size: int,
    block: str,
    depths: Sequence[int],
    widths: Sequence[int],
    normed: bool = True,
    classes: int = 81,
) -> Output:
    """SSD: the loss, or in inference boxes and class scores.

    `block` and `depths` are those of the ResNet, `widths` those of the maps after it, whose
    convolutions have batch norms (`normed`) or biases.
    """
    with t.scope("feature_extractor"):
        x = features(t, images(t, batch, size), block, depths, strides=(1, 2, 1))
    maps = [x]
    for index, (width, inner) in enumerate(zip(widths, (256, 256, 128, 128, 128), strict=True)):
        with t.scope(f"additional_blocks.{index}"):
            stride, padding = (2, 1) if index < 3 else (1, 0)
            x = additional(t, x, inner, width, stride, padding, normed)
        maps.append(x)
    boxes, scores = [], []
    for index, (x, count) in enumerate(zip(maps, BOXES, strict=True)):
        boxes.append(_flat(t, convolve(t, f"loc.{index}", x, 4 * count, 3, padding=1), 4))
        found = convolve(t, f"conf.{index}", x, classes * count, 3, padding=1)
        scores.append(_flat(t, found, classes))
    with t.op("cat", "concat"):
        places, kinds = pointwise.concat(t, boxes, 2), pointwise.concat(t, scores, 2)
    if not t.training:
        return places, kinds
    with t.op("loss", "cross_entropy"):
        rows = t.view(kinds, batch, kinds.shape[2], classes)
        total = loss.cross_entropy(t, rows, t.input(rows.shape[:2], "int64"))
        return pointwise.add(t, total, loss.pairwise(t, "smooth_l1", places, t.input(places.shape)))


def additional(
    t: Tape, x: Value, inner: int, width: int, stride: int, padding: int, normed: bool
) -> Value:
    """A 1x1 convolution to `inner` channels and a 3x3 one to `width`, the next feature map."""
    if normed:
        x = conv_norm(t, x, inner, 1, names=("0", "1", "2"))
        return conv_norm(t, x, width, 3, stride=stride, padding=padding, names=("3", "4", "5"))
    x = activation(t, "1", "relu", convolve(t, "0", x, inner, 1))
    x = convolve(t, "2", x, width, 3, stride=stride, padding=padding)
    return activation(t, "3", "relu", x)


def _flat(t: Tape, x: Value, numbers: int) -> Value:
    """x [B, boxes * numbers, H, W] viewed as [B, numbers, boxes * H * W]."""
    return t.view(x, x.shape[0], numbers, x.size // x.shape[0] // numbers)


def retina(
    t: Tape, batch: int, size: int, classes: int = 90, anchors: int = 6, depth: int = 4
) -> Output:
    """RetinaNet: ResNet-50 with frozen norms and a pyramid of five levels.

    The layout is that of TensorFlow's ssd_resnet50_v1_fpn. Raises BadInput unless 32 divides
    `size`.
    """
    if size % 32:
        raise BadInput(
            f"fpn adds scales of 1/32 and 1/16, but the input is [{batch}, 3, {size}, {size}]: use"
            " a side divisible by 32"
        )
    levels = rcnn.pyramid(t, rcnn.backbone(t, images(t, batch, size))[1:])
    with t.scope("fpn"):
        for index in (6, 7):
            levels.append(unit(t, f"p{index}", levels[-1], rcnn.FEATURES, stride=2))
    kinds = [
        tower(t, "class", levels, depth, anchors * (classes + 1)),
        tower(t, "box", levels, depth, 4 * anchors),
    ]
    if not t.training:
        return kinds
    with t.op("loss", "bce_with_logits"):
        scores, boxes = kinds
        total = loss.pairwise(t, "bce_with_logits", scores, t.new(scores.shape, "fp32"))
        return rcnn.added(t, total, "smooth_l1", [boxes])


def unit(
    t: Tape, name: str, x: Value, width: int, weight: Value | None = None, stride: int = 1
) -> Value:
    """A 3x3 convolution, frozen norm, relu6."""
    x = convolve(t, name, x, width, 3, stride=stride, padding=1, bias=False, weight=weight)
    return activation(t, f"{name}.act", "relu6", rcnn.frozen_norm(t, f"{name}.norm", x))


def tower(t: Tape, name: str, levels: list[Value], depth: int, outputs: int) -> Value:
    """`depth` convolutions and one to `outputs` channels, with weights shared by all levels.

    The results are concatenated: [B, outputs, positions of all levels].
    """
    width = rcnn.FEATURES
    with t.scope(name):
        with t.op("weights", "parameter"):
            weights = [t.parameter(width, width, 3, 3) for _ in range(depth)]
            last, bias = t.parameter(outputs, width, 3, 3), t.parameter(outputs)
        outs = []
        for level, x in enumerate(levels):
            for index, weight in enumerate(weights):
                x = unit(t, f"{index}.{level}", x, width, weight)
            x = convolve(t, f"predict.{level}", x, outputs, 3, padding=1, weight=last, bias=bias)
            outs.append(_flat(t, x, outputs))
        with t.op("cat", "concat"):
            return pointwise.concat(t, outs, 2)
