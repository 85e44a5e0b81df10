"""Zamba [glorioso2024a]: Mamba layers of few heads; before some, the same transformer block."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import transformer, zamba2
from roofcast.simulator.models.families.mamba import fp32_weight, token_rows
from roofcast.simulator.models.families.mixers import causal_conv, kernels_of
from roofcast.simulator.models.families.transformer import activate, causal_loss
from roofcast.simulator.work.ops import embedding, linear, norm, pointwise, scan
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's ZambaConfig, with its defaults."""

    vocab_size: int = 32000
    hidden_size: int = 3712
    intermediate_size: int = 14848
    num_hidden_layers: int = 76
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    attention_hidden_size: int | None = None
    attention_head_dim: int | None = None
    n_mamba_heads: int = 2
    hidden_act: str = "gelu"
    hidden_mamba_act: str = "silu"
    attention_dropout: float = 0.0
    attn_layer_period: int = 6
    attn_layer_offset: int = 4
    layers_block_type: list[str] | None = None
    layer_types: list[str] | None = None
    mamba_d_state: int = 16
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_dt_rank: int | str = "auto"
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    use_associative_scan: bool = True
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        zamba2.check_kinds(self.listed, self.num_hidden_layers)
        if self.attn_layer_period < 1:
            raise ValueError("attn_layer_period must be at least 1")
        if self.n_mamba_heads < 1 or self.inner % self.n_mamba_heads:
            raise ValueError(f"n_mamba_heads {self.n_mamba_heads} does not divide {self.inner}")
        if self.attention_hidden_size not in (None, 2 * self.hidden_size):
            raise ValueError("attention_hidden_size must be twice hidden_size")

    @property
    def listed(self) -> list[str] | None:
        """The kinds of layers that the config lists."""
        return self.layers_block_type or self.layer_types

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def inner(self) -> int:
        """Channels of the Mamba layers."""
        return self.mamba_expand * self.hidden_size

    @property
    def rank(self) -> int:
        """Rank of the step sizes."""
        given = self.mamba_dt_rank
        return given if isinstance(given, int) else -(-self.hidden_size // 16)

    @property
    def kinds(self) -> list[bool]:
        """Whether the shared block comes before a layer."""
        if self.listed:
            return [kind == "hybrid" for kind in self.listed[: self.num_hidden_layers]]
        period, offset = self.attn_layer_period, self.attn_layer_offset
        layers = range(min(self.num_hidden_layers, 10_000))
        return [i == 2 or (i > 2 and (i - 3) % period == offset) for i in layers]

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key-value heads, and the width of a head."""
        n = self.num_attention_heads
        return n, self.num_key_value_heads, self.attention_head_dim or 2 * self.hidden_size // n

    @property
    def use_shared_attention_adapter(self) -> bool:
        """Adapters, which only Zamba2 has."""
        return False


class Shared(NamedTuple):
    """The weights of the shared block."""

    first_norm: Value
    q: Value
    k: Value
    v: Value
    o: Value
    last_norm: Value
    gate: Value
    up: Value
    down: Value


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [at times the shared block, norm, mixer], norm, head."""
    if t.parallel.tp > 1:
        raise BadInput(f"tp {t.parallel.tp}: Mamba layers have no heads to cut; use --dp or --zero")
    ids, width = t.input((batch, sequence), "int64"), c.hidden_size
    heads, groups, dim = c.heads
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, width, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, width, weight=table)
            first = pointwise.copy(t, x)
        mask = transformer.causal_masks(t, sequence, batch)()
        with t.op("shared_transf", "weights"):
            shapes = (
                (2 * width,), (heads * dim, 2 * width), (groups * dim, 2 * width),
                (groups * dim, 2 * width), (width, heads * dim), (width,),
                (c.intermediate_size, width), (c.intermediate_size, width),
                (width, c.intermediate_size),
            )  # fmt: skip
            used = any(c.kinds)
            shared = Shared(*(t.parameter(*shape) for shape in shapes)) if used else None

        def layer(x: Value, hybrid: bool) -> Value:
            added = None
            if hybrid and shared is not None:
                with t.scope("shared_transf"):
                    added = shared_block(t, c, x, first, shared, mask)
            return mamba_layer(t, c, x, added)

        x = transformer.layers(t, "layers", c.kinds, layer, x)
        with t.op("final_layernorm", "rms_norm"):
            x = norm.rms_norm(t, x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def mamba_layer(t: Tape, c: Config, x: Value, added: Value | None) -> Value:
    """A Mamba layer of x [batch, tokens, width] and of the result of the block before it."""
    h = zamba2.joined(t, x, added, c.hidden_size)
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, h)
    with t.scope("mamba"):
        h = mixer(t, c, h)
    with t.op("residual", "add"):
        return pointwise.add(t, x, h)


