"""Llama-like decoders: Llama, Mistral, Qwen2, Qwen3, Phi-3, Mixtral, Qwen3-MoE."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    gated,
    gated_mlp,
    heads_of,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Experts = tuple[int, int, int]  # experts, experts per token, inner width of an expert
Kind = tuple[int | None, Experts | None]  # attention window, experts


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's LlamaConfig, MistralConfig, Qwen2Config ..., with their defaults."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    model_type: str
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    embd_pdrop: float = 0.0
    resid_pdrop: float = 0.0
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    use_sliding_window: bool | None = None  # Qwen configs name a window that is not used
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    partial_rotary_factor: float | None = None
    rope_parameters: dict | None = None
    num_local_experts: int = 8  # Mixtral's key
    num_experts_per_tok: int | None = None
    router_jitter_noise: float = 0.0
    num_experts: int = 128  # Qwen's key
    moe_intermediate_size: int = 768
    decoder_sparse_step: int = 1
    mlp_only_layers: list[int] | None = None
    norm_topk_prob: bool = False
    output_router_logits: bool = False

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return self.num_key_value_heads or {"mixtral": 8, "mistral": 8, "qwen3_moe": 4}.get(
            self.model_type, self.num_attention_heads
        )

    @property
    def dim(self) -> int:
        """Width of one head."""
        if self.head_dim is None and self.model_type == "qwen3":
            return 128
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that rotary embeddings rotate."""
        share = (self.rope_parameters or {}).get(
            "partial_rotary_factor", self.partial_rotary_factor or 1.0
        )
        return int(self.dim * share) if self.model_type == "phi3" else self.dim

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections of queries, keys and values have a bias."""
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalized per head."""
        return self.model_type in ("qwen3", "qwen3_moe")

    @property
    def fused(self) -> bool:
        """Whether q, k and v come from one product, and gate and up from one."""
        return self.model_type == "phi3"

    def window(self, layer: int) -> int | None:
        """Length of the layer's attention window [tokens]; None: all earlier tokens."""
        if self.model_type.startswith("qwen") and not self.use_sliding_window:
            return None
        if self.model_type in ("qwen2", "qwen3"):
            windowed = (
                self.layer_types[layer] == "sliding_attention"
                if self.layer_types
                else layer >= self.max_window_layers
            )
            return (self.sliding_window or 4096) if windowed else None
        return self.sliding_window or None

    def experts(self, layer: int) -> Experts | None:
        """(experts, experts per token, inner width of an expert); None for a dense layer."""
        if self.model_type == "mixtral":
            return self.num_local_experts, self.num_experts_per_tok or 2, self.intermediate_size
        dense = layer in (self.mlp_only_layers or ()) or not self.num_experts
        if self.model_type != "qwen3_moe" or dense or (layer + 1) % self.decoder_sparse_step:
            return None
        return self.num_experts, self.num_experts_per_tok or 8, self.moe_intermediate_size

    @property
    def expert_width(self) -> int | None:
        """Inner width of an expert; None where all layers are dense."""
        kinds = (self.experts(layer) for layer in range(self.num_hidden_layers))
        return next((experts[2] for experts in kinds if experts), None)


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, attention, norm, gated MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        tables = rotary_tables(t, sequence, c.rotary_dim)
        masks = transformer.causal_masks(t, sequence, batch)
        kinds = [(c.window(layer), c.experts(layer)) for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", kinds, lambda x, kind: block(t, c, x, tables, masks, kind), x
        )
        with t.op("norm", "rms_norm"):
            x = norm.rms_norm(t, x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(
    t: Tape, c: Config, x: Value, tables: Tables, masks: transformer.Masks, kind: Kind
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    window, experts = kind
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, masks(window), window)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.resid_pdrop))
    with t.op("post_attention_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("mlp"):
        if experts:
            h = sparse_mlp(t, c, h, *experts)
        elif c.fused:
            h = fused_mlp(t, c, h)
        else:
            width, act = c.intermediate_size, c.hidden_act
            h = gated_mlp(t, h, width, c.hidden_size, activation=act, bias=c.mlp_bias)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.resid_pdrop))


def self_attention(
    t: Tape, c: Config, h: Value, tables: Tables, mask: Value | None, window: int | None
) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    q, k, v = projections(t, c, h)
    if c.qk_norm:
        with t.op("q_norm", "rms_norm"):
            q = norm.rms_norm(t, q)
        with t.op("k_norm", "rms_norm"):
            k = norm.rms_norm(t, k)
    with t.op("rotary", "rotary"):
        q, k = (rotate(t, x, *tables, partial=c.fused) for x in (q, k))
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            softmax_fp32=True,
            window=window,
            dropout=c.attention_dropout,
            by_heads=c.fused,
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def projections(t: Tape, c: Config, h: Value) -> list[Value]:
    """q, k and v [batch, heads, tokens, dim], from three products or from slices of one."""
    dim, heads = c.dim, {"q_proj": c.num_attention_heads, "k_proj": c.groups, "v_proj": c.groups}
    if not c.fused:
        return transformer.projections(t, h, heads, dim, bias=c.qkv_bias, whole=dim)
    with t.op("qkv_proj", "linear"):
        h = linear.linear(t, h, sum(heads.values()) * dim, bias=False)
    return [
        heads_of(t, t.view(h, *h.shape[:2], n * dim), n, dim, shared=name != "q_proj")
        for name, n in heads.items()
    ]


def fused_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Gated MLP whose gate and up projections are one product (Phi-3)."""
    with t.op("gate_up_proj", "linear"):
        h = linear.linear(t, h, 2 * c.intermediate_size, bias=False)
    with t.op("activation_fn", c.hidden_act):
        h = gated(t, h, c.hidden_act)
    with t.op("down_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=False)


def sparse_mlp(t: Tape, c: Config, h: Value, experts: int, chosen: int, width: int) -> Value:
    """Mixture of experts: softmax over all, the top `chosen`, their weights normalized."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        logits = linear.linear(t, x, experts, bias=False, parallel=False)
        scores, ids = moe.top_k(t, norm.softmax(t, logits, dtype="fp32"), chosen)
        if c.model_type == "mixtral" or c.norm_topk_prob:
            scores = moe.normalise(t, scores)
        if c.model_type != "mixtral":
            scores = t.cast(scores, logits.dtype)
    with t.op("experts", "experts"):
        out = moe.gated_experts(
            t, x, scores, ids, experts, width, lambda h: gated(t, h, c.hidden_act)
        )
    return t.view(out, *h.shape)
