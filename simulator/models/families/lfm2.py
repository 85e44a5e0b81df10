"""LFM2: gated short convolutions and attention, each with an MLP or experts."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import causal_conv, kernels_of
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    gated,
    gated_mlp,
    projections,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Kind = tuple[bool, bool]  # attention instead of a convolution, experts instead of an MLP


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Lfm2Config and Lfm2MoeConfig, with their defaults."""

    model_type: str
    vocab_size: int = 65536
    hidden_size: int = 2560
    intermediate_size: int = 12288
    block_ff_dim: int | None = None
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    max_position_embeddings: int = 128000
    conv_bias: bool = False
    conv_L_cache: int = 3
    block_multiple_of: int = 256
    block_ffn_dim_multiplier: float | None = 1.0
    block_auto_adjust_ff_dim: bool = True
    full_attn_idxs: list[int] | None = None
    layer_types: list[str] | None = None
    moe_intermediate_size: int = 1792
    num_dense_layers: int = 2
    num_experts: int = 32
    num_experts_per_tok: int = 4
    use_expert_bias: bool = True
    norm_topk_prob: bool = True
    tie_embedding: bool | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        known = "conv", "full_attention"
        bad = next((k for k in self.layer_types or () if k not in known), None)
        if bad is not None:
            raise ValueError(f"layer of kind {bad[:20]!r}; known: {', '.join(known)}")
        if self.block_multiple_of < 1:
            raise ValueError("block_multiple_of must be at least 1")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def sparse(self) -> bool:
        """Whether layers have experts."""
        return self.model_type == "lfm2_moe"

    @property
    def kinds(self) -> list[Kind]:
        """The kind of every layer."""
        layers = range(self.num_hidden_layers)
        if self.layer_types:
            attends = [kind == "full_attention" for kind in self.layer_types]
        else:
            named = self.full_attn_idxs
            attends = [named is None or layer in named for layer in layers]
        return [(attends[n], self.sparse and n >= self.num_dense_layers) for n in layers]

    @property
    def width(self) -> int:
        """Inner width of an MLP."""
        width = self.block_ff_dim or self.intermediate_size
        if self.sparse or not self.block_auto_adjust_ff_dim:
            return width
        width = int(2 * width / 3)
        if self.block_ffn_dim_multiplier is None:
            return width
        unit = self.block_multiple_of
        return unit * -(-int(self.block_ffn_dim_multiplier * width) // unit)

    @property
    def expert_width(self) -> int | None:
        """Inner width of an expert; None where there are none."""
        return self.moe_intermediate_size if self.sparse else None

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's weight."""
        return self.tie_word_embeddings if self.tie_embedding is None else self.tie_embedding


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, convolution or attention, norm, MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        tables = rotary_tables(t, sequence, c.hidden_size // c.num_attention_heads)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = transformer.layers(
            t, "layers", c.kinds, lambda x, kind: block(t, c, x, tables, mask, kind), x
        )
        x = normed(t, "embedding_norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tied else None)


def normed(t: Tape, name: str, x: Value) -> Value:
    """RMSNorm of x over its last dimension, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x)


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, kind: Kind) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    attends, sparse = kind
    h = normed(t, "operator_norm", x)
    if attends:
        with t.scope("self_attn"):
            h = self_attention(t, c, h, tables, mask)
    else:
        with t.scope("conv"):
            h = short_conv(t, c, h)
    with t.op("residual_mixer", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "ffn_norm", x)
    with t.scope("feed_forward"):
        if sparse:
            h = sparse_mlp(t, c, h)
        else:
            h = gated_mlp(t, h, c.width, c.hidden_size, names=("w1", "w3", "w2"))
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def self_attention(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None) -> Value:
    """Attention with normalized queries and keys; x and the result are [batch, tokens, width]."""
    dim, groups = c.hidden_size // c.num_attention_heads, c.num_key_value_heads
    names = {"q_proj": c.num_attention_heads, "k_proj": groups, "v_proj": groups}
    q, k, v = projections(t, x, names, dim, bias=False, whole=dim)
    q, k = normed(t, "q_layernorm", q), normed(t, "k_layernorm", k)
    with t.op("rotary", "rotary"):
        q, k = (rotate(t, y, *tables) for y in (q, k))
    with t.op("attention", "attention"):
        h = attention.attention(t, q, k, v, causal=True, mask=mask, softmax_fp32=True)
    with t.op("out_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=False)


def short_conv(t: Tape, c: Config, x: Value) -> Value:
    """C * conv(B * x) for B, C and x from one product; conv is causal and by channel."""
    fused = kernels_of(t, "short convolution", "causal-conv1d")
    with t.op("in_proj", "linear"):
        both = linear.linear(t, x, 3 * c.hidden_size, bias=c.conv_bias)
        batch, length = both.shape[:2]
        width = both.shape[-1] // 3
        b, gate, u = (t.view(both, batch, width, length) for _ in range(3))
    with t.op("conv", "short_conv"):
        u = pointwise.mul(t, b, u)
        u = causal_conv(t, u, c.conv_L_cache, bias=c.conv_bias, act=None, fused=fused)
        y = pointwise.copy(t, pointwise.mul(t, gate, u), batch, length, width)
    with t.op("out_proj", "linear"):
        return linear.linear(t, y, c.hidden_size, bias=c.conv_bias)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts that are rated by a sigmoid; an untrained bias affects the choice only."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        logits = linear.linear(t, x, c.num_experts, bias=False, parallel=False)
        scores = pointwise.unary(t, "sigmoid", logits)
        if c.use_expert_bias:
            biased = pointwise.add(t, scores, t.buffer(c.num_experts))
            _, ids = moe.top_k(t, biased, c.num_experts_per_tok)
            scores = moe.take(t, scores, ids, *ids.shape)
        else:
            scores, ids = moe.top_k(t, scores, c.num_experts_per_tok)
        if c.norm_topk_prob:
            total = pointwise.unary(t, "add_scalar", pointwise.total(t, scores))
            scores = pointwise.mul(t, scores, total)  # a quotient keeps what a product keeps
        scores = pointwise.scale(t, scores)
    with t.op("experts", "experts"):
        width = c.moe_intermediate_size
        out = moe.gated_experts(
            t, x, scores, ids, c.num_experts, width, lambda y: gated(t, y, "silu")
        )
    return t.view(out, *h.shape)
