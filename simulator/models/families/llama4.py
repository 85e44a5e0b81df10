"""Llama 4 (text). From its config.json.

transformers sends every token through every expert, scaled by its router score (zero for most): the
default here too. `implementations={"experts": "grouped"}` counts what a training stack runs, each
token through its own experts only.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.deepseek import complex_table, turn_complex
from roofcast.simulator.models.families.transformer import causal_loss, gated, gated_mlp, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face Llama4TextConfig, with its defaults for what may be left out."""

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
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def dim(self) -> int:
        """Features of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def kind(self, layer: int) -> tuple[bool, int | None, bool]:
        """Does a layer turn its positions; how many keys it sees at most (None: all); does it have
        experts.
        """
        turned = (
            bool(self.no_rope_layers[layer])
            if self.no_rope_layers
            else (layer + 1) % self.no_rope_layer_interval != 0
        )
        chunked = self.layer_types[layer] == "chunked_attention" if self.layer_types else turned
        step = self.interleave_moe_layer_step
        sparse = (
            layer in self.moe_layers if self.moe_layers is not None else (layer + 1) % step == 0
        )
        return turned, self.attention_chunk_size if chunked else None, sparse


def build(t: Tape, c: Config, batch: int, sequence: int):
    """One step over `batch` samples of `sequence` tokens, to its loss."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        angles = complex_table(t, sequence, c.dim)
        masks = transformer.causal_masks(t, sequence, batch)
        kinds = [c.kind(layer) for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", kinds, lambda x, kind: block(t, c, x, angles, masks, *kind), x
        )
        x = normed(t, "norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x, *, affine: bool = True):
    """RMSNorm of x[batch, tokens, width], as an op of that name."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, affine=affine)


def block(t: Tape, c: Config, x, angles, masks, turned: bool, window: int | None, sparse: bool):
    """One layer: x[batch, tokens, width] in and out."""
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


def self_attention(t: Tape, c: Config, x, angles, mask, turned: bool, window: int | None):
    """Self-attention of x[batch, tokens, width]."""
    parts = []
    for name, n in (
        ("q_proj", c.num_attention_heads),
        ("k_proj", c.num_key_value_heads),
        ("v_proj", c.num_key_value_heads),
    ):
        with t.op(name, "linear"):
            y = linear.linear(t, x, n * c.dim, bias=c.attention_bias, whole=c.dim)
            parts.append(heads_of(t, y, n, c.dim, shared=name != "q_proj"))
    q, k, v = parts
    if turned:
        with t.op("rotary", "rotary"):
            q, k = (turn_complex(t, y, *angles) for y in (q, k))
    if turned and c.use_qk_norm:
        q, k = normed(t, "q_norm", q, affine=False), normed(t, "k_norm", k, affine=False)
    if c.attn_temperature_tuning and not turned:
        with t.op("temperature", "mul"):  # scores sharpen with the position
            q = t.cast(pointwise.mul(t, q, t.new((1, 1, x.shape[1], 1), "fp32")), q.dtype)
    with t.op("attention", "attention"):
        h = attention.attention(
            t, q, k, v, causal=True, mask=mask, window=window, dropout=c.attention_dropout
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def sparse_mlp(t: Tape, c: Config, h):
    """Sigmoid scores of the best experts; their outputs and a shared expert's added up."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("router", "router"):
        logits = linear.linear(t, x, c.num_local_experts, bias=False, parallel=False)
        best, ids = moe.top_k(t, logits, c.num_experts_per_tok)
        grouped = t.implementation("experts", "dense") == "grouped"
        scores = best if grouped else moe.spread(t, best, ids, *logits.shape)
        scores = t.cast(pointwise.unary(t, "sigmoid", t.cast(scores, "fp32")), logits.dtype)
    with t.op("experts", "experts"):
        experts, width, gate = (
            c.num_local_experts,
            c.intermediate_size,
            lambda y: gated(t, y, c.hidden_act),
        )
        run = (
            moe.gated_experts(t, x, scores, ids, experts, width, gate)
            if grouped
            else moe.dense_experts(t, x, scores, width, gate)
        )
    with t.scope("shared_expert"):
        shared = gated_mlp(t, x, c.intermediate_size, c.hidden_size, activation=c.hidden_act)
    with t.op("sum", "add"):
        return t.view(pointwise.add(t, shared, run), *h.shape)
