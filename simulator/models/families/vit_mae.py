"""Masked autoencoders [he2021]: an encoder of the visible patches of an image, a decoder of all.

The loss is the square error of the hidden patches. The positions are those of the image's side.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.simulator.models.families import vit
from roofcast.simulator.models.families.diffusion import check_sizes
from roofcast.simulator.models.families.transformer import normed
from roofcast.simulator.models.vision.parts import dense
from roofcast.simulator.models.vision.vit import patches
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value

INDEX = "int64"


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's ViTMAEConfig, with its defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    decoder_num_attention_heads: int = 16
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_intermediate_size: int = 2048
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False

    def __post_init__(self) -> None:
        check_sizes(self)
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio:g}; it must be at least 0, below 1")
        if self.decoder_hidden_size % max(self.decoder_num_attention_heads, 1):
            raise ValueError(
                f"decoder_hidden_size ({self.decoder_hidden_size}) is not divisible by"
                f" {self.decoder_num_attention_heads} heads"
            )

    @property
    def decoder(self) -> Config:
        """The configuration of the decoder's layers."""
        return msgspec.structs.replace(
            self,
            hidden_size=self.decoder_hidden_size,
            num_hidden_layers=self.decoder_num_hidden_layers,
            num_attention_heads=self.decoder_num_attention_heads,
            intermediate_size=self.decoder_intermediate_size,
        )


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the patches."""
    pixels = t.input((batch, c.num_channels, image, image))
    with t.scope("vit"):
        x, restored = embedded(t, c, pixels)
        x = t.repeat("layers", c.num_hidden_layers, partial(vit.block, t, c, softmax_fp32=True), x)
        x = normed(t, "layernorm", x)
    with t.scope("decoder"):
        logits = decoded(t, c, x, restored)
    return square_error(t, c, logits, pixels) if t.training else logits


def embedded(t: Tape, c: Config, pixels: Value) -> tuple[Value, Value]:
    """The class token and the visible patches with their positions; the order of all patches."""
    batch, width = pixels.shape[0], c.hidden_size
    with t.scope("embeddings"):
        x = patches(t, pixels, width, c.patch_size, "patch_embeddings.projection")
        tokens = x.shape[1]
        with t.op("position_embeddings", "add"):
            places = t.parameter(1, tokens + 1, width, trainable=False)
            x = pointwise.add(t, x, t.view(places, 1, tokens, width))
        with t.op("random_masking", "sort"):
            noise = t.new((batch, tokens), "fp32")
            order, restored = t.new(noise.shape, INDEX), t.new(noise.shape, INDEX)
            t.emit("elementwise", (), (noise,), special=noise.size)
            t.emit("elementwise", (noise,), (order,), vector=noise.size)
            t.emit("elementwise", (order,), (restored,), vector=noise.size)
            kept = int(tokens * (1 - c.mask_ratio))
            x = chosen(t, x, kept, order)
        with t.op("cls_token", "concat"):
            first = pointwise.add(t, t.parameter(1, 1, width), t.view(places, 1, 1, width))
            x = pointwise.concat(t, [t.view(first, batch, 1, width), x], 1)
    return x, restored


def chosen(t: Tape, x: Value, count: int, order: Value) -> Value:
    """`count` tokens of x [batch, tokens, width] in an order. PyTorch keeps x, and an index for
    every element.
    """
    batch, _, width = x.shape
    index = t.new((batch, count, width), INDEX)
    t.emit("copy", (order,), (index,))
    out = t.new((batch, count, width), x.dtype, x.grad)
    t.emit("gather", (index,), (out,), read=index.bytes + out.bytes)
    if out.grad:
        t.save(x, index)
        read, written = out.bytes + index.bytes, x.bytes
        t.backward("scatter", vector=out.size, read=read, written=written, product=x.dtype)
    return out


def decoded(t: Tape, c: Config, x: Value, restored: Value) -> Value:
    """The pixels of all patches [batch, tokens, pixels], from those of the visible ones."""
    d = c.decoder
    batch, seen, _ = x.shape
    tokens, width = restored.shape[1], d.hidden_size
    x = dense(t, "decoder_embed", x, width)
    with t.op("mask_token", "concat"):
        mask = pointwise.copy(t, t.parameter(1, 1, width), batch, tokens + 1 - seen, width)
        rest = pointwise.concat(t, [pointwise.part(t, x, batch, seen - 1, width), mask], 1)
        rest = chosen(t, rest, tokens, restored)
        x = pointwise.concat(t, [pointwise.part(t, x, batch, 1, width), rest], 1)
    with t.op("decoder_pos_embed", "add"):
        x = pointwise.add(t, x, t.parameter(1, tokens + 1, width, trainable=False))
    x = t.repeat(
        "decoder_layers", d.num_hidden_layers, partial(vit.block, t, d, softmax_fp32=True), x
    )
    x = normed(t, "decoder_norm", x)
    x = dense(t, "decoder_pred", x, c.patch_size**2 * c.num_channels)
    return t.view(x, batch, tokens, x.shape[-1])


def square_error(t: Tape, c: Config, logits: Value, pixels: Value) -> Value:
    """The mean square error over the hidden patches of an image cut into patches."""
    with t.op("patchify", "copy"):
        target = pointwise.copy(t, pixels, *logits.shape)
        if c.norm_pix_loss:
            mean = pointwise.mean(t, target)
            t.emit("reduce", (target,), (mean,), vector=3 * target.size)
            target = pointwise.mul(t, pointwise.add(t, target, mean), mean)
    with t.op("loss", "mse"):
        error = pointwise.unary(t, "pow", pointwise.add(t, logits, target))
        error = pointwise.mean(t, error, keepdim=False)
        mask = t.new(error.shape, "fp32")
        t.emit("gather", (), (mask,), vector=mask.size)
        error = pointwise.mul(t, error, mask)
        out = pointwise.mean(t, t.view(error, error.size), 0, keepdim=False)
        t.keep(4)  # the sum of the mask
        return out
