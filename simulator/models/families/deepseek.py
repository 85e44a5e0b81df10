"""DeepSeek V2 and V3 (R1): latent attention; dense first layers, then shared and routed experts.

transformers trains no multi-token prediction; `implementations={"mtp": "train"}` adds it.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    causal_loss,
    gated,
    gated_mlp,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Tables = tuple[Value, ...]  # cos and sin (V3), or one table of complex numbers (V2)


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DeepseekV2Config and DeepseekV3Config, with their defaults."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int | None = None
    first_k_dense_replace: int | None = None
    q_lora_rank: int | None = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    n_group: int | None = None
    topk_group: int | None = None
    topk_method: str | None = None
    norm_topk_prob: bool = True
    rope_interleave: bool = True
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    max_position_embeddings: int | None = None
    num_nextn_predict_layers: int = 1
    tie_word_embeddings: bool = False

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.moe_intermediate_size

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings or (4096 if self.third else 2048)

    @property
    def third(self) -> bool:
        """Whether the model is DeepSeek V3."""
        return self.model_type == "deepseek_v3"

    @property
    def dense_layers(self) -> int:
        """Number of first layers that have no experts."""
        default = 3 if self.third else 0
        return default if self.first_k_dense_replace is None else self.first_k_dense_replace

    @property
    def shared_width(self) -> int:
        """Inner width of the shared experts together."""
        return self.moe_intermediate_size * (self.n_shared_experts or (1 if self.third else 2))

    @property
    def dim(self) -> int:
        """Width of a query or key head: the rotated and the other elements."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, latent attention, norm, MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            embedded = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        make_tables = rotary_tables if c.third else complex_table
        tables = make_tables(t, sequence, c.qk_rope_head_dim)
        mask = transformer.causal_masks(t, sequence, batch)()
        kinds = [layer >= c.dense_layers for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", kinds, lambda x, sparse: block(t, c, x, tables, mask, sparse), embedded
        )
        if t.implementation("mtp", "none") == "train" and c.third:
            predict_further(t, c, x, embedded, table, tables, mask)
        x = normed(t, "norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def predict_further(
    t: Tape, c: Config, x: Value, embedded: Value, table: Value, tables: Tables, mask: Value | None
) -> None:
    """Multi-token prediction [deepseek2024], with a loss per further token.

    The normalized state and embedding are concatenated and projected; one more layer and the shared
    head follow.
    """
    for depth in range(c.num_nextn_predict_layers):
        with t.scope(f"mtp.{depth}"):
            joined = pointwise.concat(t, [normed(t, "hnorm", x), normed(t, "enorm", embedded)], -1)
            with t.op("eh_proj", "linear"):
                x = linear.linear(t, joined, c.hidden_size, bias=False)
            x = t.repeat("layer", 1, lambda x: block(t, c, x, tables, mask, True), x)
            causal_loss(t, normed(t, "norm", x), c.vocab_size, weight=table)


def normed(t: Tape, name: str, x: Value) -> Value:
    """RMSNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x)


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, sparse: bool) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        bias = c.mlp_bias and not c.third
        if sparse:
            h = sparse_mlp(t, c, h, bias)
        else:
            width, act = c.intermediate_size, c.hidden_act
            h = gated_mlp(t, h, width, c.hidden_size, activation=act, bias=bias)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def complex_table(t: Tape, sequence: int, dim: int) -> tuple[Value]:
    """A table of complex numbers of unit length, one per position and pair of elements."""
    with t.op("rotary_emb", "rotary"):
        table = t.new((1, sequence, dim // 2, 2), "fp32")
        t.emit("elementwise", (), (table,), vector=table.size, special=table.size)
    return (table,)


def turn_complex(t: Tape, x: Value, table: Value) -> Value:
    """Rotary embedding of x [B, H, S, D]: as complex numbers in fp32, times the table."""
    full = t.cast(x, "fp32")
    out = t.new(x.shape, "fp32", x.grad)
    flops, read = 3 * x.size, out.bytes + table.bytes
    t.emit("elementwise", (full, table), (out,), vector=flops)
    if x.grad:
        t.save(table)
        t.backward("elementwise", vector=flops, read=read, written=out.bytes, product="fp32")
    return t.cast(out, x.dtype)


def turn(t: Tape, c: Config, x: Value, tables: Tables) -> Value:
    """Rotary embedding of x [batch, heads, tokens, dim], in the form of the model's version."""
    return rotate(t, x, *tables) if c.third else turn_complex(t, x, *tables)


