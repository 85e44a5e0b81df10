"""Gemma 3n, language model only: alternating updates, low-rank residuals, per-layer inputs.

The block runs on one of several copies of the hidden state; the others are predicted before it and
corrected after it [baykal2023].
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.gemma4 import (
    Kind,
    Shared,
    SharedKeys,
    embedded,
    gated_by_input,
    normed,
    per_layer_inputs,
    self_attention,
)
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    rotary_tables,
)
from roofcast.simulator.work.ops import linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Layer(msgspec.Struct, frozen=True):
    """What distinguishes the layers of a model."""

    kind: Kind
    width: int  # inner width of the MLP
    sparse: bool  # whether the MLP drops all but its largest activations


class Config(SharedKeys, frozen=True, kw_only=True):
    """Keys of Hugging Face's Gemma3nTextConfig, with its defaults."""

    vocab_size: int = 262400
    hidden_size: int = 2048
    num_hidden_layers: int = 35
    num_key_value_heads: int = 2
    max_position_embeddings: int = 32768
    final_logit_softcapping: float | None = 30.0
    num_kv_shared_layers: int = 15
    intermediate_size: int | list[int] = 16384
    activation_sparsity_pattern: list[float] | float | None = None
    altup_num_inputs: int = 4
    altup_coef_clip: float | None = 120.0
    altup_correct_scale: bool = True
    laurel_rank: int = 64

    every = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("intermediate_size", "activation_sparsity_pattern"):
            value = getattr(self, key)
            if isinstance(value, list) and len(value) != self.num_hidden_layers:
                raise ValueError(f"'{key}' must have {self.num_hidden_layers} entries")
        if self.altup_num_inputs < 2 or not self.per_layer:
            raise ValueError(
                "'altup_num_inputs' must be at least 2 and 'hidden_size_per_layer_input' above 0"
            )

    def layers(self) -> list[Layer]:
        """What each layer is."""
        n, widths, sparse = (
            self.num_hidden_layers,
            self.intermediate_size,
            self.activation_sparsity_pattern,
        )
        widths = widths if isinstance(widths, list) else [widths] * n
        if sparse is None:
            sparse = [0.95 if n > 10 and i < 10 else 0.0 for i in range(n)]
        elif not isinstance(sparse, list):
            sparse = [sparse] * n
        return [
            Layer(kind, width, share > 0)
            for kind, width, share in zip(self.kinds(), widths, sparse, strict=True)
        ]


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Scaled embedding, copies of it, n blocks, their mean, norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        table, x = embedded(t, "embed_tokens", ids, c.vocab_size, c.hidden_size)
        # ids without a row in the second table are replaced, by a copy
        inputs = per_layer_inputs(t, c, t.new(ids.shape, "int64"), x)
        layers, shared = c.layers(), Shared()
        windowed = sorted({layer.kind.window is not None for layer in layers})
        tables = {w: rotary_tables(t, sequence, c.head_dim) for w in windowed}
        masks = transformer.causal_masks(t, sequence, batch)
        x = stacked(t, resized(t, c, "altup_projections", [x] * c.altup_num_inputs))

        def layer(x: Value, which: Layer) -> Value:
            window = which.kind.window
            return block(t, c, x, inputs, tables[window is not None], masks(window), which, shared)

        x = transformer.layers(t, "layers", layers, layer, x)
        copies = [one(t, x) for _ in range(c.altup_num_inputs)]
        x = stacked(t, resized(t, c, "altup_unembed_projections", copies))
        with t.op("mean", "mean"):
            x = pointwise.mean(t, x, 0, keepdim=False)
        x = normed(t, "norm", x)
    tied, softcap = table if c.tie_word_embeddings else None, bool(c.final_logit_softcapping)
    return causal_loss(t, x, c.vocab_size, weight=tied, softcap=softcap)


def one(t: Tape, x: Value) -> Value:
    """One copy [B, S, D] of the hidden states [copies, B, S, D]: a view."""
    return t.view(x, *x.shape[1:])


def stacked(t: Tape, parts: list[Value]) -> Value:
    """The parts [B, S, D] as one tensor [copies, B, S, D]."""
    with t.op("stack", "concat"):
        return pointwise.concat(t, [t.view(p, 1, *p.shape) for p in parts], 0)


def resized(t: Tape, c: Config, name: str, copies: list[Value]) -> list[Value]:
    """The first copy, and products of the others, scaled to the magnitude of the first."""
    unary, mean = pointwise.unary, pointwise.mean
    with t.op(name, "linear"):
        first, *others = copies
        target = unary(t, "pow", mean(t, unary(t, "pow", first)))
        found = [first]
        for x in others:
            y = linear.linear(t, x, c.hidden_size, bias=False, parallel=False)
            size = unary(t, "sqrt", unary(t, "clamp", mean(t, unary(t, "pow", y))))
            found.append(pointwise.mul(t, pointwise.mul(t, y, target), size))
    return found


Router = tuple[Value, Value]  # scale of the router's norm, and the router's matrix


