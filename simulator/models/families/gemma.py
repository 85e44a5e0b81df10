"""Gemma 1, 2 and 3, language models only."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    gated_mlp,
    projections,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's GemmaConfig, Gemma2Config, Gemma3TextConfig, with their defaults."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int = 256
    hidden_act: str | None = None
    hidden_activation: str | None = None
    max_position_embeddings: int | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    sliding_window: int | None = 4096
    sliding_window_pattern: int = 6
    layer_types: list[str] | None = None
    attn_logit_softcapping: float | None | msgspec.UnsetType = msgspec.UNSET
    final_logit_softcapping: float | None | msgspec.UnsetType = msgspec.UNSET

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings or (131072 if self.third else 8192)

    @property
    def vocabulary(self) -> int:
        """Rows of the vocabulary table."""
        return self.vocab_size or (262208 if self.third else 256000)

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.num_attention_heads or (16 if self.model_type == "gemma" else 8)

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return self.num_key_value_heads or (16 if self.model_type == "gemma" else 4)

    @property
    def third(self) -> bool:
        """Whether the model is Gemma 3."""
        return self.model_type.startswith("gemma3")

    def caps(self, key: str) -> bool:
        """Whether logits are limited by a tanh: key `key`, by default only in Gemma 2."""
        value = getattr(self, key)
        return self.model_type == "gemma2" if value is msgspec.UNSET else bool(value)

    @property
    def eager(self) -> bool:
        """Whether attention is eager: transformers has no fused attention for Gemma 2."""
        return self.model_type == "gemma2" or self.caps("attn_logit_softcapping")

    @property
    def sandwiched(self) -> bool:
        """Whether attention and MLP are also followed by norms."""
        return self.model_type != "gemma"

    @property
    def activation(self) -> str:
        """Activation of the MLP."""
        if self.model_type == "gemma":
            return self.hidden_act or self.hidden_activation or "gelu_pytorch_tanh"
        return self.hidden_activation or "gelu_pytorch_tanh"

    def window(self, layer: int) -> int | None:
        """Length of the layer's attention window [tokens]; None: all earlier tokens."""
        if self.model_type == "gemma":
            return None
        if self.layer_types:
            return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None
        every = self.sliding_window_pattern if self.third else 2  # layers per full layer
        return self.sliding_window if (layer + 1) % every else None


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Scaled embedding, n x [norm, attention, (norm,) norm, gated MLP (, norm)], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocabulary, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocabulary, c.hidden_size, weight=table)
            x = pointwise.scale(t, x)
        windows = [c.window(layer) for layer in range(c.num_hidden_layers)]
        # windowed and full layers of Gemma 3 rotate at different rates: a pair of tables for each
        full = [w is None for w in windows] if c.third else [True]
        tables = {is_full: rotary_tables(t, sequence, c.head_dim) for is_full in full}
        masks = transformer.causal_masks(t, sequence, batch, eager=c.eager)

        def layer(x: Value, window: int | None) -> Value:
            pair = tables[window is None or not c.third]
            return block(t, c, x, pair, masks(window), window)

        x = transformer.layers(t, "layers", windows, layer, x)
        x = normed(t, "norm", x)
    tied, softcap = table if c.tie_word_embeddings else None, c.caps("final_logit_softcapping")
    return causal_loss(t, x, c.vocabulary, weight=tied, softcap=softcap)


def normed(t: Tape, name: str, x: Value) -> Value:
    """Gemma's RMSNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="gemma")


def block(
    t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, window: int | None
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, mask, window)
    if c.sandwiched:
        h = normed(t, "post_attention_layernorm", h)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "pre_feedforward_layernorm" if c.sandwiched else "post_attention_layernorm", x)
    with t.scope("mlp"):
        h = gated_mlp(t, h, c.intermediate_size, c.hidden_size, activation=c.activation)
    if c.sandwiched:
        h = normed(t, "post_feedforward_layernorm", h)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def self_attention(
    t: Tape, c: Config, h: Value, tables: Tables, mask: Value | None, window: int | None
) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads = {"q_proj": c.heads, "k_proj": c.groups, "v_proj": c.groups}
    q, k, v = projections(t, h, heads, c.head_dim, bias=c.attention_bias, whole=c.head_dim)
    if c.third:
        q, k = normed(t, "q_norm", q), normed(t, "k_norm", k)
    with t.op("rotary", "rotary"):
        q, k = (rotate(t, x, *tables) for x in (q, k))
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
            softcap=c.caps("attn_logit_softcapping"),
            eager=c.eager,
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)
