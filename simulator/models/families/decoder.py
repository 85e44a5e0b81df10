"""Llama-like decoders that differ from Llama by the few facts of decoder_facts.py."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.decoder_facts import FACTS, Facts
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    gated,
    gated_mlp,
    heads_of,
    projections,
    rotary_tables,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

ABSENT: Any = msgspec.UNSET
# what holds for every model_type unless decoder_facts.py says otherwise
DEFAULTS = {"hidden_act": "silu", "max_position_embeddings": 2048}
REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


class Kind(NamedTuple):
    """What distinguishes the layers of a model."""

    window: int | None  # attention window [tokens]; None: all earlier tokens
    rotated: bool


class Config(msgspec.Struct, frozen=True):
    """Keys of the Hugging Face configurations of FACTS; absent ones get their defaults there."""

    model_type: str
    vocab_size: int = ABSENT
    hidden_size: int = ABSENT
    intermediate_size: int = ABSENT
    num_hidden_layers: int = ABSENT
    num_attention_heads: int = ABSENT
    num_key_value_heads: int | None = ABSENT
    head_dim: int | None = ABSENT
    hidden_act: str = ABSENT
    max_position_embeddings: int = ABSENT
    tie_word_embeddings: bool = ABSENT
    attention_bias: bool = ABSENT
    attention_out_bias: bool | None = ABSENT
    mlp_bias: bool = ABSENT
    attention_dropout: float | None = ABSENT
    residual_dropout: float = ABSENT  # of Seed-OSS
    hidden_dropout: float = ABSENT  # of StableLM: of the MLP only
    clip_qkv: float | None = ABSENT
    use_qk_norm: bool = ABSENT
    qk_layernorm: bool = ABSENT
    use_parallel_residual: bool = ABSENT
    use_post_norm: bool = True
    sliding_window: int | None = ABSENT
    use_sliding_window: bool = ABSENT
    sliding_window_pattern: int | str | None = ABSENT
    layer_types: list[str] | None = ABSENT
    no_rope_layers: list[int] | None = ABSENT
    no_rope_layer_interval: int = ABSENT
    partial_rotary_factor: float | None = ABSENT
    rope_parameters: dict | None = ABSENT
    embedding_multiplier: float | None = ABSENT
    residual_multiplier: float | None = ABSENT
    logits_scaling: float | None = ABSENT
    logit_scale: float | None = ABSENT
    final_logit_softcapping: float | None = ABSENT
    # other names of keys
    use_bias: bool = ABSENT
    use_qkv_bias: bool = ABSENT
    qkv_bias: bool = ABSENT
    bias: bool = ABSENT
    num_layers: int = ABSENT
    activation_function: str = ABSENT
    model_max_length: int = ABSENT
    padded_vocab_size: int = ABSENT
    ffn_hidden_size: int = ABSENT
    kv_channels: int = ABSENT
    multi_query_group_num: int = ABSENT
    seq_length: int = ABSENT
    add_qkv_bias: bool = ABSENT
    add_bias_linear: bool = ABSENT
    alibi: bool = False  # positions as a mask of scores [press2022]

    def __post_init__(self) -> None:
        if self.model_type == "baichuan" and self.max_position_embeddings is ABSENT:
            msgspec.structs.force_setattr(self, "alibi", True)  # 13B; 7B names both lengths
        for other, names in self.facts.names.items():
            for name in names:
                if getattr(self, other) is not ABSENT and getattr(self, name) is ABSENT:
                    msgspec.structs.force_setattr(self, name, getattr(self, other))
        for name in self.__struct_fields__:
            if getattr(self, name) is ABSENT:
                if name in REQUIRED:
                    raise ValueError(f"missing key '{name}'")
                default = self.facts.keys.get(name, DEFAULTS.get(name))
                msgspec.structs.force_setattr(self, name, default)
        for name in ("layer_types", "no_rope_layers"):
            if (
                getattr(self, name) is not None
                and len(getattr(self, name)) < self.num_hidden_layers
            ):
                raise ValueError(f"'{name}' has fewer entries than there are layers")

    @property
    def facts(self) -> Facts:
        """What the model_type fixes."""
        return FACTS[self.model_type]

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that rotary embeddings rotate."""
        if not self.facts.rotary.joined:
            return self.dim
        share = (self.rope_parameters or {}).get("partial_rotary_factor")
        return int(self.dim * (share or self.partial_rotary_factor or 1.0))

    @property
    def qk_norm(self) -> str:
        """How queries and keys are normalized: as in Facts."""
        if self.use_qk_norm or self.qk_layernorm:
            return "heads"
        return self.facts.qk_norm

    @property
    def placed(self) -> str:
        """Where the norms of a block are: as in Facts."""
        if self.use_parallel_residual:
            return "shared"
        return "before" if not self.use_post_norm else self.facts.placed

    def biased(self, part: str) -> bool:
        """Whether the products `part` (qkv, o, mlp) have biases."""
        if part == "o" and self.attention_out_bias is not None:
            return self.attention_out_bias
        key = self.mlp_bias if part == "mlp" else self.attention_bias
        return bool(key) and part in self.facts.biased.split()

    def kind(self, layer: int) -> Kind:
        """The window of a layer, and whether it has rotary embeddings."""
        rotated = not self.no_rope_layer_interval or bool((layer + 1) % self.no_rope_layer_interval)
        if self.no_rope_layers is not None:
            rotated = bool(self.no_rope_layers[layer])
        if self.layer_types is not None:
            windowed = self.layer_types[layer] == "sliding_attention"
        elif self.no_rope_layer_interval:
            windowed = bool(self.use_sliding_window) and not rotated
        else:
            windowed = self._windowed(layer)
        window = (self.sliding_window or None) if windowed else None
        if self.facts.unrotated:
            rotated = window is not None or not self.sliding_window
        return Kind(window, rotated and not self.alibi)

    def _windowed(self, layer: int) -> bool:
        """Whether a layer is windowed where the configuration does not list its layers."""
        every = self.facts.every if self.sliding_window_pattern is None else 0
        pattern = self.sliding_window_pattern
        if isinstance(
            pattern, str
        ):  # a string of L (windowed) and G (full); the last layer is full
            last = layer == self.num_hidden_layers - 1
            return not last and pattern[layer % len(pattern)] == "L"
        every = pattern or every
        if every < 0:  # the first layer of each pattern is the full one
            return layer % -every != 0
        return not every or (layer + 1) % every != 0


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [attention, MLP] with norms, norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            if c.embedding_multiplier is not None:
                x = pointwise.scale(t, x)
        kinds = [c.kind(layer) for layer in range(c.num_hidden_layers)]
        full = {k.window is None for k in kinds} if c.facts.tables else {True}
        tables = {
            f: rotary_tables(t, sequence, c.rotary_dim, wide=c.facts.rotary.wide)
            for f in sorted(full)
        }
        masks = transformer.causal_masks(t, sequence, batch)
        heads = alibi_mask(t, c.num_attention_heads, sequence) if c.alibi else None

        def layer(x: Value, kind: Kind) -> Value:
            pair = tables[kind.window is None or not c.facts.tables]
            return block(t, c, x, pair, heads or masks(kind.window), kind)

        if c.facts.first:
            x = normed(t, c, "first_norm", x)
        x = transformer.layers(t, "layers", kinds, layer, x)
        x = normed(t, c, "norm", x)
    return causal_loss(
        t,
        x,
        c.vocab_size,
        weight=table if c.tie_word_embeddings else None,
        softcap=bool(c.final_logit_softcapping),
        scaled=c.logits_scaling is not None or c.logit_scale is not None,
    )


