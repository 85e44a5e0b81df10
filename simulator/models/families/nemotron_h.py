"""Nemotron-H and Nemotron 3: blocks of one mixer each, Mamba-2, attention, MLP or experts.

Attention knows no positions. Blocks are not trained with multi-token prediction here.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import (
    Mamba2,
    Router,
    mamba2,
    self_attention,
    sigmoid_route,
    wide_norm,
)
from roofcast.simulator.models.families.transformer import activate, causal_loss
from roofcast.simulator.work.ops import embedding, linear, moe, pointwise
from roofcast.simulator.work.tape import Tape, Value

PATTERN = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
WORDS = {"linear_attention": "mamba", "full_attention": "attention"}


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's NemotronHConfig, with its defaults."""

    vocab_size: int = 131072
    hidden_size: int = 4096
    intermediate_size: int = 21504
    hybrid_override_pattern: str | None = None
    layers_block_type: list[str] | None = None
    layer_types: list[str] | None = None
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int = 128
    max_position_embeddings: int = 4096
    attention_dropout: float = 0.0
    mlp_hidden_act: str = "relu2"
    mlp_bias: bool = False
    mamba_num_heads: int = 128
    mamba_head_dim: int = 64
    mamba_hidden_act: str = "silu"
    n_groups: int = 8
    ssm_state_size: int = 128
    conv_kernel: int = 4
    chunk_size: int = 128
    use_bias: bool = False
    use_conv_bias: bool = True
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 7688
    moe_shared_expert_intermediate_size: int = 7688
    moe_latent_size: int | None = None
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    num_nextn_predict_layers: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        known = {*PATTERN.values(), *WORDS}
        bad = next((kind for kind in self.kinds if kind not in known), None)
        if bad is not None:
            raise ValueError(
                f"layer of kind {bad[:20]!r}; known in hybrid_override_pattern: M * - E, in"
                f" layers_block_type: {', '.join(sorted(known))}"
            )

    @property
    def kinds(self) -> list[str]:
        """The mixer of every block: mamba, attention, mlp or moe."""
        named = self.layers_block_type or self.layer_types
        if named is None and self.hybrid_override_pattern is not None:
            return [PATTERN.get(letter, letter) for letter in self.hybrid_override_pattern]
        return [WORDS.get(kind, kind) for kind in named or ("mamba", "moe", "attention", "mlp")]

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def expert_width(self) -> int | None:
        """Inner width of an expert; None where there are none."""
        return self.moe_intermediate_size if "moe" in self.kinds else None

    @property
    def mixer(self) -> Mamba2:
        """Sizes of the Mamba-2 mixers."""
        return Mamba2(
            hidden=self.hidden_size,
            heads=self.mamba_num_heads,
            dim=self.mamba_head_dim,
            groups=self.n_groups,
            state=self.ssm_state_size,
            chunk=self.chunk_size,
            kernel=self.conv_kernel,
            bias=self.use_bias,
            conv_bias=self.use_conv_bias,
            act=self.mamba_hidden_act,
        )


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, mixer], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        mask = None
        if "attention" in c.kinds:
            mask = transformer.causal_masks(t, sequence, batch)()
        x = transformer.layers(t, "layers", c.kinds, lambda x, kind: block(t, c, x, mask, kind), x)
        x = wide_norm(t, "norm_f", x)
    if c.num_nextn_predict_layers:
        t.assumptions.append("num_nextn_predict_layers: multi-token prediction is not counted")
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, mask: Value | None, kind: str) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = wide_norm(t, "norm", x)
    with t.scope("mixer"):
        if kind == "mamba":
            h = mamba2(t, h, c.mixer)
        elif kind == "attention":
            heads = (
                c.num_attention_heads,
                c.num_key_value_heads or c.num_attention_heads,
                c.head_dim,
            )
            h = self_attention(t, h, heads, mask, dropout=c.attention_dropout)
        elif kind == "mlp":
            h = mlp(t, c, h, c.intermediate_size)
        else:
            h = sparse_mlp(t, c, h)
    with t.op("residual", "add"):
        return pointwise.add(t, x, h)


def mlp(t: Tape, c: Config, x: Value, width: int) -> Value:
    """down(act(up(x)))."""
    with t.op("up_proj", "linear"):
        h = linear.linear(t, x, width, bias=c.mlp_bias)
    with t.op("act_fn", c.mlp_hidden_act):
        h = activate(t, c.mlp_hidden_act, h)
    with t.op("down_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.mlp_bias)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Routed experts, in a narrower space if `moe_latent_size` is given, and the shared one."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        weight = t.parameter(c.n_routed_experts, c.hidden_size, dtype="fp32")
        logits = linear.linear(
            t, t.cast(x, "fp32"), c.n_routed_experts, bias=False, weight=weight, parallel=False
        )
        router = Router(
            c.n_routed_experts, c.num_experts_per_tok, c.n_group, c.topk_group, c.norm_topk_prob
        )
        scores, ids = sigmoid_route(t, logits, router)
    out = latent(t, c, x, "fc1_latent_proj", c.moe_latent_size)
    with t.op("experts", "experts"):
        out = moe.gated_experts(
            t,
            out,
            scores,
            ids,
            c.n_routed_experts,
            c.moe_intermediate_size,
            lambda y: activate(t, c.mlp_hidden_act, y),
            halves=1,
        )
    out = latent(t, c, out, "fc2_latent_proj", c.hidden_size if c.moe_latent_size else None)
    with t.scope("shared_experts"):
        shared = mlp(t, c, h, c.moe_shared_expert_intermediate_size)
    with t.op("sum", "add"):
        return pointwise.add(t, t.view(out, *h.shape), shared)


def latent(t: Tape, c: Config, x: Value, name: str, width: int | None) -> Value:
    """x projected to the experts' space or back; x itself without a width."""
    if width is None:
        return x
    with t.op(name, "linear"):
        return linear.linear(t, x, width, bias=c.mlp_bias, parallel=False)
