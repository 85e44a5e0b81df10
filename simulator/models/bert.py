"""BERT with its masked-language head. From its config.json."""

from __future__ import annotations

import msgspec

from simulator.models.transformer import activate, heads_of
from simulator.ops import attention, embedding, linear, loss, norm, pointwise
from simulator.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face BertConfig, with its defaults for what may be left out."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        return self.max_position_embeddings


def build(t: Tape, c: Config, batch: int, sequence: int):
    ids = t.input((batch, sequence), "int64")
    with t.scope("bert.embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.parameter(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        with t.op("token_type_embeddings", "embedding"):
            x = pointwise.add(t, x, embedding.embedding(t, t.buffer(batch, sequence, dtype="int64"), c.type_vocab_size, c.hidden_size))
        with t.op("position_embeddings", "embedding"):
            x = pointwise.add(t, x, embedding.embedding(t, t.new((1, sequence), "int64"), c.max_position_embeddings, c.hidden_size))
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.hidden_dropout_prob)
    with t.scope("bert.encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x), x)
    return masked_loss(t, c, x, table, ids)


def block(t: Tape, c: Config, x):
    dim = c.hidden_size // c.num_attention_heads
    with t.scope("attention"):
        heads = []
        for name in ("query", "key", "value"):
            with t.op(name, "linear"):
                heads.append(heads_of(t, linear.linear(t, x, c.hidden_size), c.num_attention_heads, dim))
        with t.op("attention", "attention"):
            h = attention.attention(t, *heads, causal=False, dropout=c.attention_probs_dropout_prob)
        with t.op("output.dense", "linear"):
            h = linear.linear(t, h, c.hidden_size)
        with t.op("output.residual", "add"):
            h = pointwise.add(t, pointwise.dropout(t, h, c.hidden_dropout_prob), x)
        with t.op("output.LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, h)
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, x, c.intermediate_size)
    with t.op("intermediate.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, c.hidden_size)
    with t.op("output.residual", "add"):
        h = pointwise.add(t, pointwise.dropout(t, h, c.hidden_dropout_prob), x)
    with t.op("output.LayerNorm", "layer_norm"):
        return norm.layer_norm(t, h)


def masked_loss(t: Tape, c: Config, x, table, ids):
    """Dense, activation, norm, then the tied vocabulary; the loss over every token."""
    with t.scope("cls.predictions"):
        with t.op("transform.dense", "linear"):
            x = linear.linear(t, x, c.hidden_size)
        with t.op("transform.act", c.hidden_act):
            x = activate(t, c.hidden_act, x)
        with t.op("transform.LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("decoder", "linear"):
            logits = linear.linear(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(ids.shape, "int64"))
