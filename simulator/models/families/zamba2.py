"""Zamba2 [glorioso2024]: Mamba-2 layers; before some of them, one of few transformer blocks that
share their weights, each time with adapters of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from roofcast.hwdb.errors import number_of
from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import Mamba2, mamba2
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    gated,
    heads_of,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

MAMBA = ("mamba", "linear_attention")
# transformers' default: where the 54 layers of Zamba2-2.7B have a block
HYBRID_27B = (6, 12, 18, 24, 30, 36, 42, 47, 51)


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Zamba2Config, with its defaults."""

    vocab_size: int = 32000
    hidden_size: int = 2560
    num_hidden_layers: int = 54
    layers_block_type: list[str] | None = None
    layer_types: list[str] | None = None
    hybrid_layer_ids: list[int] | None = None  # unread by transformers, as those below
    attention_head_dim: int | None = None
    attention_hidden_size: int | None = None
    kv_channels: int | None = None
    num_query_groups: int | None = None
    mamba_headdim: int | None = None
    use_shared_mlp_adapter: bool = True
    mamba_d_state: int = 64
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_ngroups: int = 1
    n_mamba_heads: int = 8
    use_conv_bias: bool = True
    chunk_size: int = 256
    use_mem_eff_path: bool = False
    add_bias_linear: bool = False
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    attention_dropout: float = 0.0
    num_mem_blocks: int = 1
    use_shared_attention_adapter: bool = False
    adapter_rank: int = 128
    use_mem_rope: bool = False
    use_long_context: bool = False
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        check_kinds(self.layers_block_type or self.layer_types, self.num_hidden_layers)
        if self.num_mem_blocks < 1:
            raise ValueError("num_mem_blocks must be at least 1")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return 16384 if self.use_long_context else self.max_position_embeddings

    @property
    def kinds(self) -> list[int | None]:
        """Of every layer the number of the shared block before it, or None."""
        listed, found, blocks = self.layers_block_type or self.layer_types, [], 0
        for layer in range(self.num_hidden_layers):
            hybrid = listed[layer] == "hybrid" if listed else layer in HYBRID_27B
            found.append(blocks % self.num_mem_blocks if hybrid else None)
            blocks += hybrid
        return found

    @property
    def inner(self) -> int:
        """Width of the MLP."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key-value heads, and the width of a head."""
        n = self.num_attention_heads
        return n, self.num_key_value_heads or n, 2 * self.hidden_size // n

    @property
    def mixer(self) -> Mamba2:
        """Sizes of the Mamba-2 mixers."""
        return Mamba2(
            hidden=self.hidden_size,
            heads=self.n_mamba_heads,
            dim=self.mamba_expand * self.hidden_size // self.n_mamba_heads,
            groups=self.mamba_ngroups,
            state=self.mamba_d_state,
            chunk=self.chunk_size,
            kernel=self.mamba_d_conv,
            bias=self.add_bias_linear,
        )


def check_kinds(listed: list[str] | None, layers: int) -> None:
    """Raises ValueError where a list of kinds of layers is short, or has an unknown kind."""
    if listed is not None and len(listed) < layers:
        raise ValueError(
            f"'layers_block_type' has {number_of(len(listed), 'entry', 'entries')} for"
            f" {number_of(layers, 'layer')}"
        )
    bad = next((kind for kind in listed or () if kind not in (*MAMBA, "hybrid")), None)
    if bad is not None:
        raise ValueError(f"layer of kind {bad[:20]!r}; known: hybrid, {', '.join(MAMBA)}")


class Shared(NamedTuple):
    """The weights of a shared block."""

    first_norm: Value
    q: Value
    k: Value
    v: Value
    o: Value
    last_norm: Value
    gate_up: Value
    gate_up_bias: Value | None
    down: Value
    down_bias: Value | None


