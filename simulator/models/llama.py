"""Llama-like decoders: Llama, Mistral, Qwen2. From their config.json."""

from __future__ import annotations

import msgspec

from simulator.models.transformer import causal_loss, causal_mask, gated_mlp, heads_of, rotary_tables, rotate
from simulator.ops import attention, embedding, linear, norm, pointwise
from simulator.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face LlamaConfig, MistralConfig, Qwen2Config, with their defaults for what may be left out."""

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
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    use_sliding_window: bool | None = None  # Qwen2 has a window in its config and does not use it

    @property
    def context(self) -> int:
        return self.max_position_embeddings

    @property
    def groups(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def window(self) -> int | None:
        return None if self.model_type == "qwen2" and not self.use_sliding_window else self.sliding_window


def build(t: Tape, c: Config, batch: int, sequence: int):
    """Embedding, n x [norm, attention, norm, gated MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.parameter(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        windowed = c.window is not None and sequence >= c.window
        mask = causal_mask(t, sequence, batch) if windowed or t.implementation("attention", "flash") == "eager" else None
        cos, sin = rotary_tables(t, sequence, c.dim)
        x = t.repeat("layers", c.num_hidden_layers, lambda x: block(t, c, x, cos, sin, mask), x)
        with t.op("norm", "rms_norm"):
            x = norm.rms_norm(t, x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x, cos, sin, mask):
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, cos, sin, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    with t.op("post_attention_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("mlp"):
        h = gated_mlp(t, h, c.intermediate_size, c.hidden_size, activation=c.hidden_act, bias=c.mlp_bias)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def self_attention(t: Tape, c: Config, h, cos, sin, mask):
    heads, groups, dim = c.num_attention_heads, c.groups, c.dim
    with t.op("q_proj", "linear"):
        q = heads_of(t, linear.linear(t, h, heads * dim, bias=c.qkv_bias), heads, dim)
    with t.op("k_proj", "linear"):
        k = heads_of(t, linear.linear(t, h, groups * dim, bias=c.qkv_bias), groups, dim)
    with t.op("v_proj", "linear"):
        v = heads_of(t, linear.linear(t, h, groups * dim, bias=c.qkv_bias), groups, dim)
    with t.op("rotary", "rotary"):
        q, k = rotate(t, q, cos, sin), rotate(t, k, cos, sin)
    with t.op("attention", "attention"):
        h = attention.attention(t, q, k, v, causal=True, mask=mask, softmax_fp32=True, window=c.window)
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)
