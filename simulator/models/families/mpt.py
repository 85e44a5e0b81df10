"""MPT: ALiBi positions, no biases; transformers has no fused attention for it."""

from __future__ import annotations

from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import causal_loss, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Attention(msgspec.Struct, frozen=True):
    """Keys of MptAttentionConfig."""

    attn_pdrop: float = 0.0
    clip_qkv: float | None = None


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's MptConfig, with its defaults."""

    vocab_size: int = 50368
    d_model: int = 2048
    n_heads: int = 16
    n_layers: int = 24
    max_seq_len: int = 2048
    attn_config: Attention = Attention()
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_seq_len

    @property
    def hidden_size(self) -> int:
        """Width of the hidden state."""
        return self.d_model

    @property
    def num_attention_heads(self) -> int:
        """Number of query heads."""
        return self.n_heads


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, attention, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.d_model)
            x = embedding.embedding(t, ids, c.vocab_size, c.d_model, weight=table)
        with t.op("alibi", "mask"):
            slopes = t.new((c.n_heads, 1, c.max_seq_len), "fp32")
            t.emit("elementwise", (), (slopes,), vector=slopes.size)
            mask = t.new((batch, 1, sequence, sequence), "bool")
            t.emit("elementwise", (), (mask,), vector=mask.size)
        x = t.repeat("blocks", c.n_layers, lambda x: block(t, c, x, mask), x)
        x = normed(t, "norm_f", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x: Value) -> Value:
    """LayerNorm without a shift over the last dimension of x, as an op called `name`."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x, bias=False)


def block(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    drop = c.attn_config.attn_pdrop
    h = normed(t, "norm_1", x)
    with t.scope("attn"):
        h = self_attention(t, c, h, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, pointwise.dropout(t, h, drop), x)
    h = normed(t, "norm_2", x)
    with t.scope("ffn"):
        with t.op("up_proj", "linear"):
            h = linear.linear(t, h, 4 * c.d_model, bias=False)
        with t.op("act", "gelu"):
            h = pointwise.unary(t, "gelu", h)
        with t.op("down_proj", "linear"):
            h = linear.linear(t, h, c.d_model, bias=False)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, pointwise.dropout(t, h, drop), x)


def self_attention(t: Tape, c: Config, h: Value, mask: Value) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    heads, dim = c.n_heads, c.d_model // c.n_heads
    if t.parallel.cp > 1:
        raise BadInput(
            f"cp {t.parallel.cp}: context parallelism needs a fused attention without a mask; use"
            " cp 1"
        )
    with t.op("Wqkv", "linear"):
        y = linear.linear(t, h, 3 * c.d_model, bias=False)
        if c.attn_config.clip_qkv:
            y = pointwise.unary(t, "clamp", y)
    with t.op("attention", "attention"):
        x: Any = heads_of(t, t.view(y, *y.shape[:2], c.d_model), heads, dim)
        h = attention.over_cache(t, x, x, x) if t.generates else attended(t, c, x, mask)
    with t.op("out_proj", "linear"):
        return linear.linear(t, h, c.d_model, bias=False)


def attended(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """Eager attention with ALiBi; x stands for q, k and v [B, H, S, D] -> [B, S, H D]."""
    attention.cached(t, x, x)
    q, k, v = (attention.contiguous(t, t.low(x)) for _ in range(3))
    scores = pointwise.scale(t, linear.matmul(t, q, k, transposed=True))
    slopes = t.new((q.shape[1], 1, q.shape[2]), "fp32")
    scores = pointwise.where(t, pointwise.add(t, scores, slopes), mask)
    p = t.cast(norm.softmax(t, t.cast(scores, "fp32")), t.precision.activations)
    p = pointwise.dropout(t, p, c.attn_config.attn_pdrop)
    return attention.merged(t, linear.matmul(t, p, v))
