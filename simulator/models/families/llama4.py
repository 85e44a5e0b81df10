"""Llama 4, language model only.

By default, as in transformers, every token goes through every expert, scaled by its router score
(zero for most). With `implementations={"experts": "grouped"}`, as in a training stack, a token goes
through its chosen experts only.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.deepseek import complex_table, turn_complex
from roofcast.simulator.models.families.transformer import (
    causal_loss,
    gated,
    gated_mlp,
    projections,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Angles = tuple[Value]  # what complex_table returns
Kind = tuple[bool, int | None, bool]  # rotary embeddings, attention window, experts


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Llama4TextConfig, with its defaults."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size_mlp: int = 16384
    vocab_size: int = 202048
    num_key_value_heads: int = 8
    head_dim: int | None = 128
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    num_local_experts: int = 16
    num_experts_per_tok: int = 1
    interleave_moe_layer_step: int = 1
    moe_layers: list[int] | None = None
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: int = 4
    layer_types: list[str] | None = None
    attention_chunk_size: int | None = 8192
    use_qk_norm: bool = True
    attn_temperature_tuning: bool = True
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.intermediate_size

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def kind(self, layer: int) -> Kind:
        """Whether a layer has rotary embeddings, its window (None: all), whether it is sparse."""
        if self.no_rope_layers:
            turned = bool(self.no_rope_layers[layer])
        else:
            turned = (layer + 1) % self.no_rope_layer_interval != 0
        chunked = self.layer_types[layer] == "chunked_attention" if self.layer_types else turned
        if self.moe_layers is not None:
            sparse = layer in self.moe_layers
        else:
            sparse = (layer + 1) % self.interleave_moe_layer_step == 0
        return turned, self.attention_chunk_size if chunked else None, sparse


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        angles = complex_table(t, sequence, c.dim)
        masks = transformer.causal_masks(t, sequence, batch)
        kinds = [c.kind(layer) for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", kinds, lambda x, kind: block(t, c, x, angles, masks, kind), x
        )
        x = normed(t, "norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x: Value, *, affine: bool = True) -> Value:
    """RMSNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, affine=affine)


def block(
    t: Tape, c: Config, x: Value, angles: Angles, masks: transformer.Masks, kind: Kind
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    turned, window, sparse = kind
    h = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, angles, masks(window), turned, window)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "post_attention_layernorm", x)
    with t.scope("feed_forward"):
        if sparse:
            h = sparse_mlp(t, c, h)
        else:
            h = gated_mlp(t, h, c.intermediate_size_mlp, c.hidden_size, activation=c.hidden_act)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def self_attention(
    t: Tape,
    c: Config,
    x: Value,
    angles: Angles,
    mask: Value | None,
    turned: bool,
    window: int | None,
) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads = {"q_proj": c.num_attention_heads}
    heads |= dict.fromkeys(("k_proj", "v_proj"), c.num_key_value_heads)
    q, k, v = projections(t, x, heads, c.dim, bias=c.attention_bias, whole=c.dim)
    if turned:
        with t.op("rotary", "rotary"):
            q, k = (turn_complex(t, y, *angles) for y in (q, k))
    if turned and c.use_qk_norm:
        q, k = normed(t, "q_norm", q, affine=False), normed(t, "k_norm", k, affine=False)
    if c.attn_temperature_tuning and not turned:
        with t.op("temperature", "mul"):  # queries are scaled by position
            q = t.cast(pointwise.mul(t, q, t.new((1, 1, x.shape[1], 1), "fp32")), q.dtype)
    with t.op("attention", "attention"):
        h = attention.attention(
            t, q, k, v, causal=True, mask=mask, window=window, dropout=c.attention_dropout
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts with sigmoid scores, plus the output of a shared expert."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("router", "router"):
        logits = linear.linear(t, x, c.num_local_experts, bias=False, parallel=False)
        best, ids = moe.top_k(t, logits, c.num_experts_per_tok)
        grouped = bool(t.generates) or t.implementation("experts", "dense") == "grouped"
        scores = best if grouped else moe.spread(t, best, ids, *logits.shape)
        scores = t.cast(pointwise.unary(t, "sigmoid", t.cast(scores, "fp32")), logits.dtype)
    with t.op("experts", "experts"):
        width = c.intermediate_size

        def gate(y: Value) -> Value:
            return gated(t, y, c.hidden_act)

        if grouped:
            routed = moe.gated_experts(t, x, scores, ids, c.num_local_experts, width, gate)
        else:
            routed = moe.dense_experts(t, x, scores, c.num_experts_per_tok, width, gate)
    with t.scope("shared_expert"):
        shared = gated_mlp(t, x, c.intermediate_size, c.hidden_size, activation=c.hidden_act)
    with t.op("sum", "add"):
        return t.view(pointwise.add(t, shared, routed), *h.shape)
