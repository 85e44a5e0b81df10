"""DBRX: one product for q, k and v, clamped; layer norms without bias; every layer of experts."""

from __future__ import annotations

from typing import Any

import msgspec

from roofcast.simulator.models.families import routers, transformer
from roofcast.simulator.models.families.routers import Routing, jittered
from roofcast.simulator.models.families.transformer import Tables, gated, heads_of, rotate
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Attention(msgspec.Struct, frozen=True):
    """Keys of `attn_config`."""

    attn_pdrop: float = 0.0
    clip_qkv: float | None = None
    kv_n_heads: int = 1


class Experts(msgspec.Struct, frozen=True):
    """Keys of `ffn_config`."""

    ffn_hidden_size: int = 3584
    moe_num_experts: int = 4
    moe_top_k: int = 1
    moe_jitter_eps: float | None = None
    moe_normalize_expert_weights: float | None = 1.0
    ffn_act_fn: dict[str, Any] | None = None


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DbrxConfig, with its defaults."""

    vocab_size: int = 32000
    d_model: int = 2048
    n_heads: int = 16
    n_layers: int = 24
    max_seq_len: int = 2048
    resid_pdrop: float = 0.0
    attn_config: Attention = Attention()
    ffn_config: Experts = Experts()

    def __post_init__(self) -> None:
        heads, groups = self.n_heads, self.attn_config.kv_n_heads
        if not heads or self.d_model % heads or not groups or heads % groups:
            raise ValueError(
                f"'n_heads' {heads} must divide 'd_model' {self.d_model}, and 'kv_n_heads'"
                f" {groups} must divide 'n_heads'"
            )

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.ffn_config.ffn_hidden_size

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_seq_len

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.d_model)
            x = embedding.embedding(t, ids, c.vocab_size, c.d_model, weight=table)
        tables = transformer.rotary_tables(t, sequence, c.dim)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = t.repeat("blocks", c.n_layers, lambda x: block(t, c, x, tables, mask), x)
        x = normed(t, "norm_f", x)
    return transformer.causal_loss(t, x, c.vocab_size)


def normed(t: Tape, name: str, x: Value) -> Value:
    """LayerNorm without a bias, as an op called `name`."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x, bias=False)


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "norm_1", x)
    with t.scope("attn"):
        h = self_attention(t, c, h, tables, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, pointwise.dropout(t, h, c.resid_pdrop), x)
    h = normed(t, "norm_2", x)
    with t.scope("ffn"):
        h = sparse_mlp(t, c, h)
    with t.op("residual_ffn", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.resid_pdrop))


def self_attention(t: Tape, c: Config, h: Value, tables: Tables, mask: Value | None) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    given = c.attn_config
    heads = {"q": c.n_heads, "k": given.kv_n_heads, "v": given.kv_n_heads}
    with t.op("Wqkv", "linear"):
        h = linear.linear(t, h, sum(heads.values()) * c.dim, bias=False)
    if given.clip_qkv is not None:
        with t.op("clip_qkv", "clamp"):
            h = pointwise.unary(t, "clamp", h)
    q, k, v = (
        heads_of(t, t.view(h, *h.shape[:2], n * c.dim), n, c.dim, shared=name != "q")
        for name, n in heads.items()
    )
    with t.op("rotary", "rotary"):
        q, k = rotate(t, q, *tables), rotate(t, k, *tables)
    with t.op("attention", "attention"):
        drop = given.attn_pdrop
        h = attention.attention(t, q, k, v, causal=True, mask=mask, softmax_fp32=True, dropout=drop)
    with t.op("out_proj", "linear"):
        return linear.linear(t, h, c.d_model, bias=False)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Each token through its experts, whose softmax weights are divided by their norm."""
    given = c.ffn_config
    with t.op("router", "router"):
        h = jittered(t, h, given.moe_jitter_eps or 0.0)
        x = t.view(h, h.shape[0] * h.shape[1], c.d_model)
        divided = given.moe_normalize_expert_weights is not None
        routing = Routing(given.moe_num_experts, given.moe_top_k, divided)
        scores, ids = routers.softmax_plain(t, routing, x)
    with t.op("experts", "experts"):
        name = (given.ffn_act_fn or {}).get("name", "silu")
        width = given.ffn_hidden_size
        experts = given.moe_num_experts
        out = moe.gated_experts(t, x, scores, ids, experts, width, lambda y: gated(t, y, name))
    return t.view(out, *h.shape)
