"""Faster R-CNN [ren2015] and Mask R-CNN [he2017mask] on ResNet-50 with a feature pyramid [lin2016],
as torchvision lays them out.

Batch norms are frozen: a scale and a shift. Every picture brings `proposals` boxes to the second
stage, and a quarter of them, those with an object, to the masks; choosing them (sorting,
suppressing overlaps, matching objects) is not counted.
"""

from __future__ import annotations

from functools import partial

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
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
SIDE = 7  # cells across a box
MASK_SIDE = 14  # across a box whose mask is wanted
POSITIVE = 4  # one of so many proposals has an object [girshick2015]


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
):
    """`frozen` parts of the backbone, counted from the stem, are not trained."""
    if size % 32:
        raise BadInput(
            f"backbone.fpn adds scales of 1/32 and 1/16, but [{batch}, 3, {size}, {size}] arrives:"
            " take a side divisible by 32"
        )
    with t.scope("backbone"):
        levels = pyramid(t, backbone(t, images(t, batch, size), frozen))
        levels.append(max_pool(t, "fpn.pool", levels[-1], 1, stride=2))
    with t.scope("rpn"):
        scores, moves = propose(t, levels, anchors)
    with t.scope("roi_heads"):
        with t.op("box_roi_pool", "roi_align"):
            boxes = t.new((batch * proposals, 5), "fp32")
            x = region.roi_align(t, levels[:4], boxes, SIDE)
        x = t.view(x, batch * proposals, FEATURES * SIDE * SIDE)
        x = activation(t, "fc6.relu", "relu", dense(t, "box_head.fc6", x, 1024), in_place=False)
        x = activation(t, "fc7.relu", "relu", dense(t, "box_head.fc7", x, 1024), in_place=False)
        kinds, refined = (
            dense(t, "box_predictor.cls_score", x, classes),
            dense(t, "box_predictor.bbox_pred", x, 4 * classes),
        )
        drawn = outline(t, levels, batch * proposals // POSITIVE, classes) if masks else None
    if not t.training:
        return kinds, refined
    with t.op("loss", "cross_entropy"):
        total = loss.cross_entropy(t, kinds, t.new((batch * proposals,), "int64"))
        for what, values in (
            ("smooth_l1", [refined]),
            ("bce_with_logits", scores),
            ("smooth_l1", moves),
        ):
            for value in values:
                total = pointwise.add(
                    t, total, loss.pairwise(t, what, value, t.new(value.shape, "fp32"))
                )
        if drawn is not None:  # of its class alone
            own = pointwise.copy(t, drawn, drawn.shape[0], *drawn.shape[2:])
            total = pointwise.add(
                t, total, loss.pairwise(t, "bce_with_logits", own, t.new(own.shape, "fp32"))
            )
        return total


def outline(t: Tape, levels: list[Value], boxes: int, classes: int) -> Value:
    """Masks of 28 x 28, one a class: four convolutions on the boxes, a transposed one [he2017mask,
    Figure 4].
    """
    with t.op("mask_roi_pool", "roi_align"):
        x = region.roi_align(t, levels[:4], t.new((boxes, 5), "fp32"), MASK_SIDE)
    for index in range(4):
        x = activation(
            t,
            f"mask_head.{index}.relu",
            "relu",
            convolve(t, f"mask_head.{index}", x, FEATURES, 3, padding=1),
        )
    with t.op("mask_predictor.conv5_mask", "conv_transpose"):
        x = conv.conv_transpose(t, x, FEATURES, 2, stride=2)
    x = activation(t, "mask_predictor.relu", "relu", x)
    return convolve(t, "mask_predictor.mask_fcn_logits", x, classes, 1)


def frozen_norm(t: Tape, name: str, x: Value) -> Value:
    """x * scale + shift with constants of the model."""
    with t.op(name, "batch_norm"):
        constant = (1, x.shape[1], 1, 1)
        return pointwise.add(
            t,
            pointwise.mul(t, x, t.buffer(*constant, dtype=x.dtype)),
            t.buffer(*constant, dtype=x.dtype),
        )


def _unit(t, x, width, kernel, conv_name, norm_name, act=True, fixed=False, **how):
    if fixed:
        with t.op(conv_name, "conv"):
            how["weight"] = t.parameter(width, x.shape[1], kernel, kernel, trainable=False)
    x = frozen_norm(t, norm_name, convolve(t, conv_name, x, width, kernel, bias=False, **how))
    return activation(t, f"{norm_name}.relu", "relu", x) if act else x


def bottleneck(t: Tape, x: Value, inner: int, stride: int = 1, fixed: bool = False) -> Value:
    """ResNet's block over frozen norms; `fixed`: its weights too."""
    h = _unit(t, x, inner, 1, "conv1", "bn1", fixed=fixed)
    h = _unit(t, h, inner, 3, "conv2", "bn2", stride=stride, padding=1, fixed=fixed)
    h = _unit(t, h, 4 * inner, 1, "conv3", "bn3", act=False, fixed=fixed)
    if stride > 1 or x.shape[1] != 4 * inner:
        x = _unit(
            t,
            x,
            4 * inner,
            1,
            "downsample.0",
            "downsample.1",
            act=False,
            stride=stride,
            fixed=fixed,
        )
    return activation(t, "relu", "relu", residual(t, h, x))


def backbone(t: Tape, x: Value, frozen: int = 0) -> list[Value]:
    """ResNet-50 without its classifier: what its four stages hand on. The stem and the stages up to
    `frozen` - 1 are not trained.
    """
    outs = []
    with t.scope("body"):
        x = _unit(t, x, 64, 7, "conv1", "bn1", stride=2, padding=3, fixed=frozen > 0)
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
    """The top-down path: every level gets what is above it, enlarged."""
    levels, above = [], None
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
    """One small head on all levels: is there an object, and where."""
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
        scores.append(
            convolve(t, f"head.cls_logits.{index}", h, anchors, 1, weight=w_cls, bias=b_cls)
        )
        moves.append(
            convolve(t, f"head.bbox_pred.{index}", h, 4 * anchors, 1, weight=w_box, bias=b_box)
        )
    return scores, moves
