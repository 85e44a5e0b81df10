"""Single-shot detectors on residual nets, as MLPerf and NVIDIA train them.

SSD300 [liu2016]: the first three stages of a ResNet, the third one not strided, six feature maps of
38 to 1 cells, a 3x3 convolution on each for boxes and one for classes. RetinaNet [lin2017]: a
feature pyramid, two towers of four convolutions shared by its levels. Matching boxes with objects
and choosing hard negatives (sorting) is not counted.
"""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision import rcnn
from roofcast.simulator.models.vision.parts import activation, conv_norm, convolve, images
from roofcast.simulator.models.vision.resnet import features
from roofcast.simulator.work.ops import loss, pointwise
from roofcast.simulator.work.tape import Tape, Value

BOXES = (4, 6, 6, 6, 4, 4)  # default boxes a cell of the six maps [liu2016, Section 3.1]


def build(t: Tape, batch: int, size: int, *, kind: str = "ssd", **sizes):
    """`kind` ssd or retina."""
    return (single_shot if kind == "ssd" else retina)(t, batch, size, **sizes)


def single_shot(
    t: Tape,
    batch: int,
    size: int,
    block: str,
    depths,
    widths,
    normed: bool = True,
    classes: int = 81,
):
    """`widths` of the maps behind the ResNet's; their convolutions with batch norms (`normed`) or
    with biases.
    """
    with t.scope("feature_extractor"):
        x = features(t, images(t, batch, size), block, depths, strides=(1, 2, 1))
    maps = [x]
    for index, (width, inner) in enumerate(zip(widths, (256, 256, 128, 128, 128), strict=True)):
        stride, padding = (2, 1) if index < 3 else (1, 0)
        with t.scope(f"additional_blocks.{index}"):
            if normed:
                x = conv_norm(t, x, inner, 1, names=("0", "1", "2"))
                x = conv_norm(t, x, width, 3, stride=stride, padding=padding, names=("3", "4", "5"))
            else:
                x = activation(t, "1", "relu", convolve(t, "0", x, inner, 1))
                x = activation(
                    t, "3", "relu", convolve(t, "2", x, width, 3, stride=stride, padding=padding)
                )
        maps.append(x)
    places, kinds = [], []
    for index, (x, boxes) in enumerate(zip(maps, BOXES, strict=True)):
        places.append(_flat(t, convolve(t, f"loc.{index}", x, 4 * boxes, 3, padding=1), 4))
        kinds.append(
            _flat(t, convolve(t, f"conf.{index}", x, classes * boxes, 3, padding=1), classes)
        )
    with t.op("cat", "concat"):
        places, kinds = pointwise.concat(t, places, 2), pointwise.concat(t, kinds, 2)
    if not t.training:
        return places, kinds
    with t.op("loss", "cross_entropy"):
        count = kinds.shape[2]
        total = loss.cross_entropy(
            t, t.view(kinds, batch, count, classes), t.input((batch, count), "int64")
        )
        return pointwise.add(t, total, loss.pairwise(t, "smooth_l1", places, t.input(places.shape)))


def _flat(t: Tape, x: Value, numbers: int) -> Value:
    """[B, boxes * numbers, H, W] seen as [B, numbers, boxes * H * W]."""
    return t.view(x, x.shape[0], numbers, x.size // x.shape[0] // numbers)


def retina(t: Tape, batch: int, size: int, classes: int = 90, anchors: int = 6, depth: int = 4):
    """ResNet-50 under a pyramid of five levels, norms frozen, as TensorFlow's ssd_resnet50_v1_fpn
    lays it out.
    """
    if size % 32:
        raise BadInput(
            f"fpn adds scales of 1/32 and 1/16, but [{batch}, 3, {size}, {size}] arrives: take a"
            " side divisible by 32"
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
        total = loss.pairwise(t, "bce_with_logits", kinds[0], t.new(kinds[0].shape, "fp32"))
        return pointwise.add(
            t, total, loss.pairwise(t, "smooth_l1", kinds[1], t.new(kinds[1].shape, "fp32"))
        )


def unit(
    t: Tape, name: str, x: Value, width: int, weight: Value | None = None, stride: int = 1
) -> Value:
    """3x3 convolution, frozen norm, relu6."""
    x = convolve(t, name, x, width, 3, stride=stride, padding=1, bias=False, weight=weight)
    return activation(t, f"{name}.act", "relu6", rcnn.frozen_norm(t, f"{name}.norm", x))


def tower(t: Tape, name: str, levels: list[Value], depth: int, outputs: int) -> Value:
    """`depth` convolutions and one to `outputs`, the same weights on all levels; the results side
    by side.
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
            outs.append(
                _flat(
                    t,
                    convolve(
                        t, f"predict.{level}", x, outputs, 3, padding=1, weight=last, bias=bias
                    ),
                    outputs,
                )
            )
        with t.op("cat", "concat"):
            return pointwise.concat(t, outs, 2)
