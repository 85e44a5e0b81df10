"""DistilBERT with its masked-language-model head."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import encoder_heads
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import activate, projections
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DistilBertConfig, with its defaults."""

    vocab_size: int = 30522
    dim: int = 768
    n_layers: int = 6
    n_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    qa_dropout: float = 0.1
    max_position_embeddings: int = 512
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.dim)
            x = embedding.embedding(t, ids, c.vocab_size, c.dim, weight=table)
        with t.op("position_embeddings", "embedding"):
            places = t.buffer(1, sequence, dtype="int64")
            limit = c.max_position_embeddings
            x = pointwise.add(t, x, embedding.embedding(t, places, limit, c.dim))
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.dropout)
    x = t.repeat("layer", c.n_layers, lambda x: block(t, c, x), x)
    style = Style("relu", pooler=False, drop=c.seq_classif_dropout, token_drop=c.dropout,
                  answer_drop=c.qa_dropout)  # fmt: skip
    other = encoder_heads.headed(t, x, style)
    if other is not None:
        return other
    with t.op("vocab_transform", "linear"):
        x = linear.linear(t, x, c.dim)
    with t.op("activation", c.activation):
        x = activate(t, c.activation, x)
    with t.op("vocab_layer_norm", "layer_norm"):
        x = norm.layer_norm(t, x)
    with t.op("vocab_projector", "linear"):
        tied = table if c.tie_word_embeddings else None
        logits = linear.linear(t, x, c.vocab_size, weight=tied, parallel=True)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(ids.shape, "int64"))


def block(t: Tape, c: Config, x: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    with t.scope("attention"):
        heads = dict.fromkeys(("q_lin", "k_lin", "v_lin"), c.n_heads)
        q, k, v = projections(t, x, heads, c.dim // c.n_heads)
        with t.op("attention", "attention"):
            h = attention.attention(t, q, k, v, causal=False, dropout=c.attention_dropout)
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
