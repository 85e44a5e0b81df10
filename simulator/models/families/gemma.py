"""Gemma 1, 2 and 3 (text). From their config.json."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    causal_loss,
    gated_mlp,
    heads_of,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face GemmaConfig, Gemma2Config, Gemma3TextConfig, with their defaults for what may be
    left out.
    """

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
        """Rows of the word table."""
        return self.vocab_size or (262208 if self.third else 256000)

    @property
    def heads(self) -> int:
        """How many query heads."""
        return self.num_attention_heads or (16 if self.model_type == "gemma" else 8)

    @property
    def groups(self) -> int:
        """How many key-value heads."""
        return self.num_key_value_heads or (16 if self.model_type == "gemma" else 4)

    @property
    def third(self) -> bool:
        """Is it Gemma 3?"""
        return self.model_type.startswith("gemma3")

    def caps(self, key: str) -> bool:
        """Are logits bent by a tanh? Gemma 2 does so unless told otherwise."""
        value = getattr(self, key)
        return self.model_type == "gemma2" if value is msgspec.UNSET else bool(value)

    @property
    def eager(self) -> bool:
        """transformers has no fused attention for Gemma 2."""
        return self.model_type == "gemma2" or self.caps("attn_logit_softcapping")

    @property
    def sandwiched(self) -> bool:
        """Norms after attention and MLP too."""
        return self.model_type != "gemma"

    @property
    def activation(self) -> str:
        """Activation of the MLP."""
        if self.model_type == "gemma":
            return self.hidden_act or self.hidden_activation or "gelu_pytorch_tanh"
        return self.hidden_activation or "gelu_pytorch_tanh"

    def window(self, layer: int) -> int | None:
        """How many of the last keys a layer sees; None where all."""
        if self.model_type == "gemma":
            return None
        if self.layer_types:
            return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None
        return (
            self.sliding_window
            if (layer + 1) % (self.sliding_window_pattern if self.third else 2)
            else None
        )


def build(t: Tape, c: Config, batch: int, sequence: int):
    """Scaled embedding, n x [norm, attention, (norm,) norm, gated MLP (, norm)], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocabulary, c.hidden_size)
            x = pointwise.scale(
                t, embedding.embedding(t, ids, c.vocabulary, c.hidden_size, weight=table)
            )
        windows = [c.window(layer) for layer in range(c.num_hidden_layers)]
        # Gemma 3 turns windowed and full layers at different rates: two tables
        tables = {
            w is None: rotary_tables(t, sequence, c.head_dim) for w in windows if c.third
        } or rotary_tables(t, sequence, c.head_dim)
        masks = transformer.causal_masks(t, sequence, batch, eager=c.eager)
        x = transformer.layers(
            t,
            "layers",
            windows,
            lambda x, w: block(t, c, x, tables[w is None] if c.third else tables, masks(w), w),
            x,
        )
        x = normed(t, "norm", x)
    return causal_loss(
        t,
        x,
        c.vocabulary,
        weight=table if c.tie_word_embeddings else None,
        softcap=c.caps("final_logit_softcapping"),
    )


def normed(t: Tape, name: str, x):
    """Gemma's RMSNorm of x[batch, tokens, width], as an op of that name."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="gemma")


def block(t: Tape, c: Config, x, tables, mask, window):
    """One layer: x[batch, tokens, width] in and out."""
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


def self_attention(t: Tape, c: Config, h, tables, mask, window):
    """Self-attention of x[batch, tokens, width]."""
    heads = []
    for name, n in (("q_proj", c.heads), ("k_proj", c.groups), ("v_proj", c.groups)):
        with t.op(name, "linear"):
            y = linear.linear(t, h, n * c.head_dim, bias=c.attention_bias, whole=c.head_dim)
            heads.append(heads_of(t, y, n, c.head_dim, shared=name != "q_proj"))
    q, k, v = heads
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
