"""Vision transformers as timm writes them: ViT [dosovitskiy2020], DeiT [touvron2020] and DeiT III
[touvron2022].
"""

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
):
    """`scaled`: a learned scale after each branch. `class_placed`: the class token has a position
    too.
    """
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
    """The picture cut into squares, each a token [B, tokens, width]."""
    batch, _, side, _ = x.shape
    if side % patch:
        raise BadInput(
            f"{name} cuts squares of {patch}x{patch}, but {list(x.shape)} arrives: a side divisible"
            f" by {patch} is wanted"
        )
    with t.op(name, "conv"):
        return t.view(
            conv.conv(t, x, width, patch, stride=patch), batch, (side // patch) ** 2, width
        )


def block(t: Tape, x: Value, heads: int, hidden: int, scaled: bool = False) -> Value:
    """Attention and an MLP, each behind a layer norm and beside a shortcut."""
    h = self_attention(t, layer_norm(t, "norm1", x), heads)
    x = residual(t, x, layer_scale(t, "ls1", h) if scaled else h, "add1")
    h = mlp(t, layer_norm(t, "norm2", x), hidden)
    return residual(t, x, layer_scale(t, "ls2", h) if scaled else h, "add2")


def self_attention(t: Tape, x: Value, heads: int, *, bias: bool = True) -> Value:
    """Queries, keys and values of one linear layer, attention, projection."""
    width = x.shape[-1]
    with t.scope("attn"):
        qkv = dense(t, "qkv", x, 3 * width, bias=bias)
        with t.op("attention", "attention"):
            q, k, v = (heads_of(t, qkv, heads, width // heads) for _ in range(3))
            h = scaled_attention(t, q, k, v)
        return dense(t, "proj", h, width)


def partly_biased(t: Tape, x: Value, name: str = "qkv") -> Value:
    """Queries, keys and values of one linear layer whose bias is put together each step: learned,
    nothing for keys, learned.
    """
    width = x.shape[-1]
    with t.op(f"{name}_bias", "concat"):
        bias = pointwise.concat(
            t,
            [t.parameter(width), t.buffer(width, dtype=t.precision.weights), t.parameter(width)],
            0,
        )
    with t.op(name, "linear"):
        out = linear.linear(t, x, 3 * width, bias=False)
        if out.grad:
            t.backward(
                "reduce", vector=out.size, read=out.bytes, written=bias.bytes, product=out.dtype
            )
    return out


def scaled_attention(t: Tape, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """Attention as timm calls it: where the scores are written out, the queries are scaled before
    the product.
    """
    eager = t.implementation("attention", "flash") == "eager"
    if eager:
        q = pointwise.scale(t, q)
    return attention.attention(t, q, k, v, causal=False, bias=bias, scaled=not eager)


def mlp(t: Tape, x: Value, hidden: int, act: str = "gelu", name: str = "mlp") -> Value:
    """Two dense layers around an activation."""
    with t.scope(name):
        h = activation(t, "act", act, dense(t, "fc1", x, hidden), in_place=False)
        return dense(t, "fc2", h, x.shape[-1])


def layer_scale(t: Tape, name: str, x: Value) -> Value:
    """x times a learned number a channel [touvron2021]."""
    with t.op(name, "mul"):
        return pointwise.mul(t, x, t.parameter(x.shape[-1]))
