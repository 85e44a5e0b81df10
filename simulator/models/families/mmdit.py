"""Stable Diffusion 3 and 3.5: multimodal diffusion transformers [esser2024], SD3Transformer2DModel
of diffusers. Text and image have layers of their own and attend to each other.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import (
    gated_residual,
    modulated,
    modulation,
    plain_norm,
)
from roofcast.simulator.models.families.transformer import projections
from roofcast.simulator.models.vision.parts import dense, residual
from roofcast.simulator.models.vision.vit import patches
from roofcast.simulator.work.ops import attention, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

TEXT = 333  # tokens: 77 of the two CLIP encoders, 256 of T5
QKV = ("to_q", "to_k", "to_v")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' SD3Transformer2DModel, with its defaults."""

    sample_size: int = 128
    patch_size: int = 2
    in_channels: int = 16
    out_channels: int | None = 16
    num_layers: int = 18
    attention_head_dim: int = 64
    num_attention_heads: int = 18
    joint_attention_dim: int = 4096
    caption_projection_dim: int = 1152
    pooled_projection_dim: int = 2048
    pos_embed_max_size: int = 96
    dual_attention_layers: tuple[int, ...] = ()
    qk_norm: str | None = None

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        if self.qk_norm not in (None, "rms_norm"):
            raise ValueError(f"qk_norm {self.qk_norm[:40]!r} is not modeled; known: 'rms_norm'")
        if self.caption_projection_dim != self.width:
            raise ValueError(
                f"caption_projection_dim ({self.caption_projection_dim}) must be"
                f" num_attention_heads x attention_head_dim ({self.width})"
            )

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return diffusion.REDUCTION * self.sample_size

    @property
    def width(self) -> int:
        """Width of the residual streams."""
        return self.num_attention_heads * self.attention_head_dim


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` images of side `size`: the loss, or the prediction."""
    side = diffusion.latent_side(t, size, c.patch_size, TEXT)
    if side > c.patch_size * c.pos_embed_max_size:
        most = diffusion.REDUCTION * c.patch_size * c.pos_embed_max_size
        raise BadInput(f"image of {size}x{size} pixels: positions end at a side of {most}")
    noisy = t.input((batch, c.in_channels, side, side))
    x = diffusion.placed(t, patches(t, noisy, c.width, c.patch_size, "pos_embed.proj"))
    if batch > 1:
        with t.op("pos_embed.contiguous", "copy"):
            x = pointwise.copy(t, x)
    e = time_and_text(t, batch, c.width, c.pooled_projection_dim)
    text = diffusion.passed(t, "text", batch, TEXT, c.joint_attention_dim)
    y = dense(t, "context_embedder", text, c.caption_projection_dim)
    kinds = [(i in c.dual_attention_layers, i == c.num_layers - 1) for i in range(c.num_layers)]
    start = 0
    for end in range(1, len(kinds) + 1):
        if end == len(kinds) or kinds[end] != kinds[start]:
            dual, last = kinds[start]

            def body(x: Value, y: Value, dual: bool = dual, last: bool = last) -> tuple:
                with t.checkpoint(x, y, e):
                    return block(t, c, x, y, e, dual=dual, last=last)

            x, y = t.repeat("transformer_blocks", end - start, body, x, y)
            start = end
    scale, shift = modulation(t, "norm_out", e, c.width, 2)
    x = modulated(t, "norm_out.modulate", plain_norm(t, "norm_out.norm", x), scale, shift)
    out = c.out_channels or c.in_channels
    x = dense(t, "proj_out", x, c.patch_size**2 * out)
    return diffusion.square_error(t, diffusion.unpatched(t, x, out, side))


def time_and_text(
    t: Tape, batch: int, width: int, pooled: int, *, guided: bool = False, scaled: bool = False
) -> Value:
    """The sum of the embeddings of the time step, of the guidance, and of the pooled text.

    `scaled`: time and guidance are multiplied by a thousand first.
    """
    with t.scope("time_text_embed"):
        step = t.input((batch,), "int64")
        sines = diffusion.sinusoids(t, step, diffusion.TIME)
        e = diffusion.embedder(t, "timestep_embedder", sines, width)
        if guided:
            strength = t.input((batch,))
            sines = diffusion.sinusoids(t, strength, diffusion.TIME)
            guidance = diffusion.embedder(t, "guidance_embedder", sines, width)
            e = residual(t, e, guidance, "guidance_add")
        words = diffusion.passed(t, "pooled", batch, pooled)
        text = diffusion.embedder(t, "text_embedder", words, width)
        return residual(t, e, text, "text_add")


def block(
    t: Tape, c: Config, x: Value, y: Value, e: Value, *, dual: bool, last: bool
) -> tuple[Value, Value]:
    """One block on image tokens x and text tokens y, both [batch, tokens, width].

    dual: the image attends to itself once more. last: the text is not updated.
    """
    parts = modulation(t, "norm1", e, c.width, 9 if dual else 6)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp, *second = parts
    plain = plain_norm(t, "norm1.norm", x)
    h = modulated(t, "norm1.modulate", plain, scale, shift)
    h2 = modulated(t, "norm1.modulate2", plain, second[1], second[0]) if dual else None
    of_text = modulation(t, "norm1_context", e, c.width, 2 if last else 6)
    if last:  # scale first
        of_text[0], of_text[1] = of_text[1], of_text[0]
    g = plain_norm(t, "norm1_context.norm", y)
    g = modulated(t, "norm1_context.modulate", g, of_text[1], of_text[0])
    h, g = joint(t, c, h, g, last=last)
    x = gated_residual(t, "gate", x, h, gate)
    if h2 is not None:
        x = gated_residual(t, "gate2", x, alone(t, c, h2), second[2])
    h = modulated(t, "norm2.modulate", plain_norm(t, "norm2", x), scale_mlp, shift_mlp)
    h = diffusion.mlp(t, "ff", h, 4 * c.width)
    x = gated_residual(t, "gate_mlp", x, h, gate_mlp)
    if last:
        return x, y
    _, _, gate, shift_mlp, scale_mlp, gate_mlp = of_text
    y = gated_residual(t, "gate_context", y, g, gate)
    g = plain_norm(t, "norm2_context", y)
    g = modulated(t, "norm2_context.modulate", g, scale_mlp, shift_mlp)
    g = diffusion.mlp(t, "ff_context", g, 4 * c.width)
    return x, gated_residual(t, "gate_mlp_context", y, g, gate_mlp)


def head_norm(t: Tape, c: Config, name: str, x: Value) -> Value:
    """The norm of queries or keys, if the model has one."""
    if c.qk_norm is None:
        return x
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="t5")


def of_heads(t: Tape, c: Config, x: Value, names: tuple[str, ...], norms: str) -> list[Value]:
    """Queries, keys and values [batch, heads, tokens, width of a head], the first two normed."""
    counts = dict.fromkeys(names, c.num_attention_heads)
    q, k, v = projections(t, x, counts, c.attention_head_dim)
    return [head_norm(t, c, f"{norms}_q", q), head_norm(t, c, f"{norms}_k", k), v]


def joint(t: Tape, c: Config, x: Value, y: Value, *, last: bool) -> tuple[Value, Value]:
    """Attention over image and text tokens together."""
    with t.scope("attn"):
        of_image = of_heads(t, c, x, QKV, "norm")
        of_text = of_heads(t, c, y, ADDED, "norm_added")
        with t.op("cat", "concat"):
            pairs = zip(of_image, of_text, strict=True)
            q, k, v = (pointwise.concat(t, list(pair), 2) for pair in pairs)
        with t.op("attention", "attention"):
            h = attention.attention(t, q, k, v, causal=False, by_heads=True)
        g = sliced(t, "to_add_out.slice", h, y)
        if not last:
            g = dense(t, "to_add_out", g, c.width)
        return dense(t, "to_out.0", sliced(t, "to_out.slice", h, x), c.width), g


def sliced(t: Tape, name: str, x: Value, like: Value) -> Value:
    """The tokens of x that belong to `like`, which a linear layer copies if there are several
    samples.
    """
    if like.shape[0] == 1:
        return t.view(x, *like.shape)
    with t.op(name, "copy"):
        return pointwise.copy(t, x, *like.shape)


def alone(t: Tape, c: Config, x: Value) -> Value:
    """Attention over the image tokens only."""
    with t.scope("attn2"):
        q, k, v = of_heads(t, c, x, QKV, "norm")
        with t.op("attention", "attention"):
            h = attention.attention(t, q, k, v, causal=False)
        with t.op("to_out.0", "linear"):
            return linear.linear(t, h, c.width)
