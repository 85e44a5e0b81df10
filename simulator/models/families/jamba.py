"""Jamba: layers of Mamba or of attention without positions, each with an MLP or experts."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mamba import Mamba1, mixer
from roofcast.simulator.models.families.mixers import self_attention
from roofcast.simulator.models.families.transformer import causal_loss, gated, gated_mlp
from roofcast.simulator.work.ops import embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Kind = tuple[bool, bool]  # attention instead of Mamba, experts instead of an MLP


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's JambaConfig, with its defaults."""

    vocab_size: int = 65536
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    hidden_act: str = "silu"
    max_position_embeddings: int = 262144
    attention_dropout: float = 0.0
    num_experts: int = 16
    num_experts_per_tok: int = 2
    expert_layer_period: int = 2
    expert_layer_offset: int = 1
    attn_layer_period: int = 8
    attn_layer_offset: int = 4
    mamba_d_state: int = 16
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_dt_rank: int | str = "auto"
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    output_router_logits: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("expert", "attn"):
            period = getattr(self, f"{name}_layer_period")
            if period < 1:
                raise ValueError(f"{name}_layer_period is {period}; it must be at least 1")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def kinds(self) -> list[Kind]:
        """The kind of every layer."""
        return [
            (
                layer % self.attn_layer_period == self.attn_layer_offset,
                self.num_experts > 1
                and layer % self.expert_layer_period == self.expert_layer_offset,
            )
            for layer in range(self.num_hidden_layers)
        ]

    @property
    def expert_width(self) -> int | None:
        """Inner width of an expert; None where there are none."""
        return self.intermediate_size if self.num_experts > 1 else None

    @property
    def mixer(self) -> Mamba1:
        """Sizes of the Mamba mixers."""
        rank = self.mamba_dt_rank
        return Mamba1(
            hidden=self.hidden_size,
            inner=self.mamba_expand * self.hidden_size,
            state=self.mamba_d_state,
            rank=rank if isinstance(rank, int) else -(-self.hidden_size // 16),
            kernel=self.mamba_d_conv,
            bias=self.mamba_proj_bias,
            conv_bias=self.mamba_conv_bias,
            act=self.hidden_act,
            norms="scaled",
        )

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key-value heads, and the width of a head."""
        n = self.num_attention_heads
        return n, self.num_key_value_heads or n, self.hidden_size // n


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, Mamba or attention, norm, MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = transformer.layers(t, "layers", c.kinds, lambda x, kind: block(t, c, x, mask, kind), x)
        with t.op("final_layernorm", "rms_norm"):
            x = norm.rms_norm(t, x)
    if c.output_router_logits:
        t.assumptions.append("output_router_logits: the routers' part of the loss is not counted")
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, mask: Value | None, kind: Kind) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    attends, sparse = kind
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    if attends:
        with t.scope("self_attn"):
            h = self_attention(t, h, c.heads, mask, dropout=c.attention_dropout)
    else:
        with t.scope("mamba"):
            h = mixer(t, c.mixer, h)
    with t.op("residual_mixer", "add"):
        x = pointwise.add(t, x, h)
    with t.op("pre_ff_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    with t.scope("feed_forward"):
        if sparse:
            h = sparse_mlp(t, c, h)
        else:
            h = gated_mlp(t, h, c.intermediate_size, c.hidden_size, activation=c.hidden_act)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts: a softmax over all, and the top k as they are."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("router", "router"):
        logits = linear.linear(t, x, c.num_experts, bias=False, parallel=False)
        scores, ids = moe.top_k(t, norm.softmax(t, logits, dtype="fp32"), c.num_experts_per_tok)
        scores = t.cast(scores, x.dtype)
    with t.op("experts", "experts"):
        width, act = c.intermediate_size, c.hidden_act
        out = moe.gated_experts(t, x, scores, ids, c.num_experts, width, lambda y: gated(t, y, act))
    return t.view(out, *h.shape)
