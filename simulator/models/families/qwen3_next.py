"""Qwen3-Next and Qwen3.5: Gated DeltaNet in three of four layers, gated attention in the fourth."""

from __future__ import annotations

import math

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import causal_conv, kernels_of
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    gated,
    gated_mlp,
    heads_of,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import (
    attention,
    delta,
    embedding,
    linear,
    moe,
    norm,
    pointwise,
    state_space,
)
from roofcast.simulator.work.ops.delta import Delta, Gated
from roofcast.simulator.work.tape import Tape, Value

Kind = tuple[bool, bool]  # attention instead of DeltaNet, experts instead of an MLP


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Qwen3NextConfig, Qwen3_5TextConfig and Qwen3_5MoeTextConfig."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int = 5632
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    head_dim: int = 256
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    attention_bias: bool = False
    attention_dropout: float = 0.0
    partial_rotary_factor: float = 0.25
    rope_parameters: dict | None = None
    linear_conv_kernel_dim: int = 4
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_num_key_heads: int = 16
    linear_num_value_heads: int = 32
    full_attention_interval: int = 4
    layer_types: list[str] | None = None
    decoder_sparse_step: int = 1
    mlp_only_layers: list[int] | None = None
    moe_intermediate_size: int = 512
    shared_expert_intermediate_size: int = 512
    num_experts_per_tok: int | None = None
    num_experts: int | None = None
    norm_topk_prob: bool = True
    output_router_logits: bool = False
    mtp_num_hidden_layers: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        known = "linear_attention", "full_attention"
        bad = next((k for k in self.layer_types or () if k not in known), None)
        if bad is not None:
            raise ValueError(f"layer of kind {bad[:20]!r}; known: {', '.join(known)}")
        if self.full_attention_interval < 1 or self.decoder_sparse_step < 1:
            raise ValueError("full_attention_interval and decoder_sparse_step must be at least 1")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def next(self) -> bool:
        """Whether the model is a Qwen3-Next, whose projections are interleaved by heads."""
        return self.model_type == "qwen3_next"

    @property
    def experts(self) -> int:
        """Number of experts of a sparse layer; 0: all layers are dense."""
        if self.model_type == "qwen3_5_text":
            return 0
        default = 512 if self.next else 256
        return default if self.num_experts is None else self.num_experts

    @property
    def chosen(self) -> int:
        """Experts of a token."""
        return self.num_experts_per_tok or (10 if self.next else 8)

    @property
    def kinds(self) -> list[Kind]:
        """The kind of every layer."""
        found = []
        for layer in range(self.num_hidden_layers):
            attends = (
                self.layer_types[layer] == "full_attention"
                if self.layer_types
                else (layer + 1) % self.full_attention_interval == 0
            )
            sparse = self.experts > 0
            if self.next:
                listed = layer in (self.mlp_only_layers or ())
                sparse = sparse and not listed and (layer + 1) % self.decoder_sparse_step == 0
            found.append((attends, sparse))
        return found

    @property
    def expert_width(self) -> int | None:
        """Inner width of an expert; None where there are none."""
        return self.moe_intermediate_size if self.experts else None

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that rotary embeddings rotate."""
        given = (self.rope_parameters or {}).get("partial_rotary_factor")
        return int(self.head_dim * (given or self.partial_rotary_factor))

    def of_rank(self, t: Tape) -> Delta:
        """DeltaNet's sizes of a tensor-parallel rank; raises BadInput if tp divides no heads."""
        tp, k, v = t.parallel.tp, self.linear_num_key_heads, self.linear_num_value_heads
        if v % k:
            raise BadInput(f"linear_num_value_heads {v} is not divisible by the {k} key heads")
        if k % tp:
            raise BadInput(
                f"tp {tp} does not divide the {k} key heads of DeltaNet; use tp {math.gcd(k, tp)}"
            )
        return Delta(k // tp, v // tp, self.linear_key_head_dim, self.linear_value_head_dim)


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, DeltaNet or attention, norm, MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        tables = rotary_tables(t, sequence, c.rotary_dim)
        for angles in tables if not c.next else ():
            angles.held *= batch  # with positions of images and text, every sample has its own
        mask = transformer.causal_masks(t, sequence, batch)()
        x = transformer.layers(
            t, "layers", c.kinds, lambda x, kind: block(t, c, x, tables, mask, kind), x
        )
        x = normed(t, "norm", x)
    if c.mtp_num_hidden_layers:
        t.assumptions.append("mtp_num_hidden_layers: multi-token prediction is not counted")
    if c.output_router_logits:
        t.assumptions.append("output_router_logits: the routers' part of the loss is not counted")
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x: Value) -> Value:
    """Gemma's RMSNorm of x over its last dimension, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="gemma")


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, kind: Kind) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    attends, sparse = kind
    h = normed(t, "input_layernorm", x)
    if attends:
        with t.scope("self_attn"):
            h = gated_attention(t, c, h, tables, mask)
    else:
        with t.scope("linear_attn"):
            h = delta_net(t, c, h)
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


def gated_attention(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None) -> Value:
    """Attention whose result is gated by a sigmoid; one product gives queries and gate."""
    dim, heads, groups = c.head_dim, c.num_attention_heads, c.num_key_value_heads
    with t.op("q_proj", "linear"):
        both = linear.linear(t, x, 2 * heads * dim, bias=c.attention_bias, whole=2 * dim)
        q = heads_of(t, t.view(both, *both.shape[:2], both.shape[-1] // 2), heads, dim)
        gate = pointwise.copy(t, both, *both.shape[:2], both.shape[-1] // 2)
    names = {"k_proj": groups, "v_proj": groups}
    k, v = (
        heads_of(t, y, groups, dim, shared=True)
        for y in (
            _projected(t, name, x, n * dim, c.attention_bias, dim) for name, n in names.items()
        )
    )
    q, k = normed(t, "q_norm", q), normed(t, "k_norm", k)
    with t.op("rotary", "rotary"):
        q, k = (rotate(t, y, *tables, partial=True) for y in (q, k))
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
        )
    with t.op("gate", "sigmoid"):
        h = pointwise.mul(t, h, pointwise.unary(t, "sigmoid", gate))
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def _projected(t: Tape, name: str, x: Value, width: int, bias: bool, whole: int) -> Value:
    with t.op(name, "linear"):
        return linear.linear(t, x, width, bias=bias, whole=whole)


def delta_net(t: Tape, c: Config, x: Value) -> Value:
    """Gated DeltaNet [yang2024] of x [batch, tokens, width]."""
    d = c.of_rank(t)
    fused = kernels_of(t, "gated delta rule", "flash-linear-attention")
    mixed, gate, b, a = _projections(t, c, d, x)
    batch, length = mixed.shape[:2]
    with t.op("conv1d", "conv"):
        u = t.view(mixed, batch, d.convolved, length)
        kernel = c.linear_conv_kernel_dim
        u = causal_conv(t, u, kernel, bias=False, act=c.hidden_act, fused=fused)
    with t.op("decay", "exp"):
        beta = pointwise.unary(t, "sigmoid", b)
        bias, rate = t.parameter(d.v_heads), state_space.decay_rate(t, d.v_heads)
        steps = pointwise.add(t, t.cast(a, "fp32"), bias)
        g = pointwise.mul(t, rate, pointwise.unary(t, "softplus", steps))
    with t.op("delta_rule", "scan"):
        q, k = (t.view(u, batch, length, d.k_heads * d.k_dim) for _ in range(2))
        read = Gated(q, k, t.view(u, batch, length, d.v_heads * d.v_dim), g, beta)
        y = (delta.fused_rule if fused else delta.chunk_rule)(t, read, d)
    with t.op("norm", "rms_norm"):
        shape = batch, length, d.v_heads, d.v_dim
        y = t.view(head_norm(t, t.view(y, *shape), t.view(gate, *shape), fused), *y.shape)
    with t.op("out_proj", "linear"):
        return linear.linear(t, y, c.hidden_size, bias=False)


def _projections(t: Tape, c: Config, d: Delta, x: Value) -> tuple[Value, ...]:
    """Queries, keys and values together, the gate, and the inputs of beta and of the decay."""
    qkv = 2 * c.linear_num_key_heads * d.k_dim + c.linear_num_value_heads * d.v_dim
    inner, heads = c.linear_num_value_heads * d.v_dim, c.linear_num_value_heads
    if not c.next:
        names = {"in_proj_qkv": qkv, "in_proj_z": inner, "in_proj_b": heads, "in_proj_a": heads}
        return tuple(_projected(t, name, x, n, False, 1) for name, n in names.items())
    mixed = _projected(t, "in_proj_qkvz", x, qkv + inner, False, 1)
    both = _projected(t, "in_proj_ba", x, 2 * heads, False, 1)
    batch, length = mixed.shape[:2]
    with t.op("in_proj_qkvz", "linear"):  # heads lie together, and are sorted by copies
        widths = d.k_heads * d.k_dim, d.k_heads * d.k_dim, d.v_heads * d.v_dim
        parts = [pointwise.copy(t, mixed, batch, length, w) for w in widths]
        gate = pointwise.copy(t, mixed, batch, length, widths[2])
        b, a = (pointwise.copy(t, both, batch, length, d.v_heads) for _ in range(2))
        return pointwise.concat(t, parts, -1), gate, b, a


def head_norm(t: Tape, y: Value, gate: Value, fused: bool) -> Value:
    """RMSNorm of y over its last dimension, times a weight and silu(gate)."""
    weight = t.parameter(y.shape[-1])
    if fused:
        t.save(y, gate)
        return state_space.fused_gated_norm(t, y, gate, weight)
    h = pointwise.mul(t, weight, t.cast(state_space.normal(t, t.cast(y, "fp32")), y.dtype))
    gate = pointwise.unary(t, "silu", t.cast(gate, "fp32"))
    return t.cast(pointwise.mul(t, h, gate), y.dtype)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Routed experts, and a shared one that is gated by a sigmoid."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    width, act = c.shared_expert_intermediate_size, c.hidden_act
    with t.scope("shared_expert"):
        shared = gated_mlp(t, x, width, c.hidden_size, activation=act)
    with t.op("gate", "router"):
        logits = linear.linear(t, x, c.experts, bias=False, parallel=False)
        scores, ids = moe.top_k(t, norm.softmax(t, logits, dtype="fp32"), c.chosen)
        if c.norm_topk_prob or not c.next:
            scores = moe.normalise(t, scores)
        scores = t.cast(scores, logits.dtype)
    with t.op("experts", "experts"):
        out = moe.gated_experts(
            t, x, scores, ids, c.experts, c.moe_intermediate_size, lambda y: gated(t, y, act)
        )
    with t.op("shared_expert_gate", "linear"):
        gate = linear.linear(t, x, 1, bias=False, parallel=False)
        shared = pointwise.mul(t, pointwise.unary(t, "sigmoid", gate), shared)
    with t.op("sum", "add"):
        return t.view(pointwise.add(t, out, shared), *h.shape)