def shared_weights(t: Tape, c: Config) -> Shared:
    """The weights of a block, of which a tensor-parallel rank holds its share."""
    width, (heads, groups, dim) = c.hidden_size, c.heads

    def columns(out: int, inner: int) -> Value:
        weight = t.parameter(t.share(out, "the columns of a layer"), inner)
        weight.split = "features" if t.parallel.tp > 1 else None
        return weight

    def rows(out: int, inner: int) -> Value:
        return t.parameter(out, t.share(inner, "the rows of a layer"))

    bias = c.add_bias_linear
    return Shared(
        first_norm=t.parameter(2 * width),
        q=columns(heads * dim, 2 * width),
        k=columns(groups * dim, 2 * width),
        v=columns(groups * dim, 2 * width),
        o=rows(width, heads * dim),
        last_norm=t.parameter(width),
        gate_up=columns(2 * c.inner, width),
        gate_up_bias=t.parameter(t.share(2 * c.inner, "the MLP")) if bias else None,
        down=rows(width, c.inner),
        down_bias=t.parameter(width) if bias else None,
    )


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [at times a shared block, norm, mixer], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            first = pointwise.copy(t, x)
        tables = rotary_tables(t, sequence, c.heads[2]) if c.use_mem_rope else None
        mask = transformer.causal_masks(t, sequence, batch)()
        blocks = []
        for number in sorted({kind for kind in c.kinds if kind is not None}):
            with t.op(f"shared_transformer.{number}", "weights"):
                blocks.append(shared_weights(t, c))

        def layer(x: Value, kind: int | None) -> Value:
            added = None
            if kind is not None:
                with t.scope("shared_transformer"):
                    added = shared_block(t, c, x, first, blocks[kind], tables, mask)
            return mamba_layer(t, c, x, added)

        x = transformer.layers(t, "layers", c.kinds, layer, x)
        with t.op("final_layernorm", "rms_norm"):
            x = norm.rms_norm(t, x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def joined(t: Tape, x: Value, added: Value | None, width: int) -> Value:
    """x plus a linear layer of the block's result; x where there was none."""
    if added is None:
        return x
    with t.op("linear", "linear"):
        added = linear.linear(t, added, width, bias=False, parallel=False)
    with t.op("sum", "add"):
        return pointwise.add(t, x, added)


def mamba_layer(t: Tape, c: Config, x: Value, added: Value | None) -> Value:
    """A Mamba-2 layer of x [batch, tokens, width] and of the result of the block before it."""
    h = joined(t, x, added, c.hidden_size)
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, h)
    with t.scope("mamba"):
        h = mamba2(t, h, c.mixer)
    with t.op("residual", "add"):
        return pointwise.add(t, x, h)


def shared_block(
    t: Tape,
    c: Config,
    x: Value,
    first: Value,
    shared: Shared,
    tables: Tables | None,
    mask: Value | None,
) -> Value:
    """Attention over x beside the embeddings, and an MLP, without residuals."""
    with t.op("input_layernorm", "rms_norm"):
        h = pointwise.concat(t, [x, first], -1)
        h = norm.rms_norm(t, h, scale=shared.first_norm)
    with t.scope("self_attn"):
        h = attend(t, c, h, shared, tables, mask)
    with t.op("pre_ff_layernorm", "rms_norm"):
        h = norm.rms_norm(t, h, scale=shared.last_norm)
    with t.scope("feed_forward"):
        with t.op("gate_up_proj", "linear"):
            bias = shared.gate_up_bias or False
            both = linear.linear(t, h, 2 * c.inner, weight=shared.gate_up, bias=bias)
        both = adapted(t, c, "gate_up_proj_adapter", h, both, 2 * c.inner)
        with t.op("act_fn", c.hidden_act):
            h = gated(t, both, c.hidden_act)
        with t.op("down_proj", "linear"):
            bias = shared.down_bias or False
            return linear.linear(t, h, c.hidden_size, weight=shared.down, bias=bias)


def adapted(t: Tape, c: Config, name: str, x: Value, y: Value, out: int) -> Value:
    """y plus two products of x through the rank of an adapter."""
    with t.op(name, "linear"):
        low = linear.linear(t, x, c.adapter_rank, bias=False, parallel=False)
        return pointwise.add(t, y, linear.linear(t, low, out, bias=False))


def attend(
    t: Tape, c: Any, x: Value, shared: Any, tables: Tables | None, mask: Value | None
) -> Value:
    """Attention of x [batch, tokens, 2 width] with the weights of a shared block."""
    heads, groups, dim = c.heads
    parts = []
    for name, weight, n in (
        ("q", shared.q, heads),
        ("k", shared.k, groups),
        ("v", shared.v, groups),
    ):
        with t.op(f"{name}_proj", "linear"):
            y = linear.linear(t, x, n * dim, bias=False, weight=weight)
        if c.use_shared_attention_adapter:
            y = adapted(t, c, f"{name}_adapter", x, y, n * dim)
        parts.append(heads_of(t, y, n, dim))
    q, k, v = parts
    if tables is not None:
        with t.op("rotary", "rotary"):
            q, k = (rotate(t, y, *tables) for y in (q, k))
    with t.op("attention", "attention"):
        drop = c.attention_dropout
        h = attention.attention(t, q, k, v, causal=True, mask=mask, softmax_fp32=True, dropout=drop)
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=False, weight=shared.o)
