"""Vision transformer with a classifier, as in transformers."""

from __future__ import annotations

from typing import Any

import msgspec

from roofcast.simulator.models.families.transformer import activate, projections
from roofcast.simulator.work.ops import attention, conv, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's ViTConfig, with its defaults."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    num_labels: int | None = None
    id2label: dict[str, str] | None = None

    @property
    def labels(self) -> int:
        """Classes of an image; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the logits."""
    pixels = t.input((batch, c.num_channels, image, image))
    tokens = (image // c.patch_size) ** 2 + 1
    with t.scope("vit.embeddings"):
        with t.op("patch_embeddings.projection", "conv"):
            x = conv.conv(t, pixels, c.hidden_size, c.patch_size, stride=c.patch_size)
            x = t.view(x, batch, tokens - 1, c.hidden_size)
        with t.op("cls_token", "concat"):
            first = t.parameter(1, 1, c.hidden_size)
            x = pointwise.concat(t, [t.view(first, batch, 1, c.hidden_size), x], 1)
        with t.op("position_embeddings", "add"):
            x = pointwise.add(t, x, t.parameter(1, tokens, c.hidden_size))
            x = pointwise.dropout(t, x, c.hidden_dropout_prob)
    with t.scope("vit.encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x), x)
    with t.op("vit.layernorm", "layer_norm"):
        x = norm.layer_norm(t, x)
    with t.op("classifier", "linear"):
        logits = linear.linear(t, t.view(x, batch, c.hidden_size), c.labels)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input((batch,), "int64"))


def block(t: Tape, c: Any, x: Value, *, softmax_fp32: bool = False) -> Value:
    """One block; x and the result are [batch, tokens, width]. `c` has the keys of a Config.

    softmax_fp32: eager attention computes its softmax in fp32.
    """
    dim = c.hidden_size // c.num_attention_heads
    with t.op("layernorm_before", "layer_norm"):
        h = norm.layer_norm(t, x)
    with t.scope("attention"):
        heads = dict.fromkeys(("query", "key", "value"), c.num_attention_heads)
        q, k, v = projections(t, h, heads, dim, bias=c.qkv_bias)
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            h = attention.attention(
                t, q, k, v, causal=False, dropout=drop, softmax_fp32=softmax_fp32
            )
        with t.op("output.dense", "linear"):
            h = pointwise.dropout(t, linear.linear(t, h, c.hidden_size), c.hidden_dropout_prob)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, h, x)
    with t.op("layernorm_after", "layer_norm"):
        h = norm.layer_norm(t, x)
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, h, c.intermediate_size)
    with t.op("intermediate.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, c.hidden_size)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, pointwise.dropout(t, h, c.hidden_dropout_prob), x)
