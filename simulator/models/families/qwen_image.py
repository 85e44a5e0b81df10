"""Qwen-Image [wu2025]: a multimodal diffusion transformer with layers of its own for image and for
text, and rotations by complex numbers; QwenImageTransformer2DModel of diffusers.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import modulated, modulation, plain_norm
from roofcast.simulator.models.families.flux import PACKED, updated
from roofcast.simulator.models.families.mmdit import ADDED, QKV, sliced
from roofcast.simulator.models.families.transformer import projections
from roofcast.simulator.models.vision.parts import dense
from roofcast.simulator.work.ops import attention, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

TEXT = 512  # tokens of Qwen2.5-VL: the longest prompt that the pipeline takes by default
PLACES = 4096  # rows of the table of rotations
SIDE = 1328  # pixels: the pipeline's square
COMPLEX = 2  # fp32 numbers in a complex one
Places = tuple[Value, Value]  # rotations of image tokens, and of text tokens


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' QwenImageTransformer2DModel, with its defaults."""

    patch_size: int = 2
    in_channels: int = 64
    out_channels: int | None = 16
    num_layers: int = 60
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 3584
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)
    zero_cond_t: bool = False
    use_additional_t_cond: bool = False
    use_layer3d_rope: bool = False

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        off = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
        diffusion.only(self, dict.fromkeys(off, False))
        if sum(self.axes_dims_rope) != self.attention_head_dim:
            raise ValueError(f"axes_dims_rope must add up to {self.attention_head_dim}")

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return SIDE

    @property
    def width(self) -> int:
        """Width of the residual streams."""
        return self.num_attention_heads * self.attention_head_dim


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` images of side `size`: the loss, or the prediction."""
    tokens = (diffusion.latent_side(t, size, PACKED, TEXT) // PACKED) ** 2
    x = dense(t, "img_in", t.input((batch, tokens, c.in_channels)), c.width)
    with t.op("txt_norm", "rms_norm"):
        y = norm.rms_norm(t, t.input((batch, TEXT, c.joint_attention_dim)), flavor="t5")
    y = dense(t, "txt_in", y, c.width)
    with t.scope("time_text_embed"):
        sines = diffusion.sinusoids(t, t.input((batch,), "int64"), diffusion.TIME)
        e = diffusion.embedder(t, "timestep_embedder", sines, c.width)
    tables = places(t, tokens, c.attention_head_dim // 2)
    body = partial(block, t, c, e, tables)
    x, y = t.repeat("transformer_blocks", c.num_layers - 1, body, x, y)
    x, y = t.repeat("transformer_blocks", 1, partial(body, last=True), x, y)
    scale, shift = modulation(t, "norm_out", e, c.width, 2)
    x = modulated(t, "norm_out.modulate", plain_norm(t, "norm_out.norm", x), scale, shift)
    x = dense(t, "proj_out", x, c.patch_size**2 * (c.out_channels or c.in_channels))
    return diffusion.square_error(t, x)


def places(t: Tape, tokens: int, pairs: int) -> Places:
    """Complex rotations of image tokens, and of text tokens: a slice of a table."""
    with t.op("pos_embed", "rotary"):
        image = t.new((tokens, COMPLEX * pairs), "fp32")
        t.emit("copy", (), (image,))
        table = t.new((PLACES, COMPLEX * pairs), "fp32")
        t.emit("copy", (), (table,))
        return image, t.view(table, TEXT, COMPLEX * pairs)


def rotated(t: Tape, x: Value, table: Value) -> Value:
    """The pairs of x [batch, heads, tokens, dim] times complex numbers, in fp32."""
    with t.op("rotary", "rotary"):
        wide = t.cast(x, "fp32")
        out = t.new(wide.shape, "fp32", wide.grad)
        t.emit("elementwise", (wide, table), (out,), vector=3 * wide.size)
        if out.grad:
            t.save(table)
            read, written = out.bytes + table.bytes, wide.bytes
            t.backward("elementwise", vector=3 * wide.size, read=read, written=written)
        return t.cast(out, x.dtype)


def of_heads(
    t: Tape, c: Config, x: Value, names: tuple[str, ...], norms: str, table: Value
) -> list[Value]:
    """Queries, keys and values of one stream, the first two normed and turned."""
    counts = dict.fromkeys(names, c.num_attention_heads)
    *turned, v = projections(t, x, counts, c.attention_head_dim)
    parts = []
    for part, of in zip(turned, ("q", "k"), strict=True):
        with t.op(f"{norms}_{of}", "rms_norm"):
            part = norm.rms_norm(t, part, flavor="t5")
        parts.append(rotated(t, part, table))
    return [*parts, v]


def block(
    t: Tape, c: Config, e: Value, tables: Places, x: Value, y: Value, *, last: bool = False
) -> tuple[Value, Value]:
    """One block on image tokens x and text tokens y, both [batch, tokens, width].

    last: nothing reads the text tokens after it, so that no gradient comes back through them.
    """
    of_image = modulation(t, "img_mod", e, c.width, 6)
    of_text = modulation(t, "txt_mod", e, c.width, 6)
    h = modulated(t, "img_modulate", plain_norm(t, "img_norm1", x), of_image[1], of_image[0])
    g = modulated(t, "txt_modulate", plain_norm(t, "txt_norm1", y), of_text[1], of_text[0])
    with t.scope("attn"):
        image = of_heads(t, c, h, QKV, "norm", tables[0])
        text = of_heads(t, c, g, ADDED, "norm_added", tables[1])
        with t.op("cat", "concat"):
            both = [pointwise.concat(t, [b, a], 2) for a, b in zip(image, text, strict=True)]
        with t.op("attention", "attention"):
            out = attention.attention(t, *both, causal=False)
        h = dense(t, "to_out.0", sliced(t, "to_out.slice", out, x), c.width)
        start = len(t.kernels)
        g = dense(t, "to_add_out", sliced(t, "to_add_out.slice", out, y), c.width)
    y = updated(t, "_context", y, g, of_text)
    if last:
        t.kernels[start:] = [k for k in t.kernels[start:] if k.phase != "backward"]
    return updated(t, "", x, h, of_image), y