def alibi_mask(t: Tape, heads: int, sequence: int) -> Value:
    """The causal mask [1, heads, sequence, sequence] with a slope per head, made once per step.

    Baichuan 2 13B makes it on the host whenever the length changes; counted on the device.
    """
    with t.op("alibi", "mask"):
        heads = t.share(heads, "the attention heads")
        mask = t.new((1, heads, sequence, sequence))
        t.emit("elementwise", (), (mask,), vector=2 * mask.size)
    return mask


def normed(t: Tape, c: Config, name: str, x: Value) -> Value:
    """The model's norm over the last dimension of x, as an op called `name`."""
    flavor = c.facts.norm
    if flavor in ("layer", "plain", "one_plus", "cohere"):
        with t.op(name, "layer_norm"):
            return norm.layer_norm_as(t, x, flavor)
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor=flavor, affine=flavor != "bare")


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, kind: Kind) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    before, after = c.placed != "after", c.placed in ("after", "around")
    h = normed(t, c, "input_layernorm", x) if before else x
    with t.scope("self_attn"):
        a = self_attention(t, c, h, tables, mask, kind)
    if c.placed == "shared":
        with t.scope("mlp"):
            m = mlp(t, c, h)
        with t.op("residual", "add"):
            return pointwise.add(t, pointwise.add(t, x, a), m)
    x = joined(t, c, "attn", x, normed(t, c, "post_attn_norm", a) if after else a)
    h = normed(t, c, "post_attention_layernorm", x) if before else x
    with t.scope("mlp"):
        m = mlp(t, c, h)
    return joined(t, c, "mlp", x, normed(t, c, "post_mlp_norm", m) if after else m)


def joined(t: Tape, c: Config, name: str, x: Value, h: Value) -> Value:
    """The residual sum x + h, where h may be scaled."""
    with t.op(f"residual_{name}", "add"):
        return pointwise.add(
            t, x, pointwise.scale(t, h) if c.residual_multiplier is not None else h
        )


