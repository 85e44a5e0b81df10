"""The kinds of layer a TOML list may name: for each what it takes, what it gives, and the ops it
runs.

What flows between layers has one of four forms, batch first:

    ids       [B, S]          numbers of words
    features  [B, F]          one row a sample
    tokens    [B, S, W]       a sequence of vectors
    space     [B, C, ...]     channels, then one to three lengths
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import causal_mask, gated_mlp, heads_of
from roofcast.simulator.models.toml.keys import (
    ACTIVATIONS,
    AdaptivePool,
    Attention,
    Branch,
    Conv,
    ConvTranspose,
    Depthwise,
    Dropout,
    Embedding,
    Group,
    GroupNorm,
    Keys,
    Linear,
    Pool,
    Recurrent,
    Reshape,
    Residual,
    Transformer,
    Upsample,
)
from roofcast.simulator.work.ops import (
    attention,
    conv,
    embedding,
    linear,
    norm,
    pointwise,
    recurrent,
)
from roofcast.simulator.work.tape import Tape, Value


class Kind(NamedTuple):
    """One kind of layer. `gives` is the form that comes out; empty where it is the one that came
    in.
    """

    keys: type[Keys]
    run: Callable[[Tape, Value, Any], Value] | None  # None for a kind that holds other layers
    takes: tuple[str, ...]
    gives: str = ""
    # what the op is called in a forecast; empty where the kind is a scope of several ops, or only
    # another view
    op: str = ""


KINDS: dict[str, Kind] = {}


def _kind(names: str, keys: type[Keys], takes: str, gives: str = "", op: str = ""):
    """Register the function below under each of `names`; an op '-' makes it a scope of several ops,
    or of none.
    """

    def register(run):
        for name in names.split():
            KINDS[name] = Kind(
                keys, run, tuple(takes.split()), gives, "" if op == "-" else op or name
            )
        return run

    return register


def shown(shape: tuple) -> str:
    """A shape without its batch: 64x8x8."""
    return "x".join(map(str, shape[1:])) or "1"


def _each(value, x: Value, key: str) -> tuple:
    """A number, or one for every length of the picture."""
    dims = len(x.shape) - 2
    if isinstance(value, tuple) and len(value) != dims:
        raise BadInput(
            f"{key} has {len(value)} numbers, but {shown(x.shape)} arrives; wanted one number or"
            f" {dims}"
        )
    return conv.spread(value, dims)


def _padded(
    t: Tape, x: Value, padding, kernel: tuple, stride: tuple, dilation: tuple
) -> tuple[Value, tuple]:
    """'same' keeps ceil(n / stride) positions; an odd zero too many is put on by a copy, as PyTorch
    and TensorFlow do.
    """
    if padding == "valid":
        return x, (0,) * len(kernel)
    if padding != "same":
        return x, _each(padding, x, "padding")
    zeros = [conv.same_padding(*a) for a in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    if any(n % 2 for n in zeros):
        x = pointwise.copy(
            t, x, *x.shape[:2], *(n + z % 2 for n, z in zip(x.shape[2:], zeros, strict=True))
        )
    return x, tuple(z // 2 for z in zeros)


# ---------------------------------------------------------------------- pictures and signals


@_kind("conv", Conv, "space")
def _conv(t, x, o):
    kernel, stride, dilation = (
        _each(getattr(o, key), x, key) for key in ("kernel", "stride", "dilation")
    )
    x, padding = _padded(t, x, o.padding, kernel, stride, dilation)
    return conv.conv(
        t,
        x,
        o.channels,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=o.groups,
        bias=o.bias,
        dims=len(kernel),
    )


def _conv_of(dims: int):
    def run(t, x, o):
        if len(x.shape) != dims + 2:
            right = f"conv{len(x.shape) - 2}d"
            raise BadInput(
                f"conv{dims}d wants channels and {dims} lengths, but {shown(x.shape)} arrives; use"
                f" {right}, or conv for any"
            )
        return _conv(t, x, o)

    return run


for _dims in (1, 2, 3):
    _kind(f"conv{_dims}d", Conv, "space", op="conv")(_conv_of(_dims))


@_kind("depthwise", Depthwise, "space", op="conv")
def _depthwise(t, x, o):
    groups = x.shape[1]
    return _conv(
        t, x, Conv(groups * o.multiplier, o.kernel, o.stride, o.padding, o.dilation, groups, o.bias)
    )


@_kind("conv_transpose", ConvTranspose, "space")
def _conv_transpose(t, x, o):
    kernel, stride, padding, extra = (
        _each(getattr(o, key), x, key) for key in ("kernel", "stride", "padding", "output_padding")
    )
    if any(e and e >= s for e, s in zip(extra, stride, strict=True)):
        raise BadInput(
            f"output_padding {list(extra)} must be smaller than the stride {list(stride)}"
        )
    return conv.conv_transpose(
        t,
        x,
        o.channels,
        kernel,
        stride=stride,
        padding=padding,
        output_padding=extra,
        groups=o.groups,
        bias=o.bias,
        dims=len(kernel),
    )


def _pool_of(which: str):
    def run(t, x, o):
        kernel = _each(o.kernel, x, "kernel")
        stride = kernel if o.stride is None else _each(o.stride, x, "stride")
        x, padding = _padded(t, x, o.padding, kernel, stride, (1,) * len(kernel))
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise BadInput(
                f"padding {list(padding)} is more than half of the window {list(kernel)}"
            )
        return conv.pool(
            t, x, which, kernel, stride=stride, padding=padding, ceil=o.ceil, dims=len(kernel)
        )

    return run


for _which in ("max", "avg"):
    _kind(f"{_which}_pool", Pool, "space")(_pool_of(_which))
    _kind(f"adaptive_{_which}_pool", AdaptivePool, "space")(
        lambda t, x, o, which=_which: conv.adaptive_pool(t, x, which, _each(o.size, x, "size"))
    )
    _kind(f"global_{_which}_pool", Keys, "space", "features")(
        lambda t, x, o, which=_which: t.view(conv.adaptive_pool(t, x, which, 1), *x.shape[:2])
    )


@_kind("upsample", Upsample, "space")
def _upsample(t, x, o):
    if (o.scale is None) == (o.size is None):
        raise BadInput("give either scale or size")
    space = tuple(n * o.scale for n in x.shape[2:]) if o.size is None else _each(o.size, x, "size")
    return conv.resize(t, x, space, kind=o.mode)


# ---------------------------------------------------------------------- shapes
@_kind("flatten", Keys, "features tokens space", "features", op="-")
def _flatten(t, x, o):
    return t.view(x, x.shape[0], x.size // x.shape[0])


@_kind("reshape", Reshape, "features tokens space", "space", op="-")
def _reshape(t, x, o):
    numbers = x.size // x.shape[0]
    if not 2 <= len(o.shape) <= 4 or prod(o.shape) != numbers:
        wanted = f"wanted channels and one to three lengths, {numbers} numbers in all"
        raise BadInput(
            f"{shown(x.shape)} arrives and cannot be seen as {'x'.join(map(str, o.shape))};"
            f" {wanted}"
        )
    return t.view(x, x.shape[0], *o.shape)


@_kind("to_tokens", Keys, "space", "tokens", op="-")
def _to_tokens(t, x, o):
    """Every position a token as wide as there are channels, as vision transformers do it: seen, not
    copied.
    """
    return t.view(x, x.shape[0], prod(x.shape[2:]), x.shape[1])


@_kind("to_channels", Keys, "tokens", "space")
def _to_channels(t, x, o):
    """[S, W] as W channels of length S, copied: a convolution wants them so."""
    return pointwise.copy(t, x, x.shape[0], x.shape[2], x.shape[1])


# ---------------------------------------------------------------------- products, norms,
# elementwise


@_kind("linear", Linear, "features tokens")
def _linear(t, x, o):
    return linear.linear(t, x, o.out, bias=o.bias)


@_kind("group_norm", GroupNorm, "space")
def _group_norm(t, x, o):
    if x.shape[1] % o.groups:
        raise BadInput(
            f"{x.shape[1]} channels ({shown(x.shape)} arrives) cannot be cut into {o.groups} groups"
        )
    return norm.group_norm(t, x, o.groups)


_kind("batch_norm", Keys, "features space")(lambda t, x, o: norm.batch_norm(t, x))
_kind("layer_norm", Keys, "features tokens")(lambda t, x, o: norm.layer_norm(t, x))
_kind("rms_norm", Keys, "features tokens")(lambda t, x, o: norm.rms_norm(t, x, flavor="torch"))
_kind("softmax", Keys, "features tokens")(lambda t, x, o: norm.softmax(t, x))
_kind("dropout", Dropout, "features tokens space")(lambda t, x, o: pointwise.dropout(t, x, o.p))
for _fn in ACTIVATIONS:
    _kind(_fn, Keys, "features tokens space")(lambda t, x, o, fn=_fn: pointwise.unary(t, fn, x))


# ---------------------------------------------------------------------- sequences


@_kind("embedding", Embedding, "ids", "tokens")
def _embedding(t, x, o):
    return embedding.embedding(t, x, o.rows, o.width)


@_kind("position_embedding", Keys, "tokens")
def _position_embedding(t, x, o):
    """A learned vector a position, added."""
    return pointwise.add(t, x, t.parameter(1, *x.shape[1:]))


for _cell in recurrent.CELLS:
    _kind(_cell, Recurrent, "tokens")(
        lambda t, x, o, cell=_cell: recurrent.recurrent(
            t, x, o.hidden, cell=cell, layers=o.layers, both_ways=o.bidirectional
        )[0]
    )


@_kind("last_token", Keys, "tokens", "features", op="slice")
def _last_token(t, x, o):
    """Seen, not copied; its gradient is spread into zeros as large as the whole sequence."""
    out = t.view(x, x.shape[0], x.shape[2])
    if x.grad:
        t.backward("copy", read=out.bytes, written=x.bytes, product=x.dtype)
    return out


@_kind("mean_tokens", Keys, "tokens", "features", op="mean")
def _mean_tokens(t, x, o):
    return pointwise.mean(t, x, 1, keepdim=False)


@_kind("attention", Attention, "tokens", op="-")
def _attention(t, x, o):
    """Projections to queries, keys and values, attention, and the projection back."""
    width, groups = x.shape[-1], o.kv_heads or o.heads
    if width % o.heads:
        raise BadInput(
            f"a width of {width} ({shown(x.shape)} arrives) cannot be cut into {o.heads} heads"
        )
    if o.heads % groups:
        raise BadInput(f"{o.heads} heads cannot share {groups} kv_heads evenly")
    dim, projected = width // o.heads, []
    for name, heads in (("query", o.heads), ("key", groups), ("value", groups)):
        with t.op(name, "linear"):
            projected.append(heads_of(t, linear.linear(t, x, heads * dim, bias=o.bias), heads, dim))
    mask = (
        causal_mask(t, x.shape[1])
        if o.causal and t.implementation("attention", "flash") == "eager"
        else None
    )
    with t.op("attention", "attention"):
        h = attention.attention(t, *projected, causal=o.causal, mask=mask, dropout=o.dropout)
    with t.op("output", "linear"):
        return linear.linear(t, h, width, bias=o.bias)


@_kind("transformer", Transformer, "tokens", op="-")
def _transformer(t, x, o):
    """A block with the norms in front: x + attention(norm(x)), then x + mlp(norm(x))
    [xiong2020].
    """
    width = x.shape[-1]
    with t.op("norm1", o.norm):
        h = KINDS[o.norm].run(t, x, o)
    with t.scope("attention"):
        h = _attention(t, h, o)
    with t.op("residual1", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, o.dropout))
    with t.op("norm2", o.norm):
        h = KINDS[o.norm].run(t, x, o)
    with t.scope("mlp"):
        h = _mlp(t, h, o.mlp or 4 * width, o)
    with t.op("residual2", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, o.dropout))


def _mlp(t, x, width, o):
    if o.gated:
        return gated_mlp(
            t,
            x,
            width,
            x.shape[-1],
            activation=o.activation,
            bias=o.bias,
            names=("gate", "up", "down"),
        )
    with t.op("up", "linear"):
        h = linear.linear(t, x, width, bias=o.bias)
    with t.op("act", o.activation):
        h = pointwise.unary(t, o.activation, h)
    with t.op("down", "linear"):
        return linear.linear(t, h, x.shape[-1], bias=o.bias)


# ---------------------------------------------------------------------- kinds that hold other
# layers: run by the list itself


EVERY = ("features", "tokens", "space")
KINDS |= {
    "group": Kind(Group, None, ("ids", *EVERY)),
    "residual": Kind(Residual, None, EVERY),
    "branch": Kind(Branch, None, ("ids", *EVERY)),
}
