"""The U-Net of Stable Diffusion 1, 2 and XL [rombach2021]: UNet2DConditionModel of diffusers."""

from __future__ import annotations

from typing import Any

import msgspec

from roofcast.hwdb.errors import number_of
from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import group_norm, resnet
from roofcast.simulator.models.families.transformer import gated, normed, projections
from roofcast.simulator.models.vision.parts import activation, convolve, dense, residual
from roofcast.simulator.work.ops import attention, conv, embedding, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

TEXT = 77  # tokens: the length to which the text encoder pads
SIZES = 6  # numbers that SDXL is told of an image: original size, crop, target size
ATTENDED = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")

Several = int | tuple[int, ...]  # one number for all levels, or one per level


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' UNet2DConditionModel, with its defaults."""

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = (ATTENDED[0],) * 3 + (PLAIN[0],)
    up_block_types: tuple[str, ...] = (PLAIN[1],) + (ATTENDED[1],) * 3
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: Several = 2
    dropout: float = 0.0
    act_fn: str = "silu"
    norm_num_groups: int = 32
    cross_attention_dim: Several = 1280
    transformer_layers_per_block: Several = 1
    attention_head_dim: Several = 8
    num_attention_heads: Several | None = None
    use_linear_projection: bool = False
    num_class_embeds: int | None = None
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None
    conv_in_kernel: int = 3
    conv_out_kernel: int = 3
    only_cross_attention: bool = False
    dual_cross_attention: bool = False
    class_embed_type: str | None = None
    encoder_hid_dim_type: str | None = None
    resnet_time_scale_shift: str = "default"
    time_embedding_type: str = "positional"
    attention_type: str = "default"
    class_embeddings_concat: bool = False
    resnet_skip_time_act: bool = False

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        diffusion.only(
            self,
            {
                "only_cross_attention": False,
                "dual_cross_attention": False,
                "class_embed_type": None,
                "encoder_hid_dim_type": None,
                "resnet_time_scale_shift": "default",
                "time_embedding_type": "positional",
                "attention_type": "default",
                "class_embeddings_concat": False,
                "resnet_skip_time_act": False,
                "num_attention_heads": None,
                "time_cond_proj_dim": None,
            },
        )
        _check_levels(self)

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return diffusion.REDUCTION * self.sample_size

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_out_channels[0]

    def per_level(self, key: str) -> tuple[int, ...]:
        """The value of a key at each level."""
        value = getattr(self, key)
        return (value,) * len(self.block_out_channels) if isinstance(value, int) else value


def _check_levels(c: Config) -> None:
    """Raises ValueError unless there is a known kind of block and a number for each level."""
    levels = len(c.block_out_channels)
    for key in ("down_block_types", "up_block_types"):
        kinds = getattr(c, key)
        if len(kinds) != levels:
            raise ValueError(
                f"{key} has {number_of(len(kinds), 'entry', 'entries')},"
                f" block_out_channels {levels}"
            )
        for kind in kinds:
            if kind not in (*ATTENDED, *PLAIN):
                known = ", ".join((*ATTENDED, *PLAIN))
                raise ValueError(f"{key}: {str(kind)[:40]!r} is not modeled; known: {known}")
    if c.mid_block_type not in ("UNetMidBlock2DCrossAttn", None):
        raise ValueError(f"mid_block_type {str(c.mid_block_type)[:40]!r} is not modeled")
    if c.addition_embed_type not in (None, "text_time"):
        raise ValueError(f"addition_embed_type {str(c.addition_embed_type)[:40]!r} is not modeled")
    sides = ("layers_per_block", "cross_attention_dim", "transformer_layers_per_block")
    for key in (*sides, "attention_head_dim"):
        if len(c.per_level(key)) != levels or min(c.per_level(key)) < 1:
            raise ValueError(f"{key} must be {levels} positive numbers, one per level, or one")
    for width, heads in zip(c.block_out_channels, c.per_level("attention_head_dim"), strict=True):
        if width < 1 or width % heads or width % max(c.norm_num_groups, 1):
            raise ValueError(
                f"block_out_channels: {width} channels are not divisible by {heads} heads"
                f" (attention_head_dim) or {c.norm_num_groups} groups (norm_num_groups)"
            )


