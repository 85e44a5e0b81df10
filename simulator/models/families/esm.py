"""ESM-2 [lin2023]: an encoder of protein sequences, with rotary embeddings or learned positions."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import encoder_heads
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import (
    Tables,
    normed,
    projections,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's EsmConfig, with its defaults."""

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 1026
    position_embedding_type: str = "absolute"
    emb_layer_norm_before: bool | None = None
    token_dropout: bool = False
    is_folding_model: bool = False
    classifier_dropout: float | None = None
    hidden_act: str = "gelu"  # unread: the layers have a gelu of their own
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        if self.is_folding_model:
            raise ValueError("is_folding_model: the folding trunk is not modeled; use false")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings - 2

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are rotated, instead of learned positions."""
        return self.position_embedding_type == "rotary"


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids, width = t.input((batch, sequence), "int64"), c.hidden_size
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, width)
            x = embedding.embedding(t, ids, c.vocab_size, width, weight=table)
        if c.token_dropout:
            x = rescaled(t, x)
        if not c.rotary:
            with t.op("position_embeddings", "embedding"):
                places = t.new((batch, sequence), "int64")
                e = embedding.embedding(t, places, c.max_position_embeddings, width)
                x = pointwise.add(t, x, e)
        if c.emb_layer_norm_before:
            x = normed(t, "layer_norm", x)
    tables = rotary_tables(t, sequence, width // c.num_attention_heads) if c.rotary else None
    with t.scope("encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x, tables), x)
        x = normed(t, "emb_layer_norm_after", x)
    given = c.classifier_dropout
    drop = c.hidden_dropout_prob if given is None else given
    other = encoder_heads.headed(t, x, Style(before=True, drop=drop))
    with t.op("contact_head", "linear"):  # reads attention scores, on request only
        t.parameter(c.num_hidden_layers * c.num_attention_heads), t.parameter(1)
    return masked_loss(t, c, x, table, ids) if other is None else other


def rescaled(t: Tape, x: Value) -> Value:
    """Embeddings without those of masked tokens, over the share of tokens that are left."""
    batch, length, _ = x.shape
    with t.op("token_dropout", "mul"):
        masked = t.new((batch, length, 1), "bool")
        t.emit("elementwise", (), (masked,), vector=masked.size)
        x = pointwise.scale(t, pointwise.where(t, x, masked))
        left = t.new((batch, 1, 1), "fp32")
        t.emit("reduce", (masked,), (left,), vector=masked.size)
        return t.cast(pointwise.mul(t, x, left), t.precision.weights)


def gelu(t: Tape, x: Value) -> Value:
    """x/2 (1 + erf(x / sqrt(2))), of single kernels."""
    if t.implementation("gelu", "composed") != "composed":
        return pointwise.unary(t, "gelu", x)
    error = pointwise.unary(t, "erf", pointwise.scale(t, x))
    return pointwise.mul(t, pointwise.scale(t, x), pointwise.unary(t, "add_scalar", error))


def turned(t: Tape, x: Value, tables: Tables) -> Value:
    """The rotation of x [B, H, S, D] in fp32."""
    return t.cast(rotate(t, t.cast(x, "fp32"), *tables), x.dtype)


def block(t: Tape, c: Config, x: Value, tables: Tables | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    width, heads, p = c.hidden_size, c.num_attention_heads, c.hidden_dropout_prob
    h = normed(t, "attention.LayerNorm", x)
    with t.scope("attention"):
        names = dict.fromkeys(("query", "key", "value"), heads)
        q, k, v = projections(t, h, names, width // heads)
        with t.op("rotary", "rotary"):
            q = pointwise.scale(t, q)
            if tables is not None:
                q, k = turned(t, q, tables), turned(t, k, tables)
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            h = attention.attention(t, q, k, v, causal=False, dropout=drop)
        with t.op("output.dense", "linear"):
            h = linear.linear(t, h, width)
        with t.op("output.residual", "add"):
            x = pointwise.add(t, pointwise.dropout(t, h, p), x)
    h = normed(t, "LayerNorm", x)
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, h, c.intermediate_size)
    with t.op("intermediate.act", "gelu"):
        h = gelu(t, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, width)
    with t.op("output.residual", "add"):
        return pointwise.add(t, pointwise.dropout(t, h, p), x)


def masked_loss(t: Tape, c: Config, x: Value, table: Value, ids: Value) -> Value:
    """The head (linear, activation, norm, vocabulary, bias) and the loss over all tokens."""
    with t.scope("lm_head"):
        with t.op("dense", "linear"):
            x = linear.linear(t, x, c.hidden_size)
        with t.op("act", "gelu"):
            x = gelu(t, x)
        with t.op("layer_norm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("decoder", "linear"):
            tied = table if c.tie_word_embeddings else None
            logits = linear.linear(t, x, c.vocab_size, bias=False, weight=tied, parallel=True)
            logits = pointwise.add(t, logits, t.parameter(logits.shape[-1]))
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(ids.shape, "int64"))
