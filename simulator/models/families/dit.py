"""Class-conditional diffusion transformers [peebles2022]: DiTTransformer2DModel of diffusers."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import (
    gated_residual,
    modulated,
    modulation,
    plain_norm,
)
from roofcast.simulator.models.families.transformer import projections
from roofcast.simulator.models.vision.parts import activation, dense, residual
from roofcast.simulator.models.vision.vit import patches
from roofcast.simulator.work.ops import attention, embedding, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' DiTTransformer2DModel, with its defaults."""

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int | None = None
    num_layers: int = 28
    dropout: float = 0.0
    attention_bias: bool = True
    sample_size: int = 32
    patch_size: int = 2
    activation_fn: str = "gelu-approximate"
    num_embeds_ada_norm: int | None = 1000
    norm_type: str = "ada_norm_zero"
    norm_elementwise_affine: bool = False

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        fixed = {
            "activation_fn": "gelu-approximate",
            "norm_type": "ada_norm_zero",
            "norm_elementwise_affine": False,
        }
        diffusion.only(self, fixed)
        if not self.num_embeds_ada_norm:
            raise ValueError("num_embeds_ada_norm must be a positive number: the classes")

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return diffusion.REDUCTION * self.sample_size

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` images of side `size`: the loss, or the prediction."""
    out = c.out_channels or c.in_channels
    side = diffusion.latent_side(t, size, c.patch_size)
    noisy = t.input((batch, c.in_channels, side, side))
    x = patches(t, noisy, c.width, c.patch_size, "pos_embed.proj")
    x = diffusion.placed(t, x)
    step, label = t.input((batch,), "int64"), t.input((batch,), "int64")
    x = t.repeat("transformer_blocks", c.num_layers, lambda x: block(t, c, x, step, label), x)
    with t.scope("transformer_blocks.0.norm1"):  # once more, by the layers of the first block
        e = conditioning(t, c, step, label, again=True)
    shift, scale = modulation(t, "proj_out_1", e, c.width, 2)
    x = modulated(t, "scale_shift", plain_norm(t, "norm_out", x), scale, shift)
    x = dense(t, "proj_out_2", x, c.patch_size**2 * out)
    return diffusion.square_error(t, diffusion.unpatched(t, x, out, side))


def conditioning(t: Tape, c: Config, step: Value, label: Value, *, again: bool = False) -> Value:
    """The sum of the embeddings of the time step and of the class; one class more means none.

    `again`: by layers that exist already, whose weights are not counted a second time.
    """
    rows, classes = step.size, (c.num_embeds_ada_norm or 0) + 1
    with t.scope("emb"):
        e = diffusion.sinusoids(t, step, diffusion.TIME)
        if again:
            for name in ("timestep_embedder.linear_1", "timestep_embedder.linear_2"):
                with t.op(name, "linear"):
                    weight = _known(t, c.width, e.shape[-1])
                    e = linear.linear(t, e, c.width, weight=weight, bias=False)
                if name.endswith("1"):
                    e = activation(t, "timestep_embedder.act", "silu", e, in_place=False)
        else:
            e = diffusion.embedder(t, "timestep_embedder", e, c.width)
        with t.op("class_embedder", "embedding"):
            chosen = t.new((rows,), "int64")
            if t.training:  # a tenth of the labels is dropped
                t.emit("elementwise", (label,), (chosen,), vector=rows)
            table = _known(t, classes, c.width) if again else None
            labels = embedding.embedding(t, chosen, classes, c.width, weight=table)
            return pointwise.add(t, e, labels)


def _known(t: Tape, *shape: int) -> Value:
    """A weight that was counted where it was first used."""
    weight = t.new(shape, t.precision.weights, grad=True)
    weight.kind = "parameter"
    return weight


def block(t: Tape, c: Config, x: Value, step: Value, label: Value) -> Value:
    """One block, which embeds the time step and the class by layers of its own."""
    with t.scope("norm1"):
        e = conditioning(t, c, step, label)
        parts = modulation(t, "", e, c.width, 6)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
    h = modulated(t, "norm1.modulate", plain_norm(t, "norm1.norm", x), scale, shift)
    with t.scope("attn1"):
        names = dict.fromkeys(("to_q", "to_k", "to_v"), c.num_attention_heads)
        q, k, v = projections(t, h, names, c.attention_head_dim, bias=c.attention_bias)
        with t.op("attention", "attention"):
            h = attention.attention(t, q, k, v, causal=False)
        with t.op("to_out.0", "linear"):
            h = linear.linear(t, h, c.width)
        with t.op("rescale", "mul"):
            h = pointwise.scale(t, pointwise.dropout(t, h, c.dropout))
    x = gated_residual(t, "gate1", x, h, gate)
    h = modulated(t, "norm3.modulate", plain_norm(t, "norm3", x), scale_mlp, shift_mlp)
    h = diffusion.mlp(t, "ff", h, 4 * c.width)
    with t.op("gate3", "mul"):
        h = pointwise.mul(t, gate_mlp, h)
    return residual(t, h, x, "add3")