def shared_block(
    t: Tape, c: Config, x: Value, first: Value, shared: Shared, mask: Value | None
) -> Value:
    """Attention over x beside the embeddings, and an MLP, without residuals."""
    with t.op("input_layernorm", "rms_norm"):
        h = norm.rms_norm(t, pointwise.concat(t, [x, first], -1), scale=shared.first_norm)
    with t.scope("self_attn"):
        h = zamba2.attend(t, c, h, shared, None, mask)
    with t.op("pre_ff_layernorm", "rms_norm"):
        h = norm.rms_norm(t, h, scale=shared.last_norm)
    with t.scope("feed_forward"):
        with t.op("gate_proj", "linear"):
            inner = c.intermediate_size
            gate = linear.linear(t, h, inner, bias=False, weight=shared.gate)
        with t.op("up_proj", "linear"):
            up = linear.linear(t, h, inner, bias=False, weight=shared.up)
        with t.op("act_fn", c.hidden_act):
            h = pointwise.mul(t, activate(t, c.hidden_act, gate), up)
        with t.op("down_proj", "linear"):
            return linear.linear(t, h, c.hidden_size, bias=False, weight=shared.down)


def each(t: Tape, x: Value, batch: int, *shape: int) -> Value:
    """x as a product of heads and samples reads it: a copy, but for a batch of one."""
    return t.view(x, *shape) if batch == 1 else pointwise.copy(t, x, *shape)


def mixer(t: Tape, c: Config, x: Value) -> Value:
    """Selective state space models [gu2023] of several heads, of x [batch, tokens, width]."""
    fused = kernels_of(t, "selective scan", "mamba-ssm")
    (batch, length, _), heads, state = x.shape, c.n_mamba_heads, c.mamba_d_state
    dim, n = c.inner // heads, heads * batch
    with t.op("in_proj", "linear"):
        both = linear.linear(t, x, 2 * c.inner, bias=c.mamba_proj_bias)
        u = pointwise.copy(t, both, batch, c.inner, length)
    with t.op("A_log", "exp"):
        a = pointwise.unary(t, "exp", fp32_weight(t, t.parameter(heads, dim, state)))
        a = pointwise.unary(t, "neg", a)
    with t.op("conv1d", "conv"):
        act, shifted = c.hidden_mamba_act, c.mamba_conv_bias
        u = causal_conv(t, u, c.mamba_d_conv, bias=shifted, act=act, fused=fused)
    with t.op("x_proj", "linear"):
        wide = c.rank + 2 * state
        weight = each(t, t.parameter(heads, wide, dim), batch, n, wide, dim)
        parts = linear.matmul(t, weight, each(t, u, batch, n, dim, length))
    with t.op("dt_proj", "linear"):
        weight = each(t, t.parameter(heads, dim, c.rank), batch, n, dim, c.rank)
        dt = linear.matmul(t, weight, t.view(parts, n, c.rank, length))
        bias, skip = t.parameter(heads, dim), t.parameter(heads, dim)
    with t.op("scan", "scan"), t.times(heads):
        own, gate = (t.view(y, batch, dim, length) for y in (u, both))
        b, d = (t.view(parts, batch, 1, length, state) for _ in range(2))
        rates, steps = t.view(a, dim, state), t.view(dt, batch, dim, length)
        if fused:
            more = rates, t.view(skip, dim), t.view(bias, dim), gate
            y = scan.fused_scan(t, own, steps, b, d, more)
        else:
            shift = t.cast(t.view(bias, 1, dim, 1), steps.dtype)
            steps = pointwise.unary(t, "softplus", pointwise.add(t, steps, shift))
            y = scan.selective_scan(t, own, steps, b, d, rates, fp32_weight(t, t.view(skip, dim)))
            y = pointwise.mul(t, y, pointwise.unary(t, "silu", gate))
    with t.op("heads", "concat"):
        out = pointwise.copy(t, y, batch, c.inner, length)
    with t.op("out_proj", "linear"):
        rows = token_rows(t, t.cast(out, x.dtype))
        return linear.linear(t, rows, c.hidden_size, bias=c.mamba_proj_bias)
