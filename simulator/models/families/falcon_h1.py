"""Falcon-H1: Mamba-2 and attention side by side in every layer, then an MLP."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import Mamba2, mamba2, self_attention
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    rotary_tables,
)
from roofcast.simulator.work.ops import embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's FalconH1Config, with its defaults."""

    vocab_size: int = 128000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    attention_bias: bool = False
    attention_dropout: float = 0.0
    mlp_bias: bool = False
    projectors_bias: bool = False
    mamba_d_ssm: int | None = 1024
    mamba_n_heads: int = 128
    mamba_d_head: int | str = "auto"
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_chunk_size: int = 256
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    mamba_norm_before_gate: bool = True
    mamba_rms_norm: bool = False
    tie_word_embeddings: bool = False

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def mixer(self) -> Mamba2:
        """Sizes of the Mamba-2 mixers."""
        inner = self.mamba_d_ssm or self.mamba_expand * self.hidden_size
        return Mamba2(
            hidden=self.hidden_size,
            heads=self.mamba_n_heads,
            dim=inner // self.mamba_n_heads,
            groups=self.mamba_n_groups,
            state=self.mamba_d_state,
            chunk=self.mamba_chunk_size,
            kernel=self.mamba_d_conv,
            bias=self.mamba_proj_bias,
            conv_bias=self.mamba_conv_bias,
            out_bias=self.projectors_bias,
            act=self.hidden_act,
            norm=self.mamba_rms_norm,
            gate_first=not self.mamba_norm_before_gate,
            late=True,
            scaled=True,
        )

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key-value heads, and the width of a head."""
        n = self.num_attention_heads
        return n, self.num_key_value_heads or n, self.head_dim or self.hidden_size // n


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, both mixers, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            x = pointwise.scale(t, x)
        tables = rotary_tables(t, sequence, c.heads[2])
        mask = transformer.causal_masks(t, sequence, batch)()
        x = t.repeat("layers", c.num_hidden_layers, lambda x: block(t, c, x, tables, mask), x)
        with t.op("final_layernorm", "rms_norm"):
            x = norm.rms_norm(t, x)
    weight = table if c.tie_word_embeddings else None
    return causal_loss(t, x, c.vocab_size, weight=weight, scaled=True)


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("mamba"):
        scanned = mamba2(t, h, c.mixer)
    with t.op("scale", "scale"):
        scanned, read = pointwise.scale(t, scanned), pointwise.scale(t, h)
    with t.scope("self_attn"):
        attended = self_attention(
            t,
            read,
            c.heads,
            mask,
            tables=tables,
            bias=c.attention_bias,
            scaled=True,
            dropout=c.attention_dropout,
        )
    with t.op("residual_mixer", "add"):
        x = pointwise.add(t, x, pointwise.add(t, scanned, pointwise.scale(t, attended)))
    with t.op("pre_ff_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("feed_forward"):
        h = mlp(t, c, h)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def mlp(t: Tape, c: Config, x: Value) -> Value:
    """A gated MLP whose gate and result are scaled by constants."""
    with t.op("up_proj", "linear"):
        up = linear.linear(t, x, c.intermediate_size, bias=c.mlp_bias)
    with t.op("gate_proj", "linear"):
        gate = linear.linear(t, x, c.intermediate_size, bias=c.mlp_bias)
    with t.op("act_fn", c.hidden_act):
        h = pointwise.mul(t, up, activate(t, c.hidden_act, pointwise.scale(t, gate)))
    with t.op("down_proj", "linear"):
        return pointwise.scale(t, linear.linear(t, h, c.hidden_size, bias=c.mlp_bias))
