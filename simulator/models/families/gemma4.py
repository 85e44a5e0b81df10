"""Gemma 4, language models only: per-layer inputs, shared keys and values, experts."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    gated,
    gated_mlp,
    heads_of,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Shared = dict[bool, tuple[Value, Value]]  # windowed -> keys and values that later layers read


class Kind(NamedTuple):
    """What distinguishes the layers of a model."""

    window: int | None  # attention window [tokens]; None: all earlier tokens
    keys: str  # own | stored (own, and read by later layers) | shared (those of an earlier layer)


class SharedKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that Gemma 3n and Gemma 4 have in common, with the defaults of Gemma 4."""

    model_type: str
    vocab_size: int = 262144
    hidden_size: int = 2304
    num_hidden_layers: int = 30
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    sliding_window: int = 512
    layer_types: list[str] | None = None
    final_logit_softcapping: float | None = None
    vocab_size_per_layer_input: int = 262144
    hidden_size_per_layer_input: int | None = 256
    num_kv_shared_layers: int = 0

    def __post_init__(self) -> None:
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"'layer_types' must have {self.num_hidden_layers} entries")
        if self.num_kv_shared_layers:
            own = self.windowed[: self.num_hidden_layers - self.num_kv_shared_layers]
            if not own or set(own) != set(self.windowed):
                raise ValueError(
                    f"'num_kv_shared_layers' is {self.num_kv_shared_layers}: no earlier layer of"
                    " the same type has keys to share"
                )

    every = 6  # by default, every sixth layer sees all earlier tokens

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def per_layer(self) -> int:
        """Width of the input that each layer has of its own; 0: none."""
        return self.hidden_size_per_layer_input or 0

    @property
    def windowed(self) -> list[bool]:
        """For each layer, whether its attention has a window; the last layer has none."""
        given = self.layer_types
        if given is None:
            found = [bool((i + 1) % self.every) for i in range(self.num_hidden_layers)]
        else:
            found = [name == "sliding_attention" for name in given]
        return found

    def kinds(self) -> list[Kind]:
        """The kind of each layer."""
        windowed, n = self.windowed, self.num_hidden_layers - self.num_kv_shared_layers
        last = {
            w: max((i for i in range(n) if windowed[i] == w), default=-1) for w in (True, False)
        }
        found = []
        for i, w in enumerate(windowed):
            stored = "stored" if self.num_kv_shared_layers and last[w] == i else "own"
            keys = stored if i < n else "shared"
            found.append(Kind(self.sliding_window if w else None, keys))
        return found


class Config(SharedKeys, frozen=True, kw_only=True):
    """Keys of Hugging Face's Gemma4TextConfig, with its defaults."""

    intermediate_size: int = 9216
    global_head_dim: int = 512
    num_global_key_value_heads: int | None = None
    attention_k_eq_v: bool = False
    use_double_wide_mlp: bool = False
    enable_moe_block: bool = False
    num_experts: int | None = None
    top_k_experts: int | None = None
    moe_intermediate_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = (self.num_experts, self.top_k_experts, self.moe_intermediate_size)
        if self.enable_moe_block and not all(sizes):
            raise ValueError(
                "'enable_moe_block' needs num_experts, top_k_experts and moe_intermediate_size"
            )

    @property
    def windowed(self) -> list[bool]:
        """For each layer, whether its attention has a window; the last layer has none."""
        found = super().windowed
        return [*found[:-1], False]

    def shape(self, kind: Kind) -> tuple[int, int, bool]:
        """(width of a head, key-value heads, whether values are keys) of a layer."""
        if kind.window is not None:
            return self.head_dim, self.num_key_value_heads, False
        groups = self.num_global_key_value_heads if self.attention_k_eq_v else None
        return self.global_head_dim, groups or self.num_key_value_heads, self.attention_k_eq_v

    def width(self, kind: Kind) -> int:
        """Inner width of the MLP of a layer."""
        return self.intermediate_size * (
            2 if self.use_double_wide_mlp and kind.keys == "shared" else 1
        )


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Scaled embedding, n x [attention, MLP, per-layer input] with norms, norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        table, x = embedded(t, "embed_tokens", ids, c.vocab_size, c.hidden_size)
        inputs = per_layer_inputs(t, c, ids, x) if c.per_layer else None
        kinds, shared = c.kinds(), Shared()
        tables = {
            w: rotary_tables(t, sequence, c.head_dim if w else c.global_head_dim)
            for w in sorted({k.window is not None for k in kinds})
        }
        masks = transformer.causal_masks(t, sequence, batch)

        def layer(x: Value, kind: Kind) -> Value:
            pair = tables[kind.window is not None]
            return block(t, c, x, inputs, pair, masks(kind.window), kind, shared)

        x = transformer.layers(t, "layers", kinds, layer, x)
        x = normed(t, "norm", x)
    tied, softcap = table if c.tie_word_embeddings else None, bool(c.final_logit_softcapping)
    return causal_loss(t, x, c.vocab_size, weight=tied, softcap=softcap)


