"""Vision transformers as in timm: ViT [dosovitskiy2020], DeiT [touvron2020], III [touvron2022]."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import heads_of
from roofcast.simulator.models.vision.parts import (
    activation,
    classify,
    dense,
    images,
    layer_norm,
    residual,
)
from roofcast.simulator.work.ops import attention, conv, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    width: int,
    depth: int,
    heads: int,
    patch: int,
    scaled: bool = False,
    class_placed: bool = True,
    classes: int = 1000,
) -> Value:
    """`scaled`: each branch has a learned scale; `class_placed`: the class token has a position."""
    x = patches(t, images(t, batch, size), width, patch)
    with t.op("pos_embed", "add"):
        first = t.view(t.parameter(1, 1, width), batch, 1, width)
        if class_placed:
            x = pointwise.concat(t, [first, x], 1)
            x = pointwise.add(t, x, t.parameter(1, x.shape[1], width))
        else:
            x = pointwise.add(t, x, t.parameter(1, x.shape[1], width))
            x = pointwise.concat(t, [first, x], 1)
    x = t.repeat("blocks", depth, lambda x: block(t, x, heads, 4 * width, scaled), x)
    x = layer_norm(t, "norm", x)
    return classify(t, t.view(x, batch, width), classes, name="head")


def patches(t: Tape, x: Value, width: int, patch: int, name: str = "patch_embed.proj") -> Value:
    """Images as tokens [B, tokens, width], one per patch of `patch` x `patch` pixels.

    Raises BadInput unless `patch` divides the side.
    """
    batch, _, side, _ = x.shape
    if side % patch:
        raise BadInput(
            f"{name} takes patches of {patch}x{patch}, but its input is {list(x.shape)}: use a side"
            f" divisible by {patch}"
        )
    with t.op(name, "conv"):
        x = conv.conv(t, x, width, patch, stride=patch)
        return t.view(x, batch, (side // patch) ** 2, width)


def block(t: Tape, x: Value, heads: int, hidden: int, scaled: bool = False) -> Value:
    """Attention and an MLP, each after a layer norm and with a residual."""
    h = self_attention(t, layer_norm(t, "norm1", x), heads)
    x = residual(t, x, layer_scale(t, "ls1", h) if scaled else h, "add1")
    h = mlp(t, layer_norm(t, "norm2", x), hidden)
    return residual(t, x, layer_scale(t, "ls2", h) if scaled else h, "add2")


def self_attention(t: Tape, x: Value, heads: int) -> Value:
    """Self-attention with one linear layer for queries, keys and values."""
    width = x.shape[-1]
    with t.scope("attn"):
        qkv = dense(t, "qkv", x, 3 * width)
        with t.op("attention", "attention"):
            q, k, v = (heads_of(t, qkv, heads, width // heads) for _ in range(3))
            h = scaled_attention(t, q, k, v)
        return dense(t, "proj", h, width)


def partly_biased(t: Tape, x: Value, name: str = "qkv") -> Value:
    """One linear layer for queries, keys and values, whose bias is concatenated in each step.

    Queries and values have a learned bias, keys zeros.
    """
    width = x.shape[-1]
    with t.op(f"{name}_bias", "concat"):
        of_queries, zeros = t.parameter(width), t.buffer(width, dtype=t.precision.weights)
        bias = pointwise.concat(t, [of_queries, zeros, t.parameter(width)], 0)
    with t.op(name, "linear"):
        out = linear.linear(t, x, 3 * width, bias=False)
        if out.grad:
            read, written = out.bytes, bias.bytes
            t.backward("reduce", vector=out.size, read=read, written=written, product=out.dtype)
    return out


def scaled_attention(t: Tape, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """Attention as in timm: where attention is eager, the queries are scaled before the product."""
    eager = t.implementation("attention", "flash") == "eager"
    if eager:
        q = pointwise.scale(t, q)
    return attention.attention(t, q, k, v, causal=False, bias=bias, scaled=not eager)


def mlp(t: Tape, x: Value, hidden: int, act: str = "gelu", name: str = "mlp") -> Value:
    """Two linear layers around an activation."""
    with t.scope(name):
        h = activation(t, "act", act, dense(t, "fc1", x, hidden), in_place=False)
        return dense(t, "fc2", h, x.shape[-1])


def layer_scale(t: Tape, name: str, x: Value) -> Value:
    """x times a learned scale per channel [touvron2021]."""
    with t.op(name, "mul"):
        return pointwise.mul(t, x, t.parameter(x.shape[-1]))
