"""SigLIP and SigLIP 2 [zhai2023]: a text and an image encoder with a sigmoid loss of every pair.

A sample is a pair: a text of `sequence` tokens and an image of the config's size.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import clip
from roofcast.simulator.models.families.transformer import activate, normed
from roofcast.simulator.models.vision.parts import dense, residual
from roofcast.simulator.work.ops import conv, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Text(clip.Text, frozen=True):
    """Keys of Hugging Face's SiglipTextConfig, with its defaults."""

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 64
    hidden_act: str = "gelu_pytorch_tanh"
    attention_dropout: float = 0.0
    projection_size: int | None = None


class Vision(clip.Vision, frozen=True):
    """Keys of Hugging Face's SiglipVisionConfig, with its defaults."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    attention_dropout: float = 0.0
    vision_use_head: bool = True


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's SiglipConfig: both encoders."""

    text_config: Text | None = None
    vision_config: Vision | None = None

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
    """One step on `batch` pairs: the loss, or in inference the logits."""
    with t.scope("vision_model"):
        _, image = seen(t, c.vision, batch, c.vision.image_size)
    text = read(t, c.text, batch, sequence)
    with t.op("logits", "matmul"):
        text, image = unit(t, text), unit(t, image)
        logits = linear.matmul(t, text, image, transposed=True)
        scale = pointwise.unary(t, "exp", t.parameter(1))
        logits = pointwise.add(t, pointwise.mul(t, logits, scale), t.parameter(1))
    if not t.training:
        return logits
    with t.op("loss", "bce_with_logits"):
        signs = t.new(logits.shape, "fp32")
        t.emit("elementwise", (), (signs,), vector=2 * signs.size)
        signed = pointwise.mul(t, logits, signs)
        kept = pointwise.unary(t, "softplus", signed)
        return pointwise.mean(t, pointwise.total(t, kept), 0)


def unit(t: Tape, x: Value) -> Value:
    """x / |x|, per row."""
    length = t.new((*x.shape[:-1], 1), x.dtype, x.grad)
    out = t.new(x.shape, x.dtype, x.grad)
    t.emit("reduce", (x,), (length,), vector=2 * x.size)
    t.emit("elementwise", (x, length), (out,), vector=x.size)
    if x.grad:
        t.save(x, length)
        flops, read, written = 5 * x.size, 3 * x.bytes, 2 * x.bytes
        t.backward("elementwise", vector=flops, read=read, written=written, product=x.dtype)
    return out


def read(t: Tape, part: Text, batch: int, sequence: int) -> Value:
    """The text encoder, without a mask: the projected state of the last token of each text."""
    with t.scope("text_model"):
        with t.op("token_embedding", "embedding"):
            ids = t.input((batch, sequence), "int64")
            x = embedding.embedding(t, ids, part.vocab_size, part.hidden_size)
        with t.op("position_embedding", "embedding"):
            places = t.buffer(1, sequence, dtype="int64")
            rows = part.max_position_embeddings
            x = pointwise.add(t, x, embedding.embedding(t, places, rows, part.hidden_size))
        x = t.repeat("layers", part.num_hidden_layers, lambda x: clip.block(t, part, x), x)
        x = t.view(normed(t, "final_layer_norm", x), batch, part.hidden_size)
        return dense(t, "head", x, part.projection_size or part.hidden_size)


def seen(t: Tape, part: Vision, batch: int, side: int) -> tuple[Value, Value]:
    """The image encoder: the state of all patches, and one per image where there is a head."""
    pixels = t.input((batch, part.num_channels, side, side))
    with t.op("patch_embedding", "conv"):  # pixels that fill no patch are left out
        x = conv.conv(t, pixels, part.hidden_size, part.patch_size, stride=part.patch_size)
        x = t.view(x, batch, (side // part.patch_size) ** 2, part.hidden_size)
    with t.op("position_embedding", "embedding"):
        places = t.buffer(1, x.shape[1], dtype="int64")
        count = (part.image_size // part.patch_size) ** 2
        x = pointwise.add(t, x, embedding.embedding(t, places, count, part.hidden_size))
    x = t.repeat("layers", part.num_hidden_layers, lambda x: clip.block(t, part, x), x)
    x = normed(t, "post_layernorm", x)
    return x, pooled(t, part, x) if part.vision_use_head else x


def pooled(t: Tape, part: Vision, x: Value) -> Value:
    """Attention of one learned query over the patches x, and an MLP: [batch, width]."""
    batch, length, width = x.shape
    heads = part.num_attention_heads
    dim = width // heads
    with t.scope("head"):
        with t.op("probe", "copy"):
            query = pointwise.copy(t, t.parameter(1, 1, width), batch, 1, width)
        with t.op("attention.in_proj", "linear"):
            q = linear.linear(t, query, width, parallel=False)
            rows = x if batch == 1 else pointwise.copy(t, x)  # tokens first, as the module has it
            kv = linear.linear(t, rows, 2 * width, parallel=False)
            kv = pointwise.copy(t, kv, 2, *x.shape)
        with t.op("attention", "attention"):
            q = pointwise.scale(t, t.view(q, batch, heads, 1, dim))
            k = t.view(kv, batch, heads, length, dim)
            p = norm.softmax(t, linear.matmul(t, q, k, transposed=True))
            h = linear.matmul(t, p, k)
            h = pointwise.copy(t, h) if batch > 1 else h
        x = dense(t, "attention.out_proj", t.view(h, batch, 1, width), width)
        h = normed(t, "layernorm", x)
        h = dense(t, "mlp.fc1", h, part.intermediate_size)
        with t.op("mlp.activation_fn", part.hidden_act):
            h = activate(t, part.hidden_act, h)
        x = residual(t, x, dense(t, "mlp.fc2", h, width))
        return t.view(x, batch, width)
