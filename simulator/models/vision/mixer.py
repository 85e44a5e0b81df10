"""MLP-Mixer: an MLP across tokens, then one across channels [tolstikhin2021]."""

from __future__ import annotations

from functools import partial

from roofcast.simulator.models.vision.parts import (
    activation,
    classify,
    dense,
    images,
    layer_norm,
    residual,
)
from roofcast.simulator.models.vision.vit import mlp, patches
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape, batch: int, size: int, *, width: int, depth: int, patch: int, classes: int = 1000
) -> Value:
    """One step on `batch` images of `size` x `size` pixels: the loss, or the logits."""
    x = patches(t, images(t, batch, size), width, patch, name="stem.proj")
    x = layer_norm(t, "norm", t.repeat("blocks", depth, partial(block, t), x))
    with t.op("pool", "mean"):
        x = pointwise.mean(t, x, 1, keepdim=False)
    return classify(t, x, classes, name="head")


def block(t: Tape, x: Value) -> Value:
    """One block on x [batch, tokens, width]: an MLP across tokens, one across channels."""
    batch, tokens, width = x.shape
    h = layer_norm(t, "norm1", x)
    with t.scope("mlp_tokens"):
        with t.op(
            "transpose", "copy"
        ):  # the product across tokens needs them as the last dimension
            h = pointwise.copy(t, t.low(h), batch, width, tokens)
        h = activation(t, "act", "gelu", dense(t, "fc1", h, width // 2), in_place=False)
        h = dense(t, "fc2", h, tokens)
    x = residual(t, x, t.view(h, batch, tokens, width), "add1")
    return residual(t, x, mlp(t, layer_norm(t, "norm2", x), 4 * width, name="mlp_channels"), "add2")
