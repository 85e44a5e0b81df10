"""Bamba and Granite 4: layers of Mamba-2 or attention, each with an MLP, or experts and one."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import Mamba2, mamba2, self_attention
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    gated,
    gated_mlp,
    rotary_tables,
)
from roofcast.simulator.work.ops import embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

MAMBA = ("mamba", "linear_attention")
ATTENTION = ("attention", "full_attention")


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's BambaConfig and GraniteMoeHybridConfig, with their defaults."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    mlp_bias: bool = False
    attn_layer_indices: list[int] | None = None  # Bamba
    layer_types: list[str] | None = None  # Granite
    layers_block_type: list[str] | None = None
    position_embedding_type: str | None = None
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    shared_intermediate_size: int = 1024
    z_loss_coefficient: float = 0.0
    output_router_logits: bool = False
    mamba_n_heads: int = 128
    mamba_d_head: int | str = "auto"
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_chunk_size: int = 256
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        bad = next((k for k in self.kinds if k not in (*MAMBA, *ATTENTION)), None)
        if bad is not None:
            raise ValueError(
                f"layer of kind {bad[:20]!r}; known: {', '.join((*MAMBA, *ATTENTION))}"
            )

    @property
    def granite(self) -> bool:
        """Whether the model is a Granite 4."""
        return self.model_type == "granitemoehybrid"

    @property
    def kinds(self) -> list[str]:
        """The mixer of every layer."""
        if self.granite:
            named = self.layer_types or self.layers_block_type
            return named or ["mamba"] * self.num_hidden_layers
        attending = self.attn_layer_indices or ()
        count = range(self.num_hidden_layers)
        return ["attention" if layer in attending else "mamba" for layer in count]

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings or (2048 if self.granite else 262144)

    @property
    def expert_width(self) -> int | None:
        """Inner width of an expert; None where there are none."""
        return self.intermediate_size if self.granite and self.num_local_experts else None

    @property
    def mixer(self) -> Mamba2:
        """Sizes of the Mamba-2 mixers."""
        dim = self.mamba_d_head
        return Mamba2(
            hidden=self.hidden_size,
            heads=self.mamba_n_heads,
            dim=dim
            if isinstance(dim, int)
            else self.mamba_expand * self.hidden_size // self.mamba_n_heads,
            groups=self.mamba_n_groups,
            state=self.mamba_d_state,
            chunk=self.mamba_chunk_size,
            kernel=self.mamba_d_conv,
            bias=self.mamba_proj_bias,
            conv_bias=self.mamba_conv_bias,
            act=self.hidden_act,
        )

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key-value heads, and the width of a head."""
        n = self.num_attention_heads
        default = n if self.granite else 8
        return n, self.num_key_value_heads or default, self.hidden_size // n


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, mixer, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            x = pointwise.scale(t, x) if c.granite else x
        tables = None
        if not c.granite or c.position_embedding_type == "rope":
            dim = c.heads[2]
            tables = rotary_tables(t, sequence, dim if c.granite else dim // 2)
        mask = None
        if any(kind in ATTENTION for kind in c.kinds):
            mask = transformer.causal_masks(t, sequence, batch)()
        kinds = [kind in ATTENTION for kind in c.kinds]
        x = transformer.layers(
            t, "layers", kinds, lambda x, attends: block(t, c, x, tables, mask, attends), x
        )
        with t.op("norm" if c.granite else "final_layernorm", "rms_norm"):
            x = norm.rms_norm(t, x)
    if c.z_loss_coefficient:
        t.assumptions.append("z_loss_coefficient: this part of the loss is not counted")
    if c.output_router_logits:
        t.assumptions.append("output_router_logits: the routers' part of the loss is not counted")
    weight = table if c.tie_word_embeddings else None
    return causal_loss(t, x, c.vocab_size, weight=weight, scaled=c.granite)


def block(
    t: Tape, c: Config, x: Value, tables: Tables | None, mask: Value | None, attends: bool
) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    if attends:
        with t.scope("self_attn"):
            h = self_attention(
                t,
                h,
                c.heads,
                mask,
                tables=tables,
                partial=not c.granite,
                bias=c.attention_bias,
                dropout=c.attention_dropout,
            )
    else:
        with t.scope("mamba"):
            h = mamba2(t, h, c.mixer)
    with t.op("residual_mixer", "add"):
        x = pointwise.add(t, x, pointwise.scale(t, h) if c.granite else h)
    with t.op("post_attention_layernorm" if c.granite else "pre_ff_layernorm", "rms_norm"):
        h = norm.rms_norm(t, x)
    if c.granite:
        h = granite_mlp(t, c, h)
    else:
        with t.scope("feed_forward"):
            h = gated_mlp(
                t, h, c.intermediate_size, c.hidden_size, activation=c.hidden_act, bias=c.mlp_bias
            )
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, pointwise.scale(t, h) if c.granite else h)


def granite_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Routed experts, if there are any, and the shared MLP."""
    routed = sparse_mlp(t, c, h) if c.num_local_experts else None
    with t.scope("shared_mlp"):
        with t.op("input_linear", "linear"):
            y = linear.linear(t, h, 2 * c.shared_intermediate_size, bias=False)
        with t.op("activation", c.hidden_act):
            y = gated(t, y, c.hidden_act)
        with t.op("output_linear", "linear"):
            y = linear.linear(t, y, c.hidden_size, bias=False)
    if routed is None:
        return y
    with t.op("sum", "add"):
        return pointwise.add(t, routed, y)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts: the top k logits, and a softmax over these."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.scope("block_sparse_moe"):
        with t.op("router", "router"):
            logits = linear.linear(t, x, c.num_local_experts, bias=False, parallel=False)
            best, ids = moe.top_k(t, t.cast(logits, "fp32"), c.num_experts_per_tok)
            scores = t.cast(norm.softmax(t, best), x.dtype)
        with t.op("experts", "experts"):
            width, experts = c.intermediate_size, c.num_local_experts
            out = moe.gated_experts(
                t, x, scores, ids, experts, width, lambda y: gated(t, y, c.hidden_act)
            )
    return t.view(out, *h.shape)