def self_attention(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None) -> Value:
    """Multi-head latent attention; x and the result are [batch, tokens, width]."""
    heads, batch = c.num_attention_heads, x.shape[0]
    q = queries(t, c, x)
    with t.op("kv_a_proj_with_mqa", "linear"):
        width = c.kv_lora_rank + c.qk_rope_head_dim
        latent = linear.linear(t, x, width, bias=c.attention_bias, parallel=False)
        latent = t.enter(latent) if latent.split == "tokens" else latent
    # heads and tokens of this rank
    heads, length = (t.share(heads, "the attention heads") if q.split else heads), q.shape[1]
    kv = normed(t, "kv_a_layernorm", t.view(latent, batch, length, c.kv_lora_rank))
    plain, rotated = c.qk_nope_head_dim, c.qk_rope_head_dim
    with t.op("rotary", "rotary"):
        q_turned = turn(t, c, t.view(q, batch, heads, length, rotated), tables)
        k_turned = turn(t, c, t.view(latent, batch, 1, length, rotated), tables)
        q = pointwise.concat(t, [t.view(q, batch, heads, length, plain), q_turned], -1)
    with t.op("kv_b_proj", "linear"):
        kv = linear.linear(t, kv, c.num_attention_heads * (plain + c.v_head_dim), bias=False)
        k = t.view(kv, batch, heads, length, plain)
        k = pointwise.concat(t, [k, t.view(k_turned, batch, heads, length, rotated)], -1)
        v = t.view(kv, batch, heads, length, c.v_head_dim)
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            softmax_fp32=True,
            dropout=c.attention_dropout,
            by_heads=True,
            cache=c.kv_lora_rank + c.qk_rope_head_dim,
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def queries(t: Tape, c: Config, x: Value) -> Value:
    """Queries of all heads [batch, tokens, heads * dim], through a low-rank projection if any."""
    width = c.num_attention_heads * c.dim
    if c.q_lora_rank is None:
        with t.op("q_proj", "linear"):
            return linear.linear(t, x, width, bias=False)
    with t.op("q_a_proj", "linear"):
        q = linear.linear(t, x, c.q_lora_rank, bias=c.attention_bias, parallel=False)
    q = normed(t, "q_a_layernorm", q)
    with t.op("q_b_proj", "linear"):
        return linear.linear(t, q, width, bias=False)


def sparse_mlp(t: Tape, c: Config, h: Value, bias: bool) -> Value:
    """Mixture of experts: each token through its routed experts and the shared ones."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        scores, ids = route_v3(t, c, x) if c.third else route_v2(t, c, x)
    with t.op("experts", "experts"):
        width, experts = c.moe_intermediate_size, c.n_routed_experts

        def gate(y: Value) -> Value:
            return gated(t, y, c.hidden_act)

        out = moe.gated_experts(t, x, scores, ids, experts, width, gate)
    with t.scope("shared_experts"):
        shared = gated_mlp(t, h, c.shared_width, c.hidden_size, activation=c.hidden_act, bias=bias)
    with t.op("sum", "add"):
        return pointwise.add(t, t.view(out, *h.shape), shared)


def logits_fp32(t: Tape, c: Config, x: Value) -> Value:
    """Router logits, computed in fp32 whatever the model's format."""
    experts = c.n_routed_experts
    w = t.parameter(experts, c.hidden_size)
    full = t.cast(w, "fp32")
    if full is not w:
        full.kind = "weight_copy"
    return linear.linear(t, t.cast(x, "fp32"), experts, bias=False, weight=full, parallel=False)


def route_v2(t: Tape, c: Config, x: Value) -> tuple[Value, Value]:
    """Softmax over all experts, then the top k, from the best groups if there are groups."""
    scores = norm.softmax(t, logits_fp32(t, c, x), dtype="fp32")
    if c.topk_method == "group_limited_greedy":
        assert c.n_group is not None and c.topk_group is not None, "the method needs both"
        scores = moe.within_groups(t, scores, c.n_group, c.topk_group, 1)
    scores, ids = moe.top_k(t, scores, c.num_experts_per_tok)
    return pointwise.scale(t, scores), ids


def route_v3(t: Tape, c: Config, x: Value) -> tuple[Value, Value]:
    """Sigmoid scores, normalized after the choice; an untrained bias affects the choice only."""
    scores = pointwise.unary(t, "sigmoid", logits_fp32(t, c, x))
    biased = pointwise.add(t, scores, t.buffer(c.n_routed_experts))
    biased = moe.within_groups(t, biased, c.n_group or 8, c.topk_group or 4, 2)
    _, ids = moe.top_k(t, biased, c.num_experts_per_tok)
    shares = moe.take(t, scores, ids, *ids.shape)
    if shares.grad:
        t.save(scores)
    if c.norm_topk_prob:
        shares = moe.normalise(t, shares)
    return pointwise.scale(t, shares), ids