def normed(t: Tape, name: str, x: Value, *, affine: bool = True) -> Value:
    """Gemma 4's RMSNorm over the last dimension of x, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="gemma4", affine=affine)


def embedded(t: Tape, name: str, ids: Value, rows: int, width: int) -> tuple[Value, Value]:
    """A vocabulary table [rows, width], and the scaled rows of the ids."""
    with t.op(name, "embedding"):
        table = t.vocabulary(rows, width)
        x = embedding.embedding(t, ids, rows, width, weight=table)
        return table, pointwise.scale(t, x)


def per_layer_inputs(t: Tape, c: SharedKeys, ids: Value, x: Value) -> Value:
    """The inputs of all layers [B, S, layers, width]: of the tokens and of their embeddings x."""
    width = c.num_hidden_layers * c.per_layer
    rows = c.vocab_size_per_layer_input
    _, own = embedded(t, "embed_tokens_per_layer", ids, rows, width)
    with t.op("per_layer_model_projection", "linear"):
        y = pointwise.scale(t, linear.linear(t, x, width, bias=False, parallel=False))
    shape = (*y.shape[:2], c.num_hidden_layers, c.per_layer)
    y = normed(t, "per_layer_projection_norm", t.view(y, *shape))
    with t.op("per_layer_inputs", "add"):
        return pointwise.scale(t, pointwise.add(t, y, t.view(own, *shape)))


def gated_by_input(t: Tape, c: SharedKeys, x: Value, inputs: Value) -> Value:
    """norm(up(act(gate(x)) * input)) for a layer's own part of the `inputs` of all layers."""
    with t.op("per_layer_input_gate", "linear"):
        h = linear.linear(t, x, c.per_layer, bias=False, parallel=False)
    with t.op("act_fn", c.hidden_activation):
        own = pointwise.part(t, inputs, *inputs.shape[:2], c.per_layer)
        h = pointwise.mul(t, activate(t, c.hidden_activation, h), own)
    with t.op("per_layer_projection", "linear"):
        h = linear.linear(t, h, c.hidden_size, bias=False, parallel=False)
    return normed(t, "post_per_layer_input_norm", h)


def block(
    t: Tape,
    c: Config,
    x: Value,
    inputs: Value | None,
    tables: Tables,
    mask: Value | None,
    kind: Kind,
    shared: Shared,
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "input_layernorm", x)
    dim, groups, same = c.shape(kind)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, mask, kind, shared, (dim, groups, same))
    h = normed(t, "post_attention_layernorm", h)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "pre_feedforward_layernorm", x)
    with t.scope("mlp"):
        h = gated_mlp(t, h, c.width(kind), c.hidden_size, activation=c.hidden_activation)
    if c.enable_moe_block:
        h = normed(t, "post_feedforward_layernorm_1", h)
        with t.scope("moe"):
            routed = sparse_mlp(t, c, x)
        with t.op("moe_add", "add"):
            h = pointwise.add(t, h, routed)
    h = normed(t, "post_feedforward_layernorm", h)
    with t.op("residual_mlp", "add"):
        x = pointwise.add(t, x, h)
    if inputs is not None:
        h = gated_by_input(t, c, x, inputs)
        with t.op("residual_input", "add"):
            x = pointwise.add(t, x, h)
    with t.op("layer_scalar", "scale"):
        return pointwise.unary(t, "mul_scalar", x, in_place=True)


def self_attention(
    t: Tape,
    c: SharedKeys,
    h: Value,
    tables: Tables,
    mask: Value | None,
    kind: Kind,
    shared: Shared,
    shape: tuple[int, int, bool],
) -> Value:
    """Self-attention; h and the result are [batch, tokens, width].

    `shape` is that of Config.shape; `shared` holds the keys and values of earlier layers.
    """
    dim, groups, same = shape
    q = projected(t, c, "q", h, c.num_attention_heads, dim)
    q = normed(t, "q_norm", q)
    with t.op("rotary", "rotary"):
        q = rotate(t, q, *tables)
    windowed = kind.window is not None
    if kind.keys == "shared":
        k, v = shared[windowed]
    else:
        k = v = projected(t, c, "k", h, groups, dim)
        if not same:
            v = projected(t, c, "v", h, groups, dim)
        k = normed(t, "k_norm", k)
        with t.op("rotary_k", "rotary"):
            k = rotate(t, k, *tables)
        v = normed(t, "v_norm", v, affine=False)
        if kind.keys == "stored":
            shared[windowed] = k, v
    dropout: dict[str, Any] = {"dropout": c.attention_dropout}
    again = 0 if kind.keys == "shared" else None  # kept once, by the layer that computes them
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            softmax_fp32=True,
            window=kind.window,
            cache=again,
            **dropout,
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def projected(t: Tape, c: SharedKeys, name: str, h: Value, heads: int, dim: int) -> Value:
    """Queries, keys or values [B, heads, S, dim] of h."""
    with t.op(f"{name}_proj", "linear"):
        y = linear.linear(t, h, heads * dim, bias=c.attention_bias, whole=dim)
        return heads_of(t, y, heads, dim, shared=name != "q")


def sparse_mlp(t: Tape, c: Config, x: Value) -> Value:
    """The experts beside the MLP; x and the result are [batch, tokens, width]."""
    experts, chosen, width = c.num_experts or 0, c.top_k_experts or 0, c.moe_intermediate_size or 0
    flat = t.view(x, x.shape[0] * x.shape[1], c.hidden_size)
    h = normed(t, "router_norm", flat, affine=False)
    with t.op("router", "router"):
        h = pointwise.scale(t, pointwise.mul(t, h, t.parameter(c.hidden_size)))
        logits = linear.linear(t, h, experts, bias=False, parallel=False)
        scores, ids = moe.top_k(t, norm.softmax(t, logits, dtype="fp32"), chosen)
        scores = moe.normalise(t, scores)
        each = moe.take(t, t.parameter(experts), ids, *ids.shape)
        scores = pointwise.mul(t, scores, each)
    h = normed(t, "pre_feedforward_layernorm_2", flat)
    with t.op("experts", "experts"):
        act = c.hidden_activation
        h = moe.gated_experts(t, h, scores, ids, experts, width, lambda h: gated(t, h, act))
    return normed(t, "post_feedforward_layernorm_2", t.view(h, *x.shape))
