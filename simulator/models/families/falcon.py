"""Falcon: 7B (multi-query, parallel), 40B and 180B (grouped, two norms), RW (ALiBi, sequential)."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    heads_of,
    normed,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's FalconConfig, with its defaults."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_kv_heads: int | None = None
    ffn_hidden_size: int | None = None
    num_ln_in_parallel_attn: int | None = None
    new_decoder_architecture: bool = False
    multi_query: bool = True
    parallel_attn: bool = True
    alibi: bool = False
    bias: bool = False
    activation: str = "gelu"
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = True

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def groups(self) -> int:
        """Key-value heads of the fused query-key-value product."""
        if self.new_decoder_architecture:
            return self.num_kv_heads or self.num_attention_heads
        return 1 if self.multi_query else self.num_attention_heads

    @property
    def norms(self) -> int:
        """Number of layer norms in a parallel block."""
        return self.num_ln_in_parallel_attn or (2 if self.new_decoder_architecture else 1)


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, attention parallel to the MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        tables = None if c.alibi else rotary_tables(t, sequence, c.dim)
        mask: Value | None
        if c.alibi:
            mask = transformer.causal_mask(t, sequence, batch, heads=c.num_attention_heads)
        else:  # made even if the fused kernel does not need it
            mask = transformer.causal_masks(t, sequence, batch, always=True)()
        x = t.repeat("h", c.num_hidden_layers, lambda x: block(t, c, x, tables, mask), x)
        with t.op("ln_f", "layer_norm"):
            x = norm.layer_norm(t, x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def plain_linear(t: Tape, c: Config, x: Value, out: int) -> Value:
    """A linear layer whose bias is added by a separate kernel."""
    y = linear.linear(t, x, out, bias=False)
    return pointwise.add(t, y, t.parameter(out)) if c.bias else y


def block(t: Tape, c: Config, x: Value, tables: Tables | None, mask: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    parallel = c.new_decoder_architecture or c.parallel_attn
    if c.new_decoder_architecture and c.norms == 2:
        h, m = normed(t, "ln_attn", x), normed(t, "ln_mlp", x)
    else:
        m = h = normed(t, "input_layernorm", x)
    with t.scope("self_attention"):
        a = self_attention(t, c, h, tables, mask)
    if not parallel:
        with t.op("residual_attn", "add"):
            x = pointwise.add(t, x, pointwise.dropout(t, a, c.attention_dropout))
        m = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        with t.op("dense_h_to_4h", "linear"):
            m = plain_linear(t, c, m, c.ffn_hidden_size or 4 * c.hidden_size)
        with t.op("act", c.activation):
            m = activate(t, c.activation, m)
        with t.op("dense_4h_to_h", "linear"):
            m = plain_linear(t, c, m, c.hidden_size)
    with t.op("residual_mlp", "add"):
        if parallel:
            m = pointwise.add(t, m, a)
        return pointwise.add(t, x, pointwise.dropout(t, m, c.hidden_dropout))


def self_attention(
    t: Tape, c: Config, h: Value, tables: Tables | None, mask: Value | None
) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads, groups, dim = c.num_attention_heads, c.groups, c.dim
    with t.op("query_key_value", "linear"):
        qkv = plain_linear(t, c, h, (heads + 2 * groups) * dim)
        q, k, v = (
            heads_of(t, t.view(qkv, *qkv.shape[:2], n * dim), n, dim, shared=n < heads)
            for n in (heads, groups, groups)
        )
        if (c.new_decoder_architecture or c.multi_query) and not t.generates:
            k, v = picked(t, k), picked(t, v)
        if not t.generates:
            attention.cached(t, k, v)
        if c.new_decoder_architecture and not t.generates:
            # keys and values are expanded over their groups
            q = pointwise.copy(t, q) if 1 < groups < heads else q
            k, v = attention.repeated(t, k, q.shape[1]), attention.repeated(t, v, q.shape[1])
    if tables:
        with t.op("rotary", "rotary"):
            q, k = (rotate(t, x, *tables) for x in (q, k))
    with t.op("attention", "attention"):
        if t.generates:
            h = attention.over_cache(t, q, k, v)
        elif t.implementation("attention", "flash") == "eager":
            h = eager_attention(t, c, q, k, v, mask)
        else:
            if groups == 1 and not c.new_decoder_architecture:
                k, v = (attention.repeated(t, t.low(x), heads) for x in (k, v))
            h = attention.attention(
                t,
                q,
                k,
                v,
                cache=0,
                causal=True,
                mask=mask,
                dropout=c.attention_dropout if c.alibi else 0.0,
            )
    with t.op("dense", "linear"):
        return plain_linear(t, c, h, c.hidden_size)


def picked(t: Tape, x: Value) -> Value:
    """x[..., [-1], :]: indexing with a list copies, and the index is kept."""
    t.keep(8)
    return pointwise.copy(t, x)


def eager_attention(t: Tape, c: Config, q: Value, k: Value, v: Value, mask: Value | None) -> Value:
    """Eager attention with the softmax in the activations' format.

    A single key-value head is broadcast over all query heads.
    """
    assert mask is not None, "build() makes one for every layer"
    heads = q.shape[1]
    k, v = (attention.repeated(t, t.low(x), heads) for x in (k, v))
    q_low = attention.contiguous(t, t.low(q))
    scores = linear.matmul(t, q_low, attention.contiguous(t, k), transposed=True)
    if c.alibi:
        full = t.cast(scores, "fp32")
        slopes = t.new((q.shape[0], q.shape[1], 1, q.shape[2]), scores.dtype)
        scores = pointwise.add(t, full, slopes)
    scores = pointwise.add(t, pointwise.scale(t, scores), mask)
    p = norm.softmax(t, scores, dtype=t.precision.activations)
    if c.alibi:
        p = pointwise.dropout(t, p, c.attention_dropout)
    return attention.merged(t, linear.matmul(t, p, attention.contiguous(t, v)))
