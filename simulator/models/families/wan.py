"""Wan 2.1 and 2.2 text to video [wan2025]: diffusion transformers over frames that attend to a
text; WanTransformer3DModel of diffusers.

Norms, modulation and residual sums are computed in fp32, as in diffusers.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.transformer import Tables, heads_of
from roofcast.simulator.models.vision.parts import activation, dense, residual
from roofcast.simulator.work.ops import attention, conv, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

TEXT = 512  # tokens of UMT5 to which the pipeline pads a prompt
FRAMES, LATENT_FRAMES = 81, 21  # of the pipeline's default clip, four of them to one latent
SIDE = 624  # pixels: a square of about the size of 832x480


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' WanTransformer3DModel, with its defaults."""

    patch_size: tuple[int, ...] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int | None = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    qk_norm: str | None = "rms_norm_across_heads"
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        fixed = {
            "image_dim": None,
            "added_kv_proj_dim": None,
            "qk_norm": "rms_norm_across_heads",
            "patch_size": (1, 2, 2),
        }
        diffusion.only(self, fixed)
        if self.attention_head_dim % 2:
            raise ValueError(f"attention_head_dim ({self.attention_head_dim}) must be even")

    @property
    def size(self) -> int:
        """Default side of a frame [pixels]."""
        return SIDE

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` clips of side `size`: the loss, or the prediction."""
    unit = diffusion.REDUCTION * c.patch_size[-1]
    if size % unit:
        raise BadInput(f"frames of {size}x{size} pixels: use a side divisible by {unit}")
    side = size // diffusion.REDUCTION
    t.assumptions.append(
        f"denoiser alone: {FRAMES} frames of {size}x{size} are latents of"
        f" {LATENT_FRAMES}x{side}x{side}; {TEXT} text tokens"
    )
    noisy = t.input((batch, c.in_channels, LATENT_FRAMES, side, side))
    with t.op("patch_embedding", "conv"):
        x = conv.conv(t, noisy, c.width, c.patch_size, stride=c.patch_size, dims=3)
        x = pointwise.copy(t, x, batch, x.size // (batch * c.width), c.width)
    with t.scope("condition_embedder"):
        e, parts, y = conditions(t, c, batch)
    tables = places(t, x.shape[1], c.attention_head_dim)
    x = t.repeat("blocks", c.num_layers, partial(block, t, c, y, parts, tables), x)
    with t.op("scale_shift_table", "add"):
        both = pointwise.add(t, t.parameter(1, 2, c.width), t.view(e, batch, 1, c.width))
        shift, scale = (t.view(both, batch, 1, c.width) for _ in range(2))
    x = modulated(t, "norm_out", x, scale, shift)
    out = c.out_channels or c.in_channels
    x = dense(t, "proj_out", x, c.patch_size[1] * c.patch_size[2] * out)
    with t.op("unpatchify", "copy"):
        x = pointwise.copy(t, x, batch, out, *noisy.shape[2:])
    return diffusion.square_error(t, x)


def conditions(t: Tape, c: Config, batch: int) -> tuple[Value, Value, Value]:
    """The embedding of the time step, six vectors of it for all blocks, and the text tokens."""
    sines = diffusion.sinusoids(t, t.input((batch,), "int64"), c.freq_dim)
    e = diffusion.embedder(t, "time_embedder", sines, c.width)
    h = activation(t, "act_fn", "silu", e, in_place=False)
    parts = t.view(dense(t, "time_proj", h, 6 * c.width, parallel=False), batch, 6, c.width)
    with t.scope("text_embedder"):
        y = dense(t, "linear_1", t.input((batch, TEXT, c.text_dim)), c.width)
        y = dense(t, "linear_2", activation(t, "act_1", "gelu_tanh", y, in_place=False), c.width)
    return e, parts, y


def places(t: Tape, tokens: int, dim: int) -> Tables:
    """cos and sin [1, tokens, 1, dim] of the tokens' places."""
    with t.op("rope", "rotary"):
        tables = t.new((1, tokens, 1, dim)), t.new((1, tokens, 1, dim))
        for table in tables:
            t.emit("copy", (), (table,))
        return tables


def modulated(t: Tape, name: str, x: Value, scale: Value, shift: Value) -> Value:
    """norm(x) (1 + scale) + shift, in fp32, in the format of x."""
    with t.op(name, "layer_norm"):
        h = norm.layer_norm(t, t.cast(x, "fp32"), affine=False)
        h = pointwise.mul(t, h, pointwise.unary(t, "add_scalar", scale))
        return t.cast(pointwise.add(t, h, shift), x.dtype)


def gated(t: Tape, name: str, x: Value, h: Value, gate: Value) -> Value:
    """x + gate h, summed in fp32, in the format of x."""
    with t.op(name, "add"):
        both = pointwise.add(t, t.cast(x, "fp32"), pointwise.mul(t, h, gate))
        return t.cast(both, x.dtype)


def block(t: Tape, c: Config, y: Value, parts: Value, tables: Tables, x: Value) -> Value:
    """One block on tokens x [batch, tokens, width] of all frames, and text tokens y."""
    batch, _, width = x.shape
    with t.op("scale_shift_table", "add"):
        table = pointwise.add(t, t.parameter(1, 6, width), t.cast(parts, "fp32"))
        rows = [t.view(table, batch, 1, width) for _ in range(6)]
    h = modulated(t, "norm1", x, rows[1], rows[0])
    x = gated(t, "gate1", x, attend(t, c, "attn1", h, h, tables), rows[2])
    h = plain_norm(t, x) if c.cross_attn_norm else x
    x = residual(t, x, attend(t, c, "attn2", h, y), "add2")
    h = modulated(t, "norm3", x, rows[4], rows[3])
    with t.scope("ffn"):
        h = dense(t, "net.0.proj", h, c.ffn_dim)
        h = activation(t, "net.0.act", "gelu_tanh", h, in_place=False)
        h = dense(t, "net.2", h, width)
    with t.op("ffn.float", "cast"):
        h = t.cast(h, "fp32")
    return gated(t, "gate3", x, h, rows[5])


def plain_norm(t: Tape, x: Value) -> Value:
    """A norm in fp32, with fp32 copies of its scale and shift, which are kept."""
    with t.op("norm2", "layer_norm"):
        own = [t.cast(t.parameter(x.shape[-1]), "fp32") for _ in range(2)]
        h = norm.layer_norm(t, t.cast(x, "fp32"), weights=(own[0], own[1]))
        if t.training and x.dtype != "fp32":
            t.keep(sum(v.bytes for v in own))
        return t.cast(h, x.dtype)


def attend(
    t: Tape, c: Config, name: str, x: Value, y: Value, tables: Tables | None = None
) -> Value:
    """Attention of x [batch, tokens, width] to y; queries and keys are normed over all heads."""
    width, heads = c.width, c.num_attention_heads
    with t.scope(name):
        parts = []
        for of, source in zip(("q", "k", "v"), (x, y, y), strict=True):
            h = dense(t, f"to_{of}", source, width)
            if of != "v":
                with t.op(f"norm_{of}", "rms_norm"):
                    h = norm.rms_norm(t, h, flavor="torch")
            h = heads_of(t, h, heads, c.attention_head_dim)
            parts.append(h if tables is None or of == "v" else rotated(t, h, tables))
        with t.op("attention", "attention"):
            h = attention.attention(t, *parts, causal=False)
        return dense(t, "to_out.0", h, width)


def rotated(t: Tape, x: Value, tables: Tables) -> Value:
    """The pairs of x [batch, heads, tokens, dim] turned, half by half into a new tensor."""
    half = (*x.shape[:-1], x.shape[-1] // 2)
    with t.op("rotary", "rotary"):
        first, second = t.view(x, *half), t.view(x, *half)
        cos, sin = (
            Value((1, 1, half[2], half[3]), v.dtype, v.storage, False, v.kind, v.repeats, v.held)
            for v in tables
        )
        parts = [
            pointwise.add(t, pointwise.mul(t, first, a), pointwise.mul(t, second, b))
            for a, b in ((cos, sin), (sin, cos))
        ]
        return pointwise.concat(t, parts, -1)
