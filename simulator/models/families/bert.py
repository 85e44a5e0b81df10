"""BERT, RoBERTa (XLM-R, CamemBERT), ELECTRA and relatives, with their heads.

Relatives differ by the facts in FACTS.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.simulator.models.families import encoder_heads
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import activate, normed, projections
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Facts(NamedTuple):
    """What distinguishes a model_type."""

    roberta: bool = False  # positions start after the padding, one row of them per sample
    first: bool = False  # layers normalize before each part, and the last one's result
    normed: bool = True  # the sum of embeddings is normalized
    eager: bool = False  # attention has no fused kernel
    last_drop: bool = True  # the result of the MLP is dropped at random
    types: int = 2  # default of type_vocab_size
    own_act: bool = False  # the head has the activation of the layers


ROBERTA = Facts(roberta=True)
FACTS = {
    "bert": Facts(own_act=True),
    "camembert": ROBERTA,
    "data2vec-text": ROBERTA,
    "electra": Facts(),
    "ernie": Facts(own_act=True),
    "megatron-bert": Facts(first=True, normed=False, eager=True, own_act=True),
    "roberta": ROBERTA,
    "roberta-prelayernorm": Facts(roberta=True, first=True),
    "xlm-roberta": ROBERTA,
    "xlm-roberta-xl": Facts(roberta=True, first=True, normed=False, last_drop=False, types=1),
}


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's configurations of FACTS, with their defaults."""

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
    type_vocab_size: int | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True
    classifier_dropout: float | None = None
    use_task_id: bool = False  # of ERNIE
    task_type_vocab_size: int = 3
    kept_head_dim: int | None = None  # width of a head, where heads were pruned

    @property
    def facts(self) -> Facts:
        """What distinguishes the model_type."""
        return FACTS[self.model_type]

    @property
    def types(self) -> int:
        """Kinds of segments."""
        return self.facts.types if self.type_vocab_size is None else self.type_vocab_size

    @property
    def style(self) -> Style:
        """Of the heads other than the masked language model's."""
        given = self.classifier_dropout
        drop = self.hidden_dropout_prob if given is None else given
        if self.model_type == "electra":
            return Style("gelu", before=True, pooler=False, drop=drop)
        return Style(before=self.roberta, drop=drop)

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
        return self.facts.roberta

    @property
    def embedded(self) -> int:
        """Width of the embedding tables."""
        return (self.embedding_size or 128) if self.model_type == "electra" else self.hidden_size

    @property
    def head_act(self) -> str:
        """Activation of the head."""
        return self.hidden_act if self.facts.own_act else "gelu"


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    rows = batch if c.roberta else 1  # RoBERTa numbers positions per sample, after its padding
    typed = batch if c.facts.eager else rows  # Megatron's are written out for every sample
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.embedded)
            x = embedding.embedding(t, ids, c.vocab_size, c.embedded, weight=table)
        with t.op("token_type_embeddings", "embedding"):
            types = t.new((typed, sequence), "int64")
            x = pointwise.add(t, x, embedding.embedding(t, types, c.types, c.embedded))
        with t.op("position_embeddings", "embedding"):
            shape, limit = (rows, sequence), c.max_position_embeddings
            places = t.new(shape, "int64") if c.roberta else t.buffer(*shape, dtype="int64")
            x = pointwise.add(t, x, embedding.embedding(t, places, limit, c.embedded))
        if c.use_task_id and c.model_type == "ernie":
            with t.op("task_type_embeddings", "embedding"):
                tasks, kinds = t.new((batch, sequence), "int64"), c.task_type_vocab_size
                x = pointwise.add(t, x, embedding.embedding(t, tasks, kinds, c.embedded))
        if c.facts.normed:
            x = normed(t, "LayerNorm", x)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.hidden_dropout_prob)
        if c.embedded != c.hidden_size:
            with t.op("project", "linear"):
                x = linear.linear(t, x, c.hidden_size)
    with t.scope("encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x), x)
        x = normed(t, "LayerNorm", x) if c.facts.first else x
    other = encoder_heads.headed(t, x, c.style)
    return masked_loss(t, c, x, table, ids) if other is None else other


def block(t: Tape, c: Config, x: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    dim, first = c.kept_head_dim or c.hidden_size // c.num_attention_heads, c.facts.first
    with t.scope("attention"):
        heads = dict.fromkeys(("query", "key", "value"), c.num_attention_heads)
        h = normed(t, "LayerNorm", x) if first else x
        q, k, v = projections(t, h, heads, dim)
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            eager = c.facts.eager
            h = attention.attention(t, q, k, v, causal=False, dropout=drop, eager=eager)
        with t.op("output.dense", "linear"):
            h = linear.linear(t, h, c.hidden_size)
        with t.op("output.residual", "add"):
            h = pointwise.add(t, pointwise.dropout(t, h, c.hidden_dropout_prob), x)
        x = h if first else normed(t, "output.LayerNorm", h)
    h = normed(t, "LayerNorm", x) if first else x
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, h, c.intermediate_size)
    with t.op("intermediate.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, c.hidden_size)
    with t.op("output.residual", "add"):
        drop = c.hidden_dropout_prob if c.facts.last_drop else 0.0
        h = pointwise.add(t, pointwise.dropout(t, h, drop), x)
    return h if first else normed(t, "output.LayerNorm", h)


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
