"""Kinds of layer that change the form of a value, products, norms and elementwise functions."""

from __future__ import annotations

from math import prod

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.toml.keys import (
    ACTIVATIONS,
    Dropout,
    GroupNorm,
    Keys,
    Linear,
    Reshape,
)
from roofcast.simulator.models.toml.kind import Run, register, shape_text
from roofcast.simulator.work.ops import linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

ANY = "features tokens space"


@register("flatten", Keys, "Each sample as one row; a view.", ANY, gives="features", op="-")
def _flatten(t: Tape, x: Value, o: Keys) -> Value:
    return t.view(x, x.shape[0], x.size // x.shape[0])


@register("reshape", Reshape, "Each sample under another shape; a view.", ANY, "space", op="-")
def _reshape(t: Tape, x: Value, o: Reshape) -> Value:
    elements = x.size // x.shape[0]
    if not 2 <= len(o.shape) <= 4 or prod(o.shape) != elements:
        shape = "x".join(map(str, o.shape))
        raise BadInput(
            f"the input {shape_text(x.shape)} cannot be reshaped to {shape}; wanted channels and"
            f" one to three lengths, {elements} elements in total"
        )
    return t.view(x, x.shape[0], *o.shape)


@register("to_tokens", Keys, "Each position as a token; a view.", "space", "tokens", op="-")
def _to_tokens(t: Tape, x: Value, o: Keys) -> Value:
    """[B, C, ...] -> [B, positions, C], as vision transformers do."""
    return t.view(x, x.shape[0], prod(x.shape[2:]), x.shape[1])


@register("to_channels", Keys, "The tokens' elements as channels; a copy.", "tokens", "space")
def _to_channels(t: Tape, x: Value, o: Keys) -> Value:
    """[B, S, W] -> [B, W, S], copied because a convolution needs that layout."""
    return pointwise.copy(t, x, x.shape[0], x.shape[2], x.shape[1])


@register("linear", Linear, "Linear layer over the last dimension.", "features tokens")
def _linear(t: Tape, x: Value, o: Linear) -> Value:
    return linear.linear(t, x, o.out, bias=o.bias)


@register("group_norm", GroupNorm, "Group normalization.", "space")
def _group_norm(t: Tape, x: Value, o: GroupNorm) -> Value:
    if x.shape[1] % o.groups:
        raise BadInput(
            f"the input is {shape_text(x.shape)}: {x.shape[1]} channels cannot be divided into"
            f" {o.groups} groups"
        )
    return norm.group_norm(t, x, o.groups)


@register("batch_norm", Keys, "Batch normalization.", "features space")
def _batch_norm(t: Tape, x: Value, o: Keys) -> Value:
    return norm.batch_norm(t, x)


@register("layer_norm", Keys, "Layer normalization.", "features tokens")
def _layer_norm(t: Tape, x: Value, o: Keys) -> Value:
    return norm.layer_norm(t, x)


@register("rms_norm", Keys, "Root-mean-square normalization.", "features tokens")
def _rms_norm(t: Tape, x: Value, o: Keys) -> Value:
    return norm.rms_norm(t, x, flavor="torch")


@register("softmax", Keys, "Softmax over the last dimension.", "features tokens")
def _softmax(t: Tape, x: Value, o: Keys) -> Value:
    return norm.softmax(t, x)


@register("dropout", Dropout, "Sets random elements to zero in training.", ANY)
def _dropout(t: Tape, x: Value, o: Dropout) -> Value:
    return pointwise.dropout(t, x, o.p)


def _elementwise(fn: str) -> Run:
    def run(t: Tape, x: Value, o: Keys) -> Value:
        return pointwise.unary(t, fn, x)

    return run


for _fn in ACTIVATIONS:
    register(_fn, Keys, f"The function {_fn} of each element.", ANY)(_elementwise(_fn))
