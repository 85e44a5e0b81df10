"""BERT, RoBERTa (XLM-R, CamemBERT) and ELECTRA with their masked-language-model heads."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import activate, projections
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's BertConfig, RobertaConfig, ElectraConfig, with their defaults."""

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
        """Longest sequence [tokens]; RoBERTa's positions start after its padding id."""
        if not self.roberta:
            return self.max_position_embeddings
        padding = 1 if self.pad_token_id is None else self.pad_token_id
        return self.max_position_embeddings - padding - 1

    @property
    def roberta(self) -> bool:
        """Whether the model is RoBERTa or a relative of it."""
        return self.model_type not in ("bert", "electra")

    @property
    def embedded(self) -> int:
        """Width of the embedding tables."""
        return (self.embedding_size or 128) if self.model_type == "electra" else self.hidden_size

    @property
    def head_act(self) -> str:
        """Activation of the head."""
        return self.hidden_act if self.model_type == "bert" else "gelu"


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    rows = batch if c.roberta else 1  # RoBERTa numbers positions per sample, after its padding
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.embedded)
            x = embedding.embedding(t, ids, c.vocab_size, c.embedded, weight=table)
        with t.op("token_type_embeddings", "embedding"):
            types = t.new((rows, sequence), "int64")
            x = pointwise.add(t, x, embedding.embedding(t, types, c.type_vocab_size, c.embedded))
        with t.op("position_embeddings", "embedding"):
            shape, limit = (rows, sequence), c.max_position_embeddings
            places = t.new(shape, "int64") if c.roberta else t.buffer(*shape, dtype="int64")
            x = pointwise.add(t, x, embedding.embedding(t, places, limit, c.embedded))
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


def block(t: Tape, c: Config, x: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    dim = c.hidden_size // c.num_attention_heads
    with t.scope("attention"):
        heads = dict.fromkeys(("query", "key", "value"), c.num_attention_heads)
        q, k, v = projections(t, x, heads, dim)
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            h = attention.attention(t, q, k, v, causal=False, dropout=drop)
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


def masked_loss(t: Tape, c: Config, x: Value, table: Value, ids: Value) -> Value:
    """The head (linear, activation, norm, vocabulary) and the loss over all tokens."""
    with t.scope("predictions"):
        with t.op("transform.dense", "linear"):
            x = linear.linear(t, x, c.embedded)
        with t.op("transform.act", c.head_act):
            x = activate(t, c.head_act, x)
        with t.op("transform.LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("decoder", "linear"):
            if not c.tie_word_embeddings and c.model_type != "electra":
                # a second bias, tied to the first only if the table is tied
                t.parameter(c.vocab_size)
            tied = table if c.tie_word_embeddings else None
            logits = linear.linear(t, x, c.vocab_size, weight=tied, parallel=True)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(ids.shape, "int64"))
