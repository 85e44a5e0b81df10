"""BEiT: a vision transformer with a learned bias per relative position [bao2021]."""

from __future__ import annotations

from functools import partial

from roofcast.simulator.models.families.transformer import heads_of
from roofcast.simulator.models.vision.parts import classify, dense, images, layer_norm, residual
from roofcast.simulator.models.vision.vit import (
    layer_scale,
    mlp,
    partly_biased,
    patches,
    scaled_attention,
)
from roofcast.simulator.models.vision.windows import relative_bias
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    width: int,
    depth: int,
    heads: int,
    patch: int = 16,
    classes: int = 1000,
) -> Value:
    """One step on `batch` images of `size` x `size` pixels: the loss, or the logits."""
    x = patches(t, images(t, batch, size), width, patch)
    with t.op("cls_token", "concat"):
        x = pointwise.concat(t, [t.view(t.parameter(1, 1, width), batch, 1, width), x], 1)
    side = size // patch
    x = t.repeat("blocks", depth, partial(block, t, heads=heads, side=side), x)
    with t.op("pool", "mean"):
        x = pointwise.mean(t, t.view(x, batch, side * side, width), 1, keepdim=False)
    return classify(t, layer_norm(t, "fc_norm", x), classes, name="head")


def block(t: Tape, x: Value, heads: int, side: int) -> Value:
    """Attention with biases by relative position and MLP, each scaled and with a residual."""
    h = biased_attention(t, layer_norm(t, "norm1", x), heads, side)
    x = residual(t, x, layer_scale(t, "gamma_1", h), "add1")
    h = mlp(t, layer_norm(t, "norm2", x), 4 * x.shape[-1])
    return residual(t, x, layer_scale(t, "gamma_2", h), "add2")


def biased_attention(t: Tape, x: Value, heads: int, side: int) -> Value:
    """Self-attention with biases on queries and values, and on scores by relative position."""
    _, length, width = x.shape
    with t.scope("attn"):
        qkv = partly_biased(t, x)
        q, k, v = (heads_of(t, qkv, heads, width // heads) for _ in range(3))
        table = relative_bias(t, length, (2 * side - 1) ** 2 + 3, q.shape[1])
        with t.op("attention", "attention"):
            h = scaled_attention(t, q, k, v, bias=table)
        return dense(t, "proj", h, width)
