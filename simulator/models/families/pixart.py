"""PixArt-alpha and PixArt-sigma [chen2023pixart]: diffusion transformers that attend to a text,
with one modulation for all blocks; PixArtTransformer2DModel of diffusers.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import gated_residual, modulated, plain_norm
from roofcast.simulator.models.families.transformer import projections
from roofcast.simulator.models.vision.parts import activation, dense, residual
from roofcast.simulator.models.vision.vit import patches
from roofcast.simulator.work.ops import attention, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

TEXT, TEXT_SIGMA = 120, 300  # tokens of T5 to which the pipelines pad a prompt
ALPHA_SIDE = 128  # of latents: models of that side are given the size of the image too
QKV = ("to_q", "to_k", "to_v")


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' PixArtTransformer2DModel, with its defaults."""

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int | None = 8
    num_layers: int = 28
    dropout: float = 0.0
    cross_attention_dim: int = 1152
    attention_bias: bool = True
    sample_size: int = 128
    patch_size: int = 2
    activation_fn: str = "gelu-approximate"
    num_embeds_ada_norm: int | None = 1000
    norm_type: str = "ada_norm_single"
    norm_elementwise_affine: bool = False
    use_additional_conditions: bool | None = None
    caption_channels: int | None = None

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        fixed = {
            "activation_fn": "gelu-approximate",
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
        }
        diffusion.only(self, fixed)
        if self.caption_channels and self.cross_attention_dim != self.width:
            raise ValueError(
                f"cross_attention_dim ({self.cross_attention_dim}) must be num_attention_heads x"
                f" attention_head_dim ({self.width}), the width of projected captions"
            )
        if self.sized and self.width % 3:
            raise ValueError(
                f"num_attention_heads x attention_head_dim ({self.width}) must be divisible by 3"
                " for the embeddings of height, width and aspect ratio"
            )

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return diffusion.REDUCTION * self.sample_size

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def sized(self) -> bool:
        """Whether resolution and aspect ratio are embedded."""
        given = self.use_additional_conditions
        return self.sample_size == ALPHA_SIDE if given is None else given

    @property
    def text(self) -> int:
        """Text tokens. Only the configurations of PixArt-sigma switch the conditions off."""
        return TEXT_SIGMA if self.use_additional_conditions is False else TEXT


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` images of side `size`: the loss, or the prediction."""
    side = diffusion.latent_side(t, size, c.patch_size, c.text)
    noisy = t.input((batch, c.in_channels, side, side))
    x = diffusion.placed(t, patches(t, noisy, c.width, c.patch_size, "pos_embed.proj"))
    with t.scope("adaln_single"):
        e = embedded(t, c, batch)
        h = activation(t, "silu", "silu", e, in_place=False)
        parts = dense(t, "linear", h, 6 * c.width, parallel=False)
    y = t.input((batch, c.text, c.caption_channels or c.cross_attention_dim))
    if c.caption_channels:
        with t.scope("caption_projection"):
            y = activation(
                t, "act_1", "gelu_tanh", dense(t, "linear_1", y, c.width), in_place=False
            )
            y = dense(t, "linear_2", y, c.width)
    mask = masked(t, c, batch)
    x = t.repeat("transformer_blocks", c.num_layers, partial(block, t, c, y, parts, mask), x)
    shift, scale = tabled(t, "scale_shift_table", t.view(e, batch, 1, c.width), 2)
    x = modulated(t, "norm_out.modulate", plain_norm(t, "norm_out", x), scale, shift)
    out = c.out_channels or c.in_channels
    x = dense(t, "proj_out", x, c.patch_size**2 * out)
    return diffusion.square_error(t, diffusion.unpatched(t, x, out, side))


def embedded(t: Tape, c: Config, batch: int) -> Value:
    """The embedding of the time step and, in some models, of the size of the image."""
    step = t.input((batch,), "int64")
    with t.scope("emb"):
        sines = diffusion.sinusoids(t, step, diffusion.TIME)
        e = diffusion.embedder(t, "timestep_embedder", sines, c.width)
        if not c.sized:
            return e
        of_size = []
        for name, numbers in (("resolution_embedder", 2), ("aspect_ratio_embedder", 1)):
            sines = diffusion.sinusoids(t, t.input((batch, numbers)), diffusion.TIME)
            h = diffusion.embedder(t, name, sines, c.width // 3)
            of_size.append(t.view(h, batch, numbers * (c.width // 3)))
        with t.op("concat", "concat"):
            both = pointwise.concat(t, of_size, 1)
        return residual(t, e, both, "size_add")


def masked(t: Tape, c: Config, batch: int) -> Value:
    """What is added to the scores of padded text [batch, heads, 1, text]."""
    with t.op("encoder_attention_mask", "mask"):
        visible = t.input((batch, c.text))
        additive = pointwise.scale(t, pointwise.unary(t, "add_scalar", visible))
        return additive


def tabled(t: Tape, name: str, x: Value, parts: int) -> list[Value]:
    """A learned table plus x [batch, 1 or parts, width], cut into its `parts` rows."""
    batch, _, width = x.shape
    with t.op(name, "add"):
        both = pointwise.add(t, t.parameter(parts, width), x)
        return [t.view(both, batch, 1, width) for _ in range(parts)]


def block(t: Tape, c: Config, y: Value, parts: Value, mask: Value, x: Value) -> Value:
    """One block on image tokens x [batch, tokens, width], which attend to text tokens y as well."""
    rows = t.view(parts, x.shape[0], 6, c.width)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = tabled(t, "scale_shift_table", rows, 6)
    h = modulated(t, "norm1.modulate", plain_norm(t, "norm1", x), scale, shift)
    x = gated_residual(t, "gate1", x, attend(t, c, "attn1", h, h), gate)
    x = residual(t, attend(t, c, "attn2", x, y, mask), x, "add2")
    h = modulated(t, "norm2.modulate", plain_norm(t, "norm2", x), scale_mlp, shift_mlp)
    return gated_residual(t, "gate2", x, diffusion.mlp(t, "ff", h, 4 * c.width), gate_mlp)


def attend(t: Tape, c: Config, name: str, x: Value, y: Value, mask: Value | None = None) -> Value:
    """Attention of x [batch, tokens, width] to y."""
    heads = c.num_attention_heads
    with t.scope(name):
        (q,) = projections(t, x, {QKV[0]: heads}, c.attention_head_dim, bias=c.attention_bias)
        names = dict.fromkeys(QKV[1:], heads)
        k, v = projections(t, y, names, c.attention_head_dim, bias=c.attention_bias)
        with t.op("attention", "attention"):
            if mask is not None:
                mask = pointwise.copy(t, mask, x.shape[0], heads, 1, mask.shape[-1])
            h = attention.attention(t, q, k, v, causal=False, mask=mask)
        with t.op("to_out.0", "linear"):
            h = linear.linear(t, h, c.width)
        with t.op("rescale", "mul"):
            return pointwise.scale(t, pointwise.dropout(t, h, c.dropout))
