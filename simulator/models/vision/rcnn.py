"""Faster R-CNN [ren2015] and Mask R-CNN [he2017mask] on ResNet-50 with an FPN [lin2016].

The layout is torchvision's, with frozen batch norms: a scale and a shift. Every image gives
`proposals` boxes to the second stage, and a quarter of them, those with an object, to the masks.
Choosing the boxes (sorting, suppressing overlaps, matching objects) is not counted.
"""

from __future__ import annotations

from functools import partial

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    Output,
    activation,
    convolve,
    dense,
    images,
    max_pool,
    numbered,
    residual,
)
from roofcast.simulator.work.ops import conv, loss, pointwise, region
from roofcast.simulator.work.tape import Tape, Value

FEATURES = 256  # channels of the pyramid
SIDE = 7  # positions across a box
MASK_SIDE = 14  # positions across a box for its mask
POSITIVE = 4  # one in four proposals has an object [girshick2015]


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    classes: int = 91,
    proposals: int = 512,
    anchors: int = 3,
    masks: bool = False,
    frozen: int = 0,
) -> Output:
    """The loss, or in inference class scores and boxes.

    The first `frozen` parts of the backbone (stem, then stages) are not trained. Raises BadInput
    unless 32 divides `size`.
    """
    if size % 32:
        raise BadInput(
            f"backbone.fpn adds scales of 1/32 and 1/16, but the input is [{batch}, 3, {size},"
            f" {size}]: use a side divisible by 32"
        )
    with t.scope("backbone"):
        levels = pyramid(t, backbone(t, images(t, batch, size), frozen))
        levels.append(max_pool(t, "fpn.pool", levels[-1], 1, stride=2))
    with t.scope("rpn"):
        scores, moves = propose(t, levels, anchors)
    count = batch * proposals
    with t.scope("roi_heads"):
        kinds, refined = box_head(t, levels, count, classes)
        drawn = outline(t, levels, count // POSITIVE, classes) if masks else None
    if not t.training:
        return kinds, refined
    with t.op("loss", "cross_entropy"):
        total = loss.cross_entropy(t, kinds, t.new((count,), "int64"))
        total = added(t, total, "smooth_l1", [refined])
        total = added(t, total, "bce_with_logits", scores)
        total = added(t, total, "smooth_l1", moves)
        if drawn is not None:  # only the mask of the box's own class
            own = pointwise.copy(t, drawn, drawn.shape[0], *drawn.shape[2:])
            total = added(t, total, "bce_with_logits", [own])
        return total


def added(t: Tape, total: Value, kind: str, values: list[Value]) -> Value:
    """`total` plus an elementwise loss of each value."""
    for value in values:
        term = loss.pairwise(t, kind, value, t.new(value.shape, "fp32"))
        total = pointwise.add(t, total, term)
    return total


def box_head(t: Tape, levels: list[Value], count: int, classes: int) -> tuple[Value, Value]:
    """Class scores [count, classes] and boxes [count, 4 classes] of `count` proposals."""
    with t.op("box_roi_pool", "roi_align"):
        x = region.roi_align(t, levels[:4], t.new((count, 5), "fp32"), SIDE)
    x = t.view(x, count, FEATURES * SIDE * SIDE)
    x = activation(t, "fc6.relu", "relu", dense(t, "box_head.fc6", x, 1024), in_place=False)
    x = activation(t, "fc7.relu", "relu", dense(t, "box_head.fc7", x, 1024), in_place=False)
    scores = dense(t, "box_predictor.cls_score", x, classes)
    return scores, dense(t, "box_predictor.bbox_pred", x, 4 * classes)


def outline(t: Tape, levels: list[Value], boxes: int, classes: int) -> Value:
    """Masks of 28 x 28 per class: four convolutions, a transposed one [he2017mask, Figure 4]."""
    with t.op("mask_roi_pool", "roi_align"):
        x = region.roi_align(t, levels[:4], t.new((boxes, 5), "fp32"), MASK_SIDE)
    for index in range(4):
        x = convolve(t, f"mask_head.{index}", x, FEATURES, 3, padding=1)
        x = activation(t, f"mask_head.{index}.relu", "relu", x)
    with t.op("mask_predictor.conv5_mask", "conv_transpose"):
        x = conv.conv_transpose(t, x, FEATURES, 2, stride=2)
    x = activation(t, "mask_predictor.relu", "relu", x)
    return convolve(t, "mask_predictor.mask_fcn_logits", x, classes, 1)


def frozen_norm(t: Tape, name: str, x: Value) -> Value:
    """Frozen batch norm: x * scale + shift, with constants of the model."""
    with t.op(name, "batch_norm"):
        constant = (1, x.shape[1], 1, 1)
        scaled = pointwise.mul(t, x, t.buffer(*constant, dtype=x.dtype))
        return pointwise.add(t, scaled, t.buffer(*constant, dtype=x.dtype))


def _unit(
    t: Tape,
    x: Value,
    width: int,
    kernel: int,
    names: tuple[str, str],
    *,
    act: bool = True,
    fixed: bool = False,
    stride: int = 1,
    padding: int = 0,
) -> Value:
    """Convolution, frozen norm and relu (if `act`); `fixed`: the weight is not trained."""
    weight = None
    if fixed:
        with t.op(names[0], "conv"):
            weight = t.parameter(width, x.shape[1], kernel, kernel, trainable=False)
    x = convolve(
        t, names[0], x, width, kernel, bias=False, stride=stride, padding=padding, weight=weight
    )
    x = frozen_norm(t, names[1], x)
    return activation(t, f"{names[1]}.relu", "relu", x) if act else x


def bottleneck(t: Tape, x: Value, inner: int, stride: int = 1, fixed: bool = False) -> Value:
    """A bottleneck block with frozen norms; `fixed`: its weights are not trained either."""
    h = _unit(t, x, inner, 1, ("conv1", "bn1"), fixed=fixed)
    h = _unit(t, h, inner, 3, ("conv2", "bn2"), stride=stride, padding=1, fixed=fixed)
    h = _unit(t, h, 4 * inner, 1, ("conv3", "bn3"), act=False, fixed=fixed)
    if stride > 1 or x.shape[1] != 4 * inner:
        names = ("downsample.0", "downsample.1")
        x = _unit(t, x, 4 * inner, 1, names, act=False, stride=stride, fixed=fixed)
    return activation(t, "relu", "relu", residual(t, h, x))


def backbone(t: Tape, x: Value, frozen: int = 0) -> list[Value]:
    """ResNet-50 without its classifier: the outputs of its four stages.

    The stem is not trained if `frozen` > 0, and stage i (from 1) not if i < `frozen`.
    """
    outs = []
    with t.scope("body"):
        x = _unit(t, x, 64, 7, ("conv1", "bn1"), stride=2, padding=3, fixed=frozen > 0)
        x = max_pool(t, "maxpool", x, 3, stride=2, padding=1)
        for stage, (inner, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            body = partial(bottleneck, t, inner=inner, fixed=stage < frozen)
            with t.scope(f"layer{stage}"):
                with t.scope("0"):
                    x = body(x, stride=1 if stage == 1 else 2)
                x = t.repeat(numbered(1, depth - 1), depth - 1, body, x)
            outs.append(x)
    return outs


def pyramid(t: Tape, stages: list[Value]) -> list[Value]:
    """The top-down path: each level is added to the enlarged level above it."""
    levels: list[Value] = []
    above: Value | None = None
    with t.scope("fpn"):
        for index, x in reversed(list(enumerate(stages))):
            inner = convolve(t, f"inner_blocks.{index}", x, FEATURES, 1)
            if above is not None:
                with t.op(f"upsample.{index}", "interpolate"):
                    above = conv.resize(t, above, inner.shape[-1])
                inner = residual(t, inner, above, f"add.{index}")
            above = inner
            levels.insert(0, convolve(t, f"layer_blocks.{index}", inner, FEATURES, 3, padding=1))
    return levels


def propose(t: Tape, levels: list[Value], anchors: int) -> tuple[list[Value], list[Value]]:
    """Region proposals, one head on all levels: object scores and box offsets per level."""
    with t.op("weights", "parameter"):
        made = [
            (t.parameter(n, FEATURES, k, k), t.parameter(n))
            for n, k in ((FEATURES, 3), (anchors, 1), (4 * anchors, 1))
        ]
    scores, moves = [], []
    for index, x in enumerate(levels):
        (w, b), (w_cls, b_cls), (w_box, b_box) = made
        h = convolve(t, f"head.conv.{index}", x, FEATURES, 3, padding=1, weight=w, bias=b)
        h = activation(t, f"head.relu.{index}", "relu", h)
        name = f"head.cls_logits.{index}"
        scores.append(convolve(t, name, h, anchors, 1, weight=w_cls, bias=b_cls))
        name = f"head.bbox_pred.{index}"
        moves.append(convolve(t, name, h, 4 * anchors, 1, weight=w_box, bias=b_box))
    return scores, moves
