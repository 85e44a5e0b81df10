"""DistilBERT with its masked-language head. From its config.json."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import activate, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face DistilBertConfig, with its defaults for what may be left out."""

    vocab_size: int = 30522
    dim: int = 768
    n_layers: int = 6
    n_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    max_position_embeddings: int = 512
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings


def build(t: Tape, c: Config, batch: int, sequence: int):
    """One step over `batch` samples of `sequence` tokens, to its loss."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.dim)
            x = embedding.embedding(t, ids, c.vocab_size, c.dim, weight=table)
        with t.op("position_embeddings", "embedding"):
            places = t.buffer(1, sequence, dtype="int64")
            x = pointwise.add(
                t, x, embedding.embedding(t, places, c.max_position_embeddings, c.dim)
            )
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.dropout)
    x = t.repeat("layer", c.n_layers, lambda x: block(t, c, x), x)
    with t.op("vocab_transform", "linear"):
        x = linear.linear(t, x, c.dim)
    with t.op("activation", c.activation):
        x = activate(t, c.activation, x)
    with t.op("vocab_layer_norm", "layer_norm"):
        x = norm.layer_norm(t, x)
    with t.op("vocab_projector", "linear"):
        logits = linear.linear(
            t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None, parallel=True
        )
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(ids.shape, "int64"))


def block(t: Tape, c: Config, x):
    """One layer: x[batch, tokens, width] in and out."""
    with t.scope("attention"):
        heads = []
        for name in ("q_lin", "k_lin", "v_lin"):
            with t.op(name, "linear"):
                heads.append(heads_of(t, linear.linear(t, x, c.dim), c.n_heads, c.dim // c.n_heads))
        with t.op("attention", "attention"):
            h = attention.attention(t, *heads, causal=False, dropout=c.attention_dropout)
        with t.op("out_lin", "linear"):
            h = linear.linear(t, h, c.dim)
    with t.op("sa_layer_norm", "layer_norm"):
        x = norm.layer_norm(t, pointwise.add(t, h, x))
    with t.op("ffn.lin1", "linear"):
        h = linear.linear(t, x, c.hidden_dim)
    with t.op("ffn.activation", c.activation):
        h = activate(t, c.activation, h)
    with t.op("ffn.lin2", "linear"):
        h = linear.linear(t, h, c.dim)
    with t.op("output_layer_norm", "layer_norm"):
        return norm.layer_norm(t, pointwise.add(t, pointwise.dropout(t, h, c.dropout), x))