def build(t: Tape, c: Config, batch: int, size: int) -> Value:
    """One denoising step of `batch` images of side `size`: the loss, or the predicted noise."""
    side = diffusion.latent_side(t, size, 1, TEXT)
    x = t.input((batch, c.in_channels, side, side))
    time = conditioning(t, c, batch)
    widths = sorted({*_text_widths(c)})
    text = tuple(diffusion.passed(t, "text", batch, TEXT, width) for width in widths)
    texts = {x.shape[-1]: x for x in text}
    pad = (c.conv_in_kernel - 1) // 2
    x = convolve(t, "conv_in", x, c.block_out_channels[0], c.conv_in_kernel, padding=pad)
    skips = [x]
    x = _down(t, c, x, time, texts, skips)
    if c.mid_block_type is not None:
        with t.scope("mid_block"):
            level, width = len(c.block_out_channels) - 1, c.block_out_channels[-1]
            x = _resnet(t, c, "resnets.0", x, width, time)  # which diffusers never checkpoints
            x = transformer(t, c, "attentions.0", x, level, texts)
            x = _checkpoint(t, c, "resnets.1", x, width, time)
    x = _up(t, c, x, time, texts, skips)
    x = group_norm(t, "conv_norm_out", x, c.norm_num_groups)
    x = activation(t, "conv_act", c.act_fn, x, in_place=False)
    pad = (c.conv_out_kernel - 1) // 2
    x = convolve(t, "conv_out", x, c.out_channels, c.conv_out_kernel, padding=pad)
    return diffusion.square_error(t, x)


def _text_widths(c: Config) -> tuple[int, ...]:
    return c.per_level("cross_attention_dim")


def _resnet(t: Tape, c: Config, name: str, x: Value, width: int, time: Value) -> Value:
    groups, act, p = c.norm_num_groups, c.act_fn, c.dropout
    return resnet(t, name, x, width, groups, time=time, act=act, dropout=p)


def _checkpoint(t: Tape, c: Config, name: str, x: Value, width: int, time: Value) -> Value:
    """A residual block that gradient checkpointing computes again."""
    with t.checkpoint(x, time):
        return _resnet(t, c, name, x, width, time)


def conditioning(t: Tape, c: Config, batch: int) -> Value:
    """The embedding of the time step, of the class if there are classes, and in SDXL of the pooled
    text and of the image's sizes.
    """
    step = t.input((batch,), "int64")
    sines = diffusion.sinusoids(t, step, c.block_out_channels[0])
    e = diffusion.embedder(t, "time_embedding", sines, c.time_width)
    if c.num_class_embeds:
        with t.op("class_embedding", "embedding"):
            labels = t.input((batch,), "int64")
            table = embedding.embedding(t, labels, c.num_class_embeds, c.time_width)
            e = pointwise.add(t, e, table)
    if c.addition_embed_type is None:
        return e
    width, whole = c.addition_time_embed_dim or 256, c.projection_class_embeddings_input_dim or 2816
    pooled = diffusion.passed(t, "pooled", batch, whole - SIZES * width)
    sizes = t.input((batch, SIZES))
    sines = diffusion.sinusoids(t, sizes, width)
    with t.op("add_embeds", "concat"):
        both = pointwise.concat(t, [pooled, t.view(sines, batch, SIZES * width)], 1)
    added = diffusion.embedder(t, "add_embedding", both, c.time_width)
    return residual(t, e, added, "add_emb")


def _down(
    t: Tape, c: Config, x: Value, time: Value, texts: dict[int, Value], skips: list[Value]
) -> Value:
    layers = c.per_level("layers_per_block")
    for level, kind in enumerate(c.down_block_types):
        width = c.block_out_channels[level]
        with t.scope(f"down_blocks.{level}"):
            for index in range(layers[level]):
                x = _checkpoint(t, c, f"resnets.{index}", x, width, time)
                if kind in ATTENDED:
                    x = transformer(t, c, f"attentions.{index}", x, level, texts)
                skips.append(x)
            if level < len(c.block_out_channels) - 1:
                x = convolve(t, "downsamplers.0.conv", x, width, 3, stride=2, padding=1)
                skips.append(x)
    return x