def mlp(t: Tape, c: Config, h: Value) -> Value:
    """The MLP of h [batch, tokens, width]."""
    bias, width, act = c.biased("mlp"), c.intermediate_size, c.hidden_act
    if c.facts.mlp in ("gated", "halved"):
        own = width // 2 if c.facts.mlp == "halved" else width
        h = gated_mlp(t, h, own, c.hidden_size, activation=act, bias=bias)
    else:
        fused = c.facts.mlp == "fused"
        with t.op("gate_up_proj" if fused else "up_proj", "linear"):
            h = linear.linear(t, h, 2 * width if fused else width, bias=bias)
        with t.op("act_fn", act):
            h = gated(t, h, act) if fused else activate(t, act, h)
        with t.op("down_proj", "linear"):
            h = linear.linear(t, h, c.hidden_size, bias=bias)
    return pointwise.dropout(t, h, c.residual_dropout or c.hidden_dropout or 0.0)


def self_attention(
    t: Tape, c: Config, h: Value, tables: Tables, mask: Value | None, kind: Kind
) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    q, k, v = queries(t, c, h)
    if c.qk_norm == "heads":
        q, k = (normed_heads(t, c, f"{n}_norm", x) for n, x in (("q", q), ("k", k)))
    if kind.rotated:
        with t.op("rotary", "rotary"):
            q, k = rotated(t, c, q, k, tables)
    if c.facts.tempered:
        with t.op("temper", "scale"):
            factor = t.new((1, 1, q.shape[2], 1), q.dtype)
            t.emit("elementwise", (), (factor,), vector=factor.size, special=factor.size)
            q = pointwise.mul(t, q, factor)
    if c.qk_norm == "rotated":
        q, k = (normed(t, c, f"{n}_norm", x) for n, x in (("q", q), ("k", k)))
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
            dropout=c.attention_dropout or 0.0,
            by_heads=c.facts.rotary.joined,
        )
    with t.op("o_proj", "linear"):
        h = linear.linear(t, h, c.hidden_size, bias=c.biased("o"))
        return pointwise.dropout(t, h, c.residual_dropout or 0.0)


def queries(t: Tape, c: Config, h: Value) -> list[Value]:
    """q, k and v [batch, heads, tokens, dim]; q and k may be normalized over all their heads."""
    heads = {"q_proj": c.num_attention_heads, "k_proj": c.groups, "v_proj": c.groups}
    if c.facts.qkv:
        with t.op(c.facts.qkv, "linear"):
            y = linear.linear(t, h, sum(heads.values()) * c.dim, bias=c.biased("qkv"))
        return [
            heads_of(t, t.view(y, *y.shape[:2], n * c.dim), n, c.dim, shared=name != "q_proj")
            for name, n in heads.items()
        ]
    if c.qk_norm != "width" and not c.clip_qkv:
        return projections(t, h, heads, c.dim, bias=c.biased("qkv"), whole=c.dim)
    found: list[Value] = []
    for name, n in heads.items():
        with t.op(name, "linear"):
            y = linear.linear(t, h, n * c.dim, bias=c.biased("qkv"), whole=c.dim)
            if c.clip_qkv:
                y = pointwise.unary(t, "clamp", y)
        if c.qk_norm == "width" and name != "v_proj":
            y = normed(t, c, name[0] + "_norm", y)
            if y.split == "features":  # the mean square over the heads of all ranks
                t.send("all_reduce", "tp", 4 * y.size // y.shape[-1])
        found.append(heads_of(t, y, n, c.dim, shared=bool(found)))
    return found


def normed_heads(t: Tape, c: Config, name: str, x: Value) -> Value:
    """Norm of each head of x[B, H, S, D]; Cohere and StableLM have a scale for every head."""
    if c.model_type not in ("cohere", "stablelm"):
        return normed(t, c, name, x)
    with t.op(name, "layer_norm"):
        if c.model_type == "cohere":
            return norm.layer_norm_as(t, x, "cohere", heads=x.shape[1])
        parts = [t.view(x, x.shape[0], 1, *x.shape[2:]) for _ in range(x.shape[1])]
        return pointwise.concat(t, [norm.layer_norm(t, p, bias=False) for p in parts], 1)


def rotated(t: Tape, c: Config, q: Value, k: Value, tables: Tables) -> tuple[Value, Value]:
    """Queries and keys [B, H, S, D] with their rotary embeddings."""
    how = c.facts.rotary
    cos, sin = tables
    if how.expanded and t.implementation("rotary", "composed") != "fused":
        cos, sin = (pointwise.copy(t, x) for x in (cos, sin))

    def turned(x: Value) -> Value:
        wide = t.cast(x, "fp32") if how.upcast else x
        if how.flash and t.implementation("attention", "flash") == "flash":
            return t.cast(transformer.rotate_fused(t, wide, cos, sin), x.dtype)
        return t.cast(transformer.rotate(t, wide, cos, sin, partial=how.joined), x.dtype)

    return turned(q), turned(k)