def routed(t: Tape, c: Config, x: Value, router: Router) -> Value:
    """tanh(router(norm(x))) [B, S, copies] of AltUp."""
    n, (scale, matrix) = c.altup_num_inputs, router
    with t.op("router_norm", "rms_norm"):
        h = norm.rms_norm(t, x, flavor="gemma4", scale=scale)
    with t.op("modality_router", "router"):
        h = pointwise.scale(t, h)
        h = linear.linear(t, h, n, bias=False, weight=matrix, parallel=False)
        return t.cast(pointwise.unary(t, "tanh", t.cast(h, "fp32")), x.dtype)


def predicted(t: Tape, c: Config, x: Value, router: Router) -> Value:
    """AltUp's prediction of all copies x [copies, B, S, D] from each other."""
    n, width = c.altup_num_inputs, c.hidden_size
    batch, tokens = x.shape[1:3]
    h = routed(t, c, one(t, x), router)
    with t.op("prediction_coefs", "linear"):
        mix = linear.linear(t, h, n * n, bias=False, parallel=False)
        mix = t.view(mix, batch, tokens, n, n)
    with t.op("predict", "matmul"):
        y = linear.matmul(t, t.view(x, batch, tokens, width, n), mix)
        y = pointwise.add(t, t.view(y, n, batch, tokens, width), x)
        return pointwise.copy(t, y)


def corrected(t: Tape, c: Config, predictions: Value, active: Value, router: Router) -> Value:
    """AltUp's correction of all predicted copies by the block's result `active` [B, S, D]."""
    n = c.altup_num_inputs
    h = routed(t, c, active, router)
    with t.op("correct", "linear"):
        change = pointwise.add(t, active, one(t, predictions))
        change = pointwise.copy(t, change, n, *active.shape)
        w = t.parameter(n, n)
        if t.training and c.altup_coef_clip is not None:
            w = pointwise.unary(t, "clamp", w)
        coefs = linear.linear(t, h, n, bias=False, weight=w, parallel=False)
        coefs = pointwise.unary(t, "add_scalar", coefs)
        coefs = t.view(coefs, n, *active.shape[:2], 1)
        return pointwise.add(t, pointwise.mul(t, change, coefs), predictions)


def mlp(t: Tape, c: Config, x: Value, layer: Layer) -> Value:
    """The gated MLP of x [B, S, D]; a sparse one drops what is below a quantile of the gate."""
    unary, add = pointwise.unary, pointwise.add
    with t.op("gate_proj", "linear"):
        h = linear.linear(t, x, layer.width, bias=False)
    if layer.sparse:
        with t.op("sparsity", "threshold"):
            deviation = pointwise.mean(t, h)
            t.save(h, deviation)
            factor = t.new((), h.dtype)
            cutoff = pointwise.mul(t, deviation, factor)
            cutoff = add(t, pointwise.mean(t, h), cutoff)
            h = unary(t, "relu", add(t, h, cutoff))
    with t.op("up_proj", "linear"):
        up = linear.linear(t, x, layer.width, bias=False)
    with t.op("act_fn", c.hidden_activation):
        h = pointwise.mul(t, activate(t, c.hidden_activation, h), up)
    with t.op("down_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=False)


def laurel(t: Tape, c: Config, x: Value) -> Value:
    """x + norm(right(left(x))), with a low rank between left and right."""
    with t.op("laurel_left", "linear"):
        h = linear.linear(t, x, c.laurel_rank, bias=False, parallel=False)
    with t.op("laurel_right", "linear"):
        h = linear.linear(t, h, c.hidden_size, bias=False, parallel=False)
    h = normed(t, "post_laurel_norm", h)
    with t.op("laurel_add", "add"):
        return pointwise.add(t, x, h)


def block(
    t: Tape,
    c: Config,
    x: Value,
    inputs: Value,
    tables: Tables,
    mask: Value | None,
    layer: Layer,
    shared: Shared,
) -> Value:
    """One block; x and the result are [copies, batch, tokens, width]."""
    with t.op("altup", "router"):
        router = t.parameter(c.hidden_size), t.parameter(c.altup_num_inputs, c.hidden_size)
    predictions = predicted(t, c, x, router)
    active = one(t, predictions)
    h = normed(t, "input_layernorm", active)
    low = laurel(t, c, h)
    shape = c.head_dim, c.num_key_value_heads, False
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, mask, layer.kind, shared, shape)
    h = normed(t, "post_attention_layernorm", h)
    with t.op("residual_attn", "add"):
        h = pointwise.scale(t, pointwise.add(t, pointwise.add(t, active, h), low))
    active = h
    h = normed(t, "pre_feedforward_layernorm", h)
    with t.scope("mlp"):
        h = mlp(t, c, h, layer)
    h = normed(t, "post_feedforward_layernorm", h)
    with t.op("residual_mlp", "add"):
        active = pointwise.add(t, active, h)
    copies = corrected(t, c, predictions, active, router)
    with t.op("correct_output_scale", "scale"):
        first, scale = pointwise.copy(t, one(t, copies)), t.parameter(c.hidden_size)
        if c.altup_correct_scale:
            first = pointwise.mul(t, first, scale)
    h = gated_by_input(t, c, first, inputs)
    with t.op("residual_input", "add"):
        return pointwise.add(t, copies, t.view(h, 1, *h.shape))
