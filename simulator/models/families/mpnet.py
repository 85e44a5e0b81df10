"""MPNet [song2020]: BERT with one learned bias per relative position, shared by all layers."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import encoder_heads, masked
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import activate, projections
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

PADDING = 1  # id of the padding; positions start after it


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's MPNetConfig, with its defaults."""

    vocab_size: int = 30527
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    relative_attention_num_buckets: int = 32
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings - PADDING - 1


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    t.assumptions.append("encoder counted as transformers' MPNetForMaskedLM, without padding")
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            ids = t.input((batch, sequence), "int64")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        with t.op("position_embeddings", "embedding"):
            places = t.new((batch, sequence), "int64")
            e = embedding.embedding(t, places, c.max_position_embeddings, c.hidden_size)
            x = pointwise.add(t, x, e)
        with t.op("LayerNorm", "layer_norm"):
            x = pointwise.dropout(t, norm.layer_norm(t, x), c.hidden_dropout_prob)
    with t.op("encoder.relative_attention_bias", "embedding"):
        heads = t.share(c.num_attention_heads, "the attention heads")
        places = t.new((sequence, sequence), "int64")
        bias = embedding.embedding(t, places, c.relative_attention_num_buckets, heads)
        bias = pointwise.copy(t, bias, batch, heads, sequence, sequence)
    with t.scope("encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x, bias), x)
    style = Style(before=True, drop=c.hidden_dropout_prob)
    other = encoder_heads.headed(t, x, style)
    if other is not None:
        return other
    x = masked.head(t, x, c.hidden_size, "gelu", name="lm_head")
    return masked.masked_loss(t, x, c.vocab_size, table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, bias: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    width, heads, p = c.hidden_size, c.num_attention_heads, c.hidden_dropout_prob
    with t.scope("attention"):
        q, k, v = projections(t, x, dict.fromkeys(("q", "k", "v"), heads), width // heads)
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            h = attention.attention(t, q, k, v, causal=False, bias=bias, dropout=drop, eager=True)
        with t.op("o", "linear"):
            h = linear.linear(t, h, width)
        with t.op("residual", "add"):
            h = pointwise.add(t, pointwise.dropout(t, h, p), x)
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, h)
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, x, c.intermediate_size)
    with t.op("intermediate.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, width)
    with t.op("output.residual", "add"):
        h = pointwise.add(t, pointwise.dropout(t, h, p), x)
    with t.op("output.LayerNorm", "layer_norm"):
        return norm.layer_norm(t, h)
