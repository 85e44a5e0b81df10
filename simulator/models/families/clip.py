"""CLIP: a text and an image encoder with their contrastive loss.

A sample is a pair: a text of `sequence` tokens and an image of the config's size. The whole batch
is one contrast.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, normed, projections
from roofcast.simulator.work.ops import attention, conv, embedding, linear, loss, moe, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Text(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's CLIPTextConfig, with its defaults."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    attention_dropout: float = 0.0


class Vision(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's CLIPVisionConfig, with its defaults."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    attention_dropout: float = 0.0


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's CLIPConfig: both encoders, and the width of the shared space."""

    text_config: Text | None = None
    vision_config: Vision | None = None
    projection_dim: int = 512

    @property
    def text(self) -> Text:
        """The text encoder."""
        return self.text_config or Text()

    @property
    def vision(self) -> Vision:
        """The image encoder."""
        return self.vision_config or Vision()

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.text.max_position_embeddings


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    image = encoded_image(t, c, batch)
    text = encoded_text(t, c, batch, sequence)
    with t.op("logits", "matmul"):
        text, image = (unit(t, x) for x in (text, image))
        logits = linear.matmul(t, text, image, transposed=True)
        scale = pointwise.unary(t, "exp", t.parameter())
        # a scalar does not promote the format
        out = t.new(logits.shape, logits.dtype, logits.grad)
        t.emit("elementwise", (logits, scale), (out,), vector=out.size)
        if t.training:
            t.save(scale, logits)
            flops, read, written = 2 * out.size, 2 * out.bytes, out.bytes
            t.backward("elementwise", vector=flops, read=read, written=written, product=out.dtype)
    if not t.training:
        return out
    for name in ("caption_loss", "image_loss"):
        with t.op(name, "cross_entropy"):
            last = loss.cross_entropy(t, out, t.new((batch,), "int64"))
    return last


def unit(t: Tape, x: Value) -> Value:
    """x / |x|, per row."""
    square = pointwise.total(t, pointwise.unary(t, "pow", x))
    length = pointwise.unary(t, "pow", square)
    inverse = t.new(x.shape, length.dtype if t.precision.autocast else x.dtype, x.grad)
    t.emit("elementwise", (x, length), (inverse,), vector=x.size)
    if x.grad:
        t.save(length, x)
        flops, read, written = 3 * x.size, 2 * x.bytes, x.bytes
        t.backward("elementwise", vector=flops, read=read, written=written, product=x.dtype)
    return inverse


def encoded(
    t: Tape,
    part: Text,
    batch: int,
    sequence: int,
    *,
    penultimate: bool = False,
    checkpoints: bool = False,
) -> tuple[Value, Value]:
    """The causal text encoder: states [batch, tokens, width] behind the last norm, or with
    `penultimate` before the last layer, and the state at the end of each text [batch, width].

    checkpoints: its layers are checkpoints of the model around it.
    """

    def body(x: Value) -> Value:
        if not checkpoints:
            return block(t, part, x, mask, causal=True)
        with t.checkpoint(x):
            return block(t, part, x, mask, causal=True)

    with t.scope("text_model"):
        ids = t.input((batch, sequence), "int64")
        with t.op("token_embedding", "embedding"):
            x = embedding.embedding(t, ids, part.vocab_size, part.hidden_size)
        with t.op("position_embedding", "embedding"):
            places = t.buffer(1, sequence, dtype="int64")
            rows, width = part.max_position_embeddings, part.hidden_size
            x = pointwise.add(t, x, embedding.embedding(t, places, rows, width))
        mask = transformer.causal_masks(t, sequence, batch)()
        early = part.num_hidden_layers - penultimate
        states = x = t.repeat("layers", early, body, x)
        x = t.repeat("layers", part.num_hidden_layers - early, body, x)
        x = normed(t, "final_layer_norm", x)
        with t.op("pool", "gather"):
            row, end = t.new((batch,), "int64"), t.new((batch,), "int64")
            pooled = moe.take(t, x, end, batch, part.hidden_size)
            t.save(row)
    return states if penultimate else x, pooled


def encoded_text(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """The causal text encoder: the projected state at the end of each text."""
    _, pooled = encoded(t, c.text, batch, sequence)
    with t.op("text_projection", "linear"):
        return linear.linear(t, pooled, c.projection_dim, bias=False)


def encoded_image(t: Tape, c: Config, batch: int) -> Value:
    """The image encoder: the projected state of the class token in front of the patches."""
    pooled = seen(t, c.vision, batch)
    with t.op("visual_projection", "linear"):
        return linear.linear(t, pooled, c.projection_dim, bias=False)


def seen(t: Tape, part: Vision, batch: int) -> Value:
    """The state of the class token of each image [batch, width]."""
    patches, width = (part.image_size // part.patch_size) ** 2, part.hidden_size
    with t.scope("vision_model"):
        pixels = t.input((batch, part.num_channels, part.image_size, part.image_size))
        with t.op("patch_embedding", "conv"):
            x = conv.conv(t, pixels, width, part.patch_size, stride=part.patch_size, bias=False)
        with t.op("class_embedding", "concat"):
            first = t.view(t.parameter(width), batch, 1, width)
            x = pointwise.concat(t, [first, t.view(x, batch, patches, width)], 1)
        with t.op("position_embedding", "embedding"):
            places = t.buffer(1, patches + 1, dtype="int64")
            x = pointwise.add(t, x, embedding.embedding(t, places, patches + 1, width))
        x = normed(t, "pre_layrnorm", x)
        x = t.repeat("layers", part.num_hidden_layers, lambda x: block(t, part, x), x)
        return normed(t, "post_layernorm", t.view(x, batch, width))


def block(
    t: Tape, part: Text | Vision, x: Value, mask: Value | None = None, *, causal: bool = False
) -> Value:
    """One block of either encoder; x and the result are [batch, tokens, width]."""
    width, heads = part.hidden_size, part.num_attention_heads
    h = normed(t, "layer_norm1", x)
    with t.scope("self_attn"):
        names = dict.fromkeys(("q_proj", "k_proj", "v_proj"), heads)
        q, k, v = projections(t, h, names, width // heads)
        with t.op("attention", "attention"):
            drop = part.attention_dropout
            h = attention.attention(
                t, q, k, v, causal=causal, mask=mask, softmax_fp32=True, dropout=drop, cache=0
            )
        with t.op("out_proj", "linear"):
            h = linear.linear(t, h, width)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "layer_norm2", x)
    with t.scope("mlp"):
        with t.op("fc1", "linear"):
            h = linear.linear(t, h, part.intermediate_size)
        with t.op("activation_fn", part.hidden_act):
            h = activate(t, part.hidden_act, h)
        with t.op("fc2", "linear"):
            h = linear.linear(t, h, width)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)
