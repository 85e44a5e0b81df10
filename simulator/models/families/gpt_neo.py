"""GPT-Neo. Attention scores are fp32, and transformers has no fused attention for it.

Layers with a window mask more scores, which changes no count.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import (
    activate,
    causal_loss,
    causal_mask,
    normed,
    projections,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's GPTNeoConfig, with its defaults."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int | None = None
    max_position_embeddings: int = 2048
    activation_function: str = "gelu_new"
    resid_dropout: float = 0.0
    embed_dropout: float = 0.0
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        with t.op("wpe", "embedding"):
            places = t.new((1, sequence), "int64")
            rows = c.max_position_embeddings
            x = pointwise.add(t, x, embedding.embedding(t, places, rows, c.hidden_size))
        with t.op("drop", "dropout"):
            x = pointwise.dropout(t, x, c.embed_dropout)
        mask = causal_mask(t, sequence, batch)
        x = t.repeat("h", c.num_layers, lambda x: block(t, c, x, mask), x)
        x = normed(t, "ln_f", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "ln_1", x)
    with t.scope("attn"):
        h = self_attention(t, c, h, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, h, x)
    h = normed(t, "ln_2", x)
    with t.scope("mlp"):
        with t.op("c_fc", "linear"):
            h = linear.linear(t, h, c.intermediate_size or 4 * c.hidden_size)
        with t.op("act", c.activation_function):
            h = activate(t, c.activation_function, h)
        with t.op("c_proj", "linear"):
            h = linear.linear(t, h, c.hidden_size)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.resid_dropout))


def self_attention(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads = dict.fromkeys(("q_proj", "k_proj", "v_proj"), c.num_heads)
    q, k, v = projections(t, x, heads, c.hidden_size // c.num_heads, bias=False)
    with t.op("attention", "attention"):
        if t.generates:
            h = attention.over_cache(t, q, k, v)
        else:
            h = attended(t, c, (q, k, v), mask)
    with t.op("out_proj", "linear"):
        return pointwise.dropout(t, linear.linear(t, h, c.hidden_size), c.resid_dropout)


def attended(t: Tape, c: Config, parts: tuple[Value, Value, Value], mask: Value) -> Value:
    """Eager attention with fp32 scores: q, k, v [B, H, S, D] -> [B, S, H D]."""
    v = parts[2]
    attention.cached(t, *parts[1:])
    q, k = (attention.contiguous(t, t.low(t.cast(y, "fp32"))) for y in parts[:2])
    scores = linear.matmul(t, q, k, transposed=True)
    length = v.shape[2]
    hidden = pointwise.where(t, scores, t.buffer(1, 1, length, length, dtype="bool"))
    p = t.cast(norm.softmax(t, pointwise.add(t, hidden, mask)), v.dtype)
    p = pointwise.dropout(t, p, c.attention_dropout)
    return attention.merged(t, linear.matmul(t, p, attention.contiguous(t, t.low(v))))