def _up(
    t: Tape, c: Config, x: Value, time: Value, texts: dict[int, Value], skips: list[Value]
) -> Value:
    layers = c.per_level("layers_per_block")
    for index, kind in enumerate(c.up_block_types):
        level = len(c.block_out_channels) - 1 - index
        width = c.block_out_channels[level]
        with t.scope(f"up_blocks.{index}"):
            for layer in range(layers[level] + 1):
                with t.op(f"cat.{layer}", "concat"):
                    x = pointwise.concat(t, [x, skips.pop()], 1)
                x = _checkpoint(t, c, f"resnets.{layer}", x, width, time)
                if kind in ATTENDED:
                    x = transformer(t, c, f"attentions.{layer}", x, level, texts)
            if level:
                with t.op("upsamplers.0", "interpolate"):
                    x = conv.resize(t, x, skips[-1].shape[-1])
                x = convolve(t, "upsamplers.0.conv", x, width, 3, padding=1)
    return x


def transformer(
    t: Tape, c: Config, name: str, x: Value, level: int, texts: dict[int, Value]
) -> Value:
    """Blocks of self-attention, attention to the text and an MLP over all positions of x."""
    batch, width, *space = x.shape
    length, heads = space[0] * space[1], c.per_level("attention_head_dim")[level]
    text = texts[_text_widths(c)[level]]
    with t.scope(name):
        h = group_norm(t, "norm", x, c.norm_num_groups)
        if c.use_linear_projection:
            h = as_tokens(t, h, length)
            h = dense(t, "proj_in", h, width)
        else:
            h = t.view(convolve(t, "proj_in", h, width, 1), batch, length, width)
        count = c.per_level("transformer_layers_per_block")[level]
        h = t.repeat("transformer_blocks", count, lambda h: remade(t, h, heads, text, c.dropout), h)
        if c.use_linear_projection:
            h = dense(t, "proj_out", h, width)
        with t.op("transpose", "copy"):
            h = pointwise.copy(t, h, batch, width, *space)
        if not c.use_linear_projection:
            h = convolve(t, "proj_out", h, width, 1)
        return residual(t, h, x)


def as_tokens(t: Tape, x: Value, length: int) -> Value:
    """x [batch, channels, ...] as tokens [batch, length, channels] for a linear layer.

    The layer copies the transposed view if there are several samples.
    """
    batch, width = x.shape[:2]
    if batch == 1:
        return t.view(x, 1, length, width)
    with t.op("transpose_in", "copy"):
        return pointwise.copy(t, x, batch, length, width)


def remade(t: Tape, x: Value, heads: int, text: Value, dropout: float) -> Value:
    """One block, which gradient checkpointing computes again."""
    with t.checkpoint(x):
        return block(t, x, heads, text, dropout)


def block(t: Tape, x: Value, heads: int, text: Value, dropout: float) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    width = x.shape[-1]
    for index, context in enumerate((None, text), 1):
        h = normed(t, f"norm{index}", x)
        with t.scope(f"attn{index}"):
            h = attend(t, h, heads, context)
        with t.op(f"add{index}", "add"):
            x = pointwise.add(t, pointwise.dropout(t, h, dropout), x)
    h = normed(t, "norm3", x)
    with t.op("ff.net.0.proj", "linear"):
        h = linear.linear(t, h, 8 * width)
    with t.op("ff.net.0.gelu", "gelu"):
        h = pointwise.dropout(t, gated(t, h, "gelu"), dropout)
    with t.op("ff.net.2", "linear"):
        h = linear.linear(t, h, width)
    return residual(t, h, x, "add3")


def attend(t: Tape, x: Value, heads: int, context: Value | None = None, **how: Any) -> Value:
    """Attention of x [batch, tokens, width] over `context`, or over x itself; no bias but the
    output's.
    """
    width = x.shape[-1]
    how.setdefault("bias", False)
    if context is None:
        names = dict.fromkeys(("to_q", "to_k", "to_v"), heads)
        q, k, v = projections(t, x, names, width // heads, **how)
    else:
        (q,) = projections(t, x, {"to_q": heads}, width // heads, **how)
        names = dict.fromkeys(("to_k", "to_v"), heads)
        k, v = projections(t, context, names, width // heads, **how)
    with t.op("attention", "attention"):
        h = attention.attention(t, q, k, v, causal=False)
    with t.op("to_out.0", "linear"):
        h = linear.linear(t, h, width)
    with t.op("rescale", "mul"):
        return pointwise.scale(t, h)
