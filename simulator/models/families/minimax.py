"""MiniMax-Text-01: lightning attention in most layers, attention in some, and experts in all."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import kernels_of, self_attention
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    gated,
    rotary_tables,
)
from roofcast.simulator.work.ops import embedding, lightning, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's MiniMaxConfig, with its defaults."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    attention_dropout: float = 0.0
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    layer_types: list[str] | None = None
    attn_type_list: list[int] | None = None  # of the first release: 1 for attention
    block_size: int = 256
    output_router_logits: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        known = "linear_attention", "full_attention"
        bad = next((k for k in self.layer_types or () if k not in known), None)
        if bad is not None:
            raise ValueError(f"layer of kind {bad[:20]!r}; known: {', '.join(known)}")
        if self.block_size < 1:
            raise ValueError("block_size must be at least 1")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def kinds(self) -> list[bool]:
        """For every layer, whether it has attention with a softmax."""
        if self.layer_types:
            return [kind == "full_attention" for kind in self.layer_types]
        if self.attn_type_list:
            return [kind == 1 for kind in self.attn_type_list]
        return [layer % 2 == 0 for layer in range(self.num_hidden_layers)]

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.intermediate_size

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key-value heads, and the width of a head."""
        n = self.num_attention_heads
        return n, self.num_key_value_heads or n, self.head_dim or self.hidden_size // n


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, attention of either kind, norm, experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        tables = rotary_tables(t, sequence, c.heads[2])
        mask = transformer.causal_masks(t, sequence, batch)() if any(c.kinds) else None
        x = transformer.layers(
            t, "layers", c.kinds, lambda x, attends: block(t, c, x, tables, mask, attends), x
        )
        x = normed(t, "norm", x)
    if c.output_router_logits:
        t.assumptions.append("output_router_logits: the routers' part of the loss is not counted")
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x: Value) -> Value:
    """RMSNorm of x over its last dimension, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x)


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, attends: bool) -> Value:
    """One layer, whose residuals start behind its norms; x is [batch, tokens, width]."""
    x = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        if attends:
            h = self_attention(t, x, c.heads, mask, tables=tables, dropout=c.attention_dropout)
        else:
            h = lightning_attention(t, c, x)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, pointwise.scale(t, x), pointwise.scale(t, h))
    x = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        h = sparse_mlp(t, c, x)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, pointwise.scale(t, x), pointwise.scale(t, h))


def lightning_attention(t: Tape, c: Config, x: Value) -> Value:
    """out(sigmoid(gate(x)) * norm(y)) of x [batch, tokens, width]."""
    fused = kernels_of(t, "lightning attention", "lightning-attention")
    heads, _, dim = c.heads
    with t.op("qkv_proj", "linear"):
        qkv = linear.linear(t, x, 3 * heads * dim, bias=False)
        qkv = activate(t, c.hidden_act, qkv)
    with t.op("lightning", "scan"):
        own = t.share(heads, "the attention heads")
        run = lightning.fused_attention if fused else lightning.block_attention
        y = run(t, qkv, own, c.block_size)
    if t.parallel.tp > 1:  # the mean square over the heads of all ranks
        squares = t.new(y.shape[:-1], "fp32").bytes
        with t.op("norm", "rms_norm"):
            t.send("all_reduce", "tp", squares)
            if t.training:
                t.send("all_reduce", "tp", squares, phase="backward")
    y = normed(t, "norm", y)
    with t.op("output_gate", "linear"):
        gate = pointwise.unary(t, "sigmoid", linear.linear(t, x, heads * dim, bias=False))
        y = pointwise.mul(t, gate, y)
    with t.op("out_proj", "linear"):
        return linear.linear(t, y, c.hidden_size, bias=False)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts: softmax over all, the top k, their weights normalized, in fp32."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        logits = linear.linear(t, x, c.num_local_experts, bias=False, parallel=False)
        scores, ids = moe.top_k(t, norm.softmax(t, logits, dtype="fp32"), c.num_experts_per_tok)
        scores = moe.normalise(t, scores)
    with t.op("experts", "experts"):
        width, act = c.intermediate_size, c.hidden_act
        out = moe.gated_experts(
            t, x, scores, ids, c.num_local_experts, width, lambda y: gated(t, y, act)
        )
    return t.view(out, *h.shape)
