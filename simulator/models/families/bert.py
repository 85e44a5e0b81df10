"""BERT, RoBERTa (XLM-R, CamemBERT) and ELECTRA with their masked-language heads. From their
config.json.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import activate, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face BertConfig, RobertaConfig, ElectraConfig, with their defaults for what may be
    left out.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    model_type: str = "bert"
    embedding_size: int | None = None
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """RoBERTa counts positions from its padding token's number on."""
        return self.max_position_embeddings - (
            (1 if self.pad_token_id is None else self.pad_token_id) + 1 if self.roberta else 0
        )

    @property
    def roberta(self) -> bool:
        """Is it of RoBERTa's kind?"""
        return self.model_type not in ("bert", "electra")

    @property
    def embedded(self) -> int:
        """Width of the embedding tables."""
        return (self.embedding_size or 128) if self.model_type == "electra" else self.hidden_size

    @property
    def head_act(self) -> str:
        """Activation of the head."""
        return self.hidden_act if self.model_type == "bert" else "gelu"


def build(t: Tape, c: Config, batch: int, sequence: int):
    """One step over `batch` samples of `sequence` tokens, to its loss."""
    ids = t.input((batch, sequence), "int64")
    rows = batch if c.roberta else 1  # RoBERTa numbers the positions of each row by its own padding
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.embedded)
            x = embedding.embedding(t, ids, c.vocab_size, c.embedded, weight=table)
        with t.op("token_type_embeddings", "embedding"):
            x = pointwise.add(
                t,
                x,
                embedding.embedding(
                    t, t.new((rows, sequence), "int64"), c.type_vocab_size, c.embedded
                ),
            )
        with t.op("position_embeddings", "embedding"):
            places = (
                t.new((rows, sequence), "int64")
                if c.roberta
                else t.buffer(1, sequence, dtype="int64")
            )
            x = pointwise.add(
                t, x, embedding.embedding(t, places, c.max_position_embeddings, c.embedded)
            )
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.hidden_dropout_prob)
        if c.embedded != c.hidden_size:
            with t.op("project", "linear"):
                x = linear.linear(t, x, c.hidden_size)
    with t.scope("encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x), x)
    return masked_loss(t, c, x, table, ids)


def block(t: Tape, c: Config, x):
    """One layer: x[batch, tokens, width] in and out."""
    dim = c.hidden_size // c.num_attention_heads
    with t.scope("attention"):
        heads = []
        for name in ("query", "key", "value"):
            with t.op(name, "linear"):
                heads.append(
                    heads_of(t, linear.linear(t, x, c.hidden_size), c.num_attention_heads, dim)
                )
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
    """Dense, activation, norm, then the (tied) vocabulary; the loss over every token."""
    with t.scope("predictions"):
        with t.op("transform.dense", "linear"):
            x = linear.linear(t, x, c.embedded)
        with t.op("transform.act", c.head_act):
            x = activate(t, c.head_act, x)
        with t.op("transform.LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("decoder", "linear"):
            if not c.tie_word_embeddings and c.model_type != "electra":
                # a second bias, tied to the first only where the table is
                t.parameter(c.vocab_size)
            logits = linear.linear(
                t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None, parallel=True
            )
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(ids.shape, "int64"))
