"""XGLM: sinusoidal positions, norms before attention and MLP, eager attention only."""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
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
    """Keys of Hugging Face's XGLMConfig, with its defaults."""

    vocab_size: int = 256008
    d_model: int = 1024
    ffn_dim: int = 4096
    num_layers: int = 24
    attention_heads: int = 16
    max_position_embeddings: int = 2048
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    scale_embedding: bool = True
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def hidden_size(self) -> int:
        """Width of the hidden state."""
        return self.d_model

    @property
    def num_attention_heads(self) -> int:
        """Number of query heads."""
        return self.attention_heads


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Scaled embedding and positions, n x [norm, attention, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.d_model)
            x = embedding.embedding(t, ids, c.vocab_size, c.d_model, weight=table)
            x = pointwise.scale(t, x)
        with t.op("embed_positions", "embedding"):
            positions = t.new((1, sequence, c.d_model), t.precision.activations)
            t.emit("gather", (), (positions,), read=positions.bytes)
            x = pointwise.dropout(t, pointwise.add(t, x, positions), c.dropout)
        mask = causal_mask(t, sequence, batch)
        x = t.repeat("layers", c.num_layers, lambda x: block(t, c, x, mask), x)
        x = normed(t, "layer_norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "self_attn_layer_norm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout))
    h = normed(t, "final_layer_norm", x)
    with t.scope("mlp"):
        with t.op("fc1", "linear"):
            h = linear.linear(t, h, c.ffn_dim)
        with t.op("act", c.activation_function):
            h = activate(t, c.activation_function, h)
            h = pointwise.dropout(t, h, c.activation_dropout)
        with t.op("fc2", "linear"):
            h = linear.linear(t, h, c.d_model)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.dropout))


def self_attention(t: Tape, c: Config, h: Value, mask: Value) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    if t.parallel.cp > 1:
        raise BadInput(
            f"cp {t.parallel.cp}: context parallelism needs a fused attention without a mask; use"
            " cp 1"
        )
    heads = dict.fromkeys(("q_proj", "k_proj", "v_proj"), c.attention_heads)
    q, k, v = projections(t, h, heads, c.d_model // c.attention_heads)
    with t.op("attention", "attention"):
        if t.generates:
            h = attention.over_cache(t, q, k, v)
        else:
            h = attended(t, c, (q, k, v), mask)
    with t.op("out_proj", "linear"):
        return linear.linear(t, h, c.d_model)


def attended(t: Tape, c: Config, parts: tuple[Value, Value, Value], mask: Value) -> Value:
    """Eager attention of q, k, v [B, H, S, D] -> [B, S, H D]."""
    attention.cached(t, *parts[1:])
    parts = (pointwise.scale(t, parts[0]), *parts[1:])
    q, k, v = (attention.contiguous(t, t.low(x)) for x in parts)
    scores = pointwise.add(t, linear.matmul(t, q, k, transposed=True), mask)
    t.save(scores, t.new((), "fp32"))  # of torch.max with the lowest number
    scores = pointwise.unary(t, "add_scalar", scores)
    p = pointwise.dropout(t, norm.softmax(t, scores), c.attention_dropout)
    return attention.merged(t, linear.matmul(t, p, v))
