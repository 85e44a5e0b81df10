"""BLOOM: ALiBi positions; transformers has no fused attention for it."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import (
    causal_loss,
    causal_mask,
    heads_of,
    normed,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's BloomConfig, with its defaults; some keys have two names."""

    vocab_size: int
    hidden_size: int | None = None
    n_embed: int | None = None
    n_layer: int | None = None
    num_hidden_layers: int | None = None
    n_head: int | None = None
    num_attention_heads: int | None = None
    apply_residual_connection_post_layernorm: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    seq_length: int = 2048
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for names in (
            ("n_embed", "hidden_size"),
            ("n_layer", "num_hidden_layers"),
            ("n_head", "num_attention_heads"),
        ):
            if not any(getattr(self, name) for name in names):
                raise ValueError(f"Object missing required field `{names[1]}`")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.seq_length

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.n_embed or self.hidden_size or 0

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.n_layer or self.num_hidden_layers or 0

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.n_head or self.num_attention_heads or 0


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.width)
            x = embedding.embedding(t, ids, c.vocab_size, c.width, weight=table)
        x = normed(t, "word_embeddings_layernorm", x)
        mask = causal_mask(t, sequence, batch)
        alibi = t.new((batch * c.heads, 1, sequence))
        x = t.repeat("h", c.layers, lambda x: block(t, c, x, alibi, mask), x)
        x = normed(t, "ln_f", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, alibi: Value, mask: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    n = normed(t, "input_layernorm", x)
    with t.scope("self_attention"):
        h = self_attention(t, c, n, alibi, mask)
    with t.op("residual_attn", "add"):
        carried = n if c.apply_residual_connection_post_layernorm else x
        x = pointwise.add(t, carried, pointwise.dropout(t, h, c.hidden_dropout))
    n = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        with t.op("dense_h_to_4h", "linear"):
            h = linear.linear(t, n, 4 * c.width)
        with t.op("gelu", "gelu"):  # one op, which keeps its argument only
            h = pointwise.unary(t, "gelu_tanh", h)
        with t.op("dense_4h_to_h", "linear"):
            h = linear.linear(t, h, c.width)
    with t.op("residual_mlp", "add"):
        carried = n if c.apply_residual_connection_post_layernorm else x
        return pointwise.add(t, carried, pointwise.dropout(t, h, c.hidden_dropout))


def self_attention(t: Tape, c: Config, x: Value, alibi: Value, mask: Value) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    with t.op("query_key_value", "linear"):
        y = linear.linear(t, x, 3 * c.width)
    part = heads_of(t, t.view(y, *y.shape[:2], c.width), c.heads, c.width // c.heads)
    with t.op("attention", "attention"):
        if t.generates:
            h = attention.over_cache(t, part, part, part)
        else:
            h = attended(t, c, part, alibi, mask)
    with t.op("dense", "linear"):
        return linear.linear(t, h, c.width)


def attended(t: Tape, c: Config, part: Value, alibi: Value, mask: Value) -> Value:
    """Eager attention; `part` stands for q, k and v [B, H, S, D] -> [B, S, H D]."""
    attention.cached(t, part, part)
    q, k = attention.contiguous(t, part), attention.contiguous(t, part)
    scores = linear.matmul(t, q, k, transposed=True)  # ALiBi is added in the same kernel
    t.low(alibi)
    p = norm.softmax(t, pointwise.add(t, scores, mask), dtype="fp32")
    p = pointwise.dropout(t, t.cast(p, part.dtype), c.attention_dropout)
    return attention.merged(t, linear.matmul(t, p, attention.contiguous(t, part)))
