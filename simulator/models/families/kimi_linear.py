"""Kimi Linear: Kimi Delta Attention in three of four layers, latent attention without positions in
the fourth, experts as in DeepSeek V3.
"""

from __future__ import annotations

import math

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import routers, transformer
from roofcast.simulator.models.families.mixers import causal_conv, kernels_of
from roofcast.simulator.models.families.routers import Routing
from roofcast.simulator.models.families.transformer import causal_loss, gated, gated_mlp
from roofcast.simulator.work.ops import (
    attention,
    delta_channels,
    embedding,
    linear,
    moe,
    norm,
    pointwise,
    state_space,
)
from roofcast.simulator.work.ops.delta import Delta, Gated
from roofcast.simulator.work.ops.latent import Latent, absorbed
from roofcast.simulator.work.tape import Tape, Value

Kind = tuple[bool, bool]  # latent attention instead of the delta rule, experts instead of an MLP


class Delta3(msgspec.Struct, frozen=True):
    """Keys of `linear_attn_config`; layers are numbered from 1."""

    head_dim: int = 128
    num_heads: int = 32
    short_conv_kernel_size: int = 4
    full_attn_layers: list[int] | None = None
    kda_layers: list[int] | None = None


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's KimiLinearConfig and of the published config.json, with defaults."""

    vocab_size: int = 163840
    hidden_size: int = 2304
    intermediate_size: int = 9216
    moe_intermediate_size: int = 1024
    num_hidden_layers: int = 27
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # unread: every head has its own
    head_dim: int | None = None  # unread: the three widths below are those of a head
    hidden_act: str = "silu"
    kv_lora_rank: int = 512
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    mla_use_nope: bool = True
    attention_bias: bool = False
    attention_dropout: float | None = 0.0
    num_experts: int | None = None
    num_local_experts: int | None = None
    num_experts_per_token: int | None = None
    num_experts_per_tok: int | None = None
    num_shared_experts: int | None = None
    n_shared_experts: int | None = None
    num_expert_group: int | None = None
    n_group: int | None = None
    topk_group: int | None = 1
    moe_renormalize: bool = True
    norm_topk_prob: bool = True
    moe_router_activation_func: str = "sigmoid"
    use_grouped_topk: bool = True
    first_k_dense_replace: int = 1
    moe_layer_freq: int = 1
    mlp_layer_types: list[str] | None = None
    layer_types: list[str] | None = None
    linear_attn_config: Delta3 | None = None
    linear_head_dim: int = 128
    linear_num_heads: int = 32
    linear_conv_kernel_dim: int = 4
    model_max_length: int | None = None
    max_position_embeddings: int = 1048576
    output_router_logits: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        routers.check(self.routing)
        for key in ("mlp_layer_types", "layer_types"):
            routers.check_length(key, getattr(self, key), self.num_hidden_layers)
        known = "linear_attention", "full_attention"
        bad = next((k for k in self.layer_types or () if k not in known), None)
        if bad is not None:
            raise ValueError(f"layer of kind {bad[:20]!r}; known: {', '.join(known)}")
        if not self.mla_use_nope or self.moe_router_activation_func != "sigmoid":
            raise ValueError(
                "mla_use_nope false and other routers than sigmoid are not modeled; use the"
                " published values"
            )

    @property
    def delta(self) -> Delta3:
        """Sizes of the layers with the delta rule."""
        plain = Delta3(self.linear_head_dim, self.linear_num_heads, self.linear_conv_kernel_dim)
        return self.linear_attn_config or plain

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.model_max_length or self.max_position_embeddings

    @property
    def routing(self) -> Routing:
        """What the router needs to know."""
        chosen = self.num_experts_per_token or self.num_experts_per_tok or 8
        groups, normalised = self.num_expert_group or self.n_group or 1, self.norm_topk_prob
        normalised = normalised and self.moe_renormalize
        return Routing(self.experts, chosen, normalised, groups, self.topk_group or 1)

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return self.num_experts or self.num_local_experts or 256

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.moe_intermediate_size

    @property
    def shared_width(self) -> int:
        """Inner width of the shared experts together."""
        return self.moe_intermediate_size * (self.num_shared_experts or self.n_shared_experts or 1)

    @property
    def kinds(self) -> list[Kind]:
        """The kind of every layer."""
        listed = self.delta.full_attn_layers
        found = []
        for layer in range(self.num_hidden_layers):
            if self.layer_types:
                attends = self.layer_types[layer] == "full_attention"
            elif listed is not None and self.delta.kda_layers is not None:
                attends = layer + 1 in listed
            else:
                attends = layer > 0 and layer % 4 == 0
            kinds = self.mlp_layer_types
            sparse = kinds[layer] == "sparse" if kinds else layer >= self.first_k_dense_replace
            found.append((attends, sparse))
        return found

    def of_rank(self, t: Tape) -> Delta:
        """Sizes of the delta rule of a tensor-parallel rank; BadInput if tp divides no heads."""
        tp, heads, dim = t.parallel.tp, self.delta.num_heads, self.delta.head_dim
        if heads % tp:
            raise BadInput(
                f"tp {tp} does not divide the {heads} heads of Kimi Delta Attention; use tp"
                f" {math.gcd(heads, tp)}"
            )
        return Delta(heads // tp, heads // tp, dim, dim)


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, delta rule or attention, norm, MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = transformer.layers(t, "layers", c.kinds, lambda x, kind: block(t, c, x, mask, kind), x)
        x = normed(t, "norm", x)
    if c.output_router_logits:
        t.assumptions.append("output_router_logits: the routers' part of the loss is not counted")
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x: Value) -> Value:
    """RMSNorm of x over its last dimension, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x)


def block(t: Tape, c: Config, x: Value, mask: Value | None, kind: Kind) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    attends, sparse = kind
    h = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        h = latent_attention(t, c, h, mask) if attends else delta_attention(t, c, h)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        if sparse:
            h = sparse_mlp(t, c, h)
        else:
            h = gated_mlp(t, h, c.intermediate_size, c.hidden_size, activation=c.hidden_act)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def latent_attention(t: Tape, c: Config, x: Value, mask: Value | None) -> Value:
    """Multi-head latent attention [deepseek2024] without rotation of queries and keys."""
    heads, batch = c.num_attention_heads, x.shape[0]
    plain, shared = c.qk_nope_head_dim, c.qk_rope_head_dim
    low = x
    if c.q_lora_rank is not None:
        with t.op("q_a_proj", "linear"):
            low = linear.linear(t, x, c.q_lora_rank, bias=c.attention_bias, parallel=False)
        low = normed(t, "q_a_layernorm", low)
    with t.op("q_proj" if low is x else "q_b_proj", "linear"):
        q = linear.linear(t, low, heads * (plain + shared), bias=False)
    with t.op("kv_a_proj_with_mqa", "linear"):
        width = c.kv_lora_rank + shared
        latent = linear.linear(t, x, width, bias=c.attention_bias, parallel=False)
        latent = t.enter(latent) if latent.split == "tokens" else latent
    own, length = (t.share(heads, "the attention heads") if q.split else heads), q.shape[1]
    kv = normed(t, "kv_a_layernorm", t.view(latent, batch, length, c.kv_lora_rank))
    if t.generates == "decode":
        h = absorbed(t, q, Latent(own, plain, shared, c.v_head_dim, c.kv_lora_rank))
        with t.op("o_proj", "linear"):
            return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)
    with t.op("kv_b_proj", "linear"):
        kv = linear.linear(t, kv, heads * (plain + c.v_head_dim), bias=False)
        k = t.view(kv, batch, own, length, plain)
        k = pointwise.concat(t, [k, t.view(latent, batch, own, length, shared)], -1)
        v = t.view(kv, batch, own, length, c.v_head_dim)
    q = t.view(q, batch, own, length, plain + shared)
    with t.op("attention", "attention"):
        h = attention.attention(
            t, q, k, v, causal=True, mask=mask, softmax_fp32=True,
            dropout=c.attention_dropout or 0.0, cache=c.kv_lora_rank + shared,
        )  # fmt: skip
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def delta_attention(t: Tape, c: Config, x: Value) -> Value:
    """Kimi Delta Attention [kimi2025] of x [batch, tokens, width]."""
    d, inner = c.of_rank(t), c.delta.num_heads * c.delta.head_dim
    fused = kernels_of(t, "Kimi delta rule", "flash-linear-attention")
    parts = [projected(t, name, x, inner) for name in ("q_proj", "k_proj", "v_proj")]
    batch, length, own = parts[0].shape
    with t.op("conv1d", "conv"):
        u = t.view(pointwise.concat(t, parts, -1), batch, 3 * own, length)
        kernel = c.delta.short_conv_kernel_size
        u = causal_conv(t, u, kernel, bias=False, act=c.hidden_act, fused=fused)
    g = forget_gate(t, c, d, x, fused)
    with t.op("b_proj", "linear"):
        beta = linear.linear(t, x, c.delta.num_heads, bias=False)
        beta = pointwise.unary(t, "sigmoid", beta)
    with t.op("delta_rule", "delta_rule"):
        q, k, v = (t.view(u, batch, length, own) for _ in range(3))
        read = Gated(q, k, v, g, beta)
        y = (delta_channels.fused if fused else delta_channels.chunk_rule)(t, read, d)
    gate = low_rank(t, c, "g", x)
    with t.op("o_norm", "rms_norm"):
        shape = batch, length, d.v_heads, d.v_dim
        y = t.view(gated_norm(t, t.view(y, *shape), t.view(gate, *shape), fused), *y.shape)
    with t.op("o_proj", "linear"):
        return linear.linear(t, y, c.hidden_size, bias=False)


def projected(t: Tape, name: str, x: Value, width: int) -> Value:
    """A linear layer without a bias, as an op called `name`."""
    with t.op(name, "linear"):
        return linear.linear(t, x, width, bias=False)


def low_rank(t: Tape, c: Config, name: str, x: Value) -> Value:
    """Two linear layers through the width of a head."""
    with t.op(f"{name}_a_proj", "linear"):
        low = linear.linear(t, x, c.delta.head_dim, bias=False, parallel=False)
    return projected(t, f"{name}_b_proj", low, c.delta.num_heads * c.delta.head_dim)


def forget_gate(t: Tape, c: Config, d: Delta, x: Value, fused: bool) -> Value:
    """g = -exp(A_log) softplus(f + dt_bias) of every channel [batch, tokens, heads x dim]."""
    f = low_rank(t, c, "f", x)
    with t.op("decay", "exp"):
        bias = t.parameter(f.shape[-1], dtype="fp32")
        g = pointwise.add(t, t.cast(f, "fp32"), bias)
        rate = state_space.decay_rate(t, 1, 1, d.v_heads, 1)
        if fused:
            g = pointwise.unary(t, "softplus", g)
        else:
            small = t.new(g.shape, "bool")
            t.emit("elementwise", (g,), (small,), vector=g.size)
            power = pointwise.unary(t, "add_scalar", pointwise.unary(t, "exp", g))
            power = pointwise.where(t, pointwise.unary(t, "log", power), small)
            g = power
        g = t.view(g, *g.shape[:2], d.v_heads, d.k_dim)
        return t.view(pointwise.mul(t, rate, g), *f.shape)


def gated_norm(t: Tape, y: Value, gate: Value, fused: bool) -> Value:
    """RMSNorm of y over its last dimension, times a weight and sigmoid(gate), in fp32."""
    weight = t.parameter(y.shape[-1])
    if fused:
        t.save(y, gate)
        return state_space.fused_gated_norm(t, y, gate, weight)
    full = t.cast(weight, "fp32")
    if full is not weight:
        full.kind = "weight_copy"
    h = pointwise.mul(t, full, state_space.normal(t, t.cast(y, "fp32")))
    gate = pointwise.unary(t, "sigmoid", t.cast(gate, "fp32"))
    return t.cast(pointwise.mul(t, h, gate), y.dtype)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts: each token through its routed experts and the shared ones."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        scores, ids = routers.sigmoid_in_groups(t, c.routing, x, wide=True)
    with t.op("experts", "experts"):
        width, act = c.moe_intermediate_size, c.hidden_act
        out = moe.gated_experts(t, x, scores, ids, c.experts, width, lambda y: gated(t, y, act))
    with t.scope("shared_experts"):
        shared = gated_mlp(t, h, c.shared_width, c.hidden_size, activation=c.hidden_act)
    with t.op("sum", "add"):
        return pointwise.add(t, t.view(out, *h.shape), shared)
