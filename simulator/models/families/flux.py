"""Flux.1: FluxTransformer2DModel of diffusers. Blocks with layers of their own for text and image,
then blocks that run both through the same layers, attention beside the MLP.

Two by two latents are packed into a token.
"""

from __future__ import annotations

from typing import Any

import msgspec

from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import (
    gated_residual,
    modulated,
    modulation,
    plain_norm,
)
from roofcast.simulator.models.families.mmdit import ADDED, QKV, sliced, time_and_text
from roofcast.simulator.models.families.transformer import projections
from roofcast.simulator.models.vision.parts import activation, dense
from roofcast.simulator.work.ops import attention, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

TEXT = 512  # tokens of T5
PACKED = 2  # latents along a side of a token

Tables = tuple[Value, Value]  # cos and sin of rotary embeddings


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' FluxTransformer2DModel, with its defaults."""

    patch_size: int = 1
    in_channels: int = 64
    out_channels: int | None = None
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        if sum(self.axes_dims_rope) != self.attention_head_dim:
            raise ValueError(
                f"axes_dims_rope add up to {sum(self.axes_dims_rope)}, not to attention_head_dim"
                f" ({self.attention_head_dim})"
            )

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return 1024

    @property
    def width(self) -> int:
        """Width of the residual streams."""
        return self.num_attention_heads * self.attention_head_dim


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` images of side `size`: the loss, or the prediction."""
    tokens = (diffusion.latent_side(t, size, PACKED, TEXT) // PACKED) ** 2
    x = dense(t, "x_embedder", t.input((batch, tokens, c.in_channels)), c.width)
    e = time_and_text(t, batch, c.width, c.pooled_projection_dim, guided=c.guidance_embeds)
    text = diffusion.passed(t, "text", batch, TEXT, c.joint_attention_dim)
    y = dense(t, "context_embedder", text, c.width)
    tables = places(t, TEXT + tokens, c.attention_head_dim)
    counts = {"transformer_blocks": c.num_layers, "single_transformer_blocks": c.num_single_layers}
    for (name, count), block in zip(counts.items(), (double, single), strict=True):

        def body(x: Value, y: Value, block: Any = block) -> tuple[Value, Value]:
            with t.checkpoint(x, y, e, *tables):
                return block(t, c, x, y, e, tables)

        x, y = t.repeat(name, count, body, x, y)
    scale, shift = modulation(t, "norm_out", e, c.width, 2)
    x = modulated(t, "norm_out.modulate", plain_norm(t, "norm_out.norm", x), scale, shift)
    x = dense(t, "proj_out", x, c.patch_size**2 * (c.out_channels or c.in_channels))
    return diffusion.square_error(t, x)


def places(t: Tape, tokens: int, dim: int) -> Tables:
    """cos and sin [tokens, dim] of the tokens' places, in fp32."""
    with t.op("pos_embed", "rotary"):
        tables = t.new((tokens, dim), "fp32"), t.new((tokens, dim), "fp32")
        for table in tables:
            t.emit("elementwise", (), (table,), special=table.size)
        return tables


def rotated(t: Tape, x: Value, tables: Tables) -> Value:
    """x cos + x' sin in fp32, for x [batch, heads, tokens, dim] and x' its pairs turned."""
    cos, sin = tables
    half = (*x.shape[:-1], x.shape[-1] // 2)
    with t.op("rotary", "rotary"):
        negated = pointwise.unary(t, "neg", t.view(x, *half))
        turned = pointwise.concat(t, [negated, t.view(x, *half)], -1)
        first = pointwise.mul(t, t.cast(x, "fp32"), cos)
        second = pointwise.mul(t, t.cast(turned, "fp32"), sin)
        return t.cast(pointwise.add(t, first, second), x.dtype)


def of_heads(t: Tape, c: Config, x: Value, names: tuple[str, ...], norms: str) -> list[Value]:
    """Queries, keys and values [batch, heads, tokens, width of a head], the first two normed."""
    counts = dict.fromkeys(names, c.num_attention_heads)
    q, k, v = projections(t, x, counts, c.attention_head_dim)
    with t.op(f"{norms}_q", "rms_norm"):
        q = norm.rms_norm(t, q, flavor="torch")
    with t.op(f"{norms}_k", "rms_norm"):
        k = norm.rms_norm(t, k, flavor="torch")
    return [q, k, v]


def attend(t: Tape, parts: list[Value], tables: Tables) -> Value:
    """Attention [batch, tokens, width] after the rotation of queries and keys."""
    q, k, v = rotated(t, parts[0], tables), rotated(t, parts[1], tables), parts[2]
    with t.op("attention", "attention"):
        return attention.attention(t, q, k, v, causal=False)


def double(t: Tape, c: Config, x: Value, y: Value, e: Value, tables: Tables) -> tuple[Value, Value]:
    """A block with layers of its own for image tokens x and for text tokens y."""
    of_image = modulation(t, "norm1", e, c.width, 6)
    h = plain_norm(t, "norm1.norm", x)
    h = modulated(t, "norm1.modulate", h, of_image[1], of_image[0])
    of_text = modulation(t, "norm1_context", e, c.width, 6)
    g = plain_norm(t, "norm1_context.norm", y)
    g = modulated(t, "norm1_context.modulate", g, of_text[1], of_text[0])
    with t.scope("attn"):
        image, text = of_heads(t, c, h, QKV, "norm"), of_heads(t, c, g, ADDED, "norm_added")
        with t.op("cat", "concat"):
            both = [pointwise.concat(t, [b, a], 2) for a, b in zip(image, text, strict=True)]
        out = attend(t, both, tables)
        h = dense(t, "to_out.0", sliced(t, "to_out.slice", out, x), c.width)
        g = dense(t, "to_add_out", sliced(t, "to_add_out.slice", out, y), c.width)
    x = updated(t, "", x, h, of_image)
    return x, updated(t, "_context", y, g, of_text)


def updated(t: Tape, suffix: str, x: Value, h: Value, parts: list[Value]) -> Value:
    """x plus the attention's result h, then plus the MLP's, each through its gate."""
    _, _, gate, shift, scale, gate_mlp = parts
    x = gated_residual(t, f"gate{suffix}", x, h, gate)
    h = plain_norm(t, f"norm2{suffix}", x)
    h = modulated(t, f"norm2{suffix}.modulate", h, scale, shift)
    h = diffusion.mlp(t, f"ff{suffix}", h, 4 * x.shape[-1])
    return gated_residual(t, f"gate_mlp{suffix}", x, h, gate_mlp)


def single(t: Tape, c: Config, x: Value, y: Value, e: Value, tables: Tables) -> tuple[Value, Value]:
    """A block with the same layers for both; the MLP runs beside the attention."""
    with t.op("cat", "concat"):
        both = pointwise.concat(t, [y, x], 1)
    shift, scale, gate = modulation(t, "norm", e, c.width, 3)
    h = modulated(t, "norm.modulate", plain_norm(t, "norm.norm", both), scale, shift)
    m = dense(t, "proj_mlp", h, 4 * c.width)
    m = activation(t, "act_mlp", "gelu_tanh", m, in_place=False)
    with t.scope("attn"):
        h = attend(t, of_heads(t, c, h, QKV, "norm"), tables)
    with t.op("cat_mlp", "concat"):
        h = pointwise.concat(t, [h, m], 2)
    both = gated_residual(t, "gate", both, dense(t, "proj_out", h, c.width), gate)
    return t.view(both, *x.shape), t.view(both, *y.shape)
