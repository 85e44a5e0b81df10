"""Kinds of layer for token sequences: embeddings, recurrent layers, attention."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import causal_mask, gated_mlp, heads_of
from roofcast.simulator.models.toml.keys import Attention, Embedding, Keys, Recurrent, Transformer
from roofcast.simulator.models.toml.kind import Run, register, shape_text
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise, recurrent
from roofcast.simulator.work.tape import Tape, Value


@register("embedding", Embedding, "A learned vector per token id.", "ids", gives="tokens")
def _embedding(t: Tape, x: Value, o: Embedding) -> Value:
    assert o.rows is not None, "run.py puts the net's vocabulary there"
    return embedding.embedding(t, x, o.rows, o.width)


@register("position_embedding", Keys, "Adds a learned vector per position.", "tokens")
def _position_embedding(t: Tape, x: Value, o: Keys) -> Value:
    return pointwise.add(t, x, t.parameter(1, *x.shape[1:]))


def _recurrent(cell: str) -> Run:
    def run(t: Tape, x: Value, o: Recurrent) -> Value:
        states, _ = recurrent.recurrent(
            t, x, o.hidden, cell=cell, layers=o.layers, both_ways=o.bidirectional
        )
        return states

    return run


for _cell in recurrent.CELLS:
    register(_cell, Recurrent, f"The states of the recurrent cell {_cell}.", "tokens")(
        _recurrent(_cell)
    )


@register("last_token", Keys, "The last token; a view.", "tokens", gives="features", op="slice")
def _last_token(t: Tape, x: Value, o: Keys) -> Value:
    """A view; its gradient is written into zeros of the size of the whole sequence."""
    out = t.view(x, x.shape[0], x.shape[2])
    if x.grad:
        t.backward("copy", read=out.bytes, written=x.bytes, product=x.dtype)
    return out


@register("mean_tokens", Keys, "The mean of the tokens.", "tokens", gives="features", op="mean")
def _mean_tokens(t: Tape, x: Value, o: Keys) -> Value:
    return pointwise.mean(t, x, 1, keepdim=False)


@register("attention", Attention, "Self-attention with its projections.", "tokens", op="-")
def _attention(t: Tape, x: Value, o: Attention) -> Value:
    """Projections to queries, keys and values, attention, and the output projection."""
    width, groups = x.shape[-1], o.kv_heads or o.heads
    if width % o.heads:
        raise BadInput(
            f"the input is {shape_text(x.shape)}: a width of {width} cannot be divided into"
            f" {o.heads} heads"
        )
    if o.heads % groups:
        raise BadInput(f"{o.heads} heads cannot be divided evenly among {groups} kv_heads")
    dim, projected = width // o.heads, []
    for name, heads in (("query", o.heads), ("key", groups), ("value", groups)):
        with t.op(name, "linear"):
            projected.append(heads_of(t, linear.linear(t, x, heads * dim, bias=o.bias), heads, dim))
    eager = t.implementation("attention", "flash") == "eager"
    mask = causal_mask(t, x.shape[1]) if o.causal and eager else None
    q, k, v = projected
    with t.op("attention", "attention"):
        h = attention.attention(t, q, k, v, causal=o.causal, mask=mask, dropout=o.dropout)
    with t.op("output", "linear"):
        return linear.linear(t, h, width, bias=o.bias)


@register("transformer", Transformer, "A pre-norm transformer block.", "tokens", op="-")
def _transformer(t: Tape, x: Value, o: Transformer) -> Value:
    """x + attention(norm(x)), then x + mlp(norm(x)) [xiong2020]."""
    width = x.shape[-1]
    h = _norm(t, "norm1", x, o)
    with t.scope("attention"):
        h = _attention(t, h, o)
    with t.op("residual1", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, o.dropout))
    h = _norm(t, "norm2", x, o)
    with t.scope("mlp"):
        h = _mlp(t, h, o.mlp or 4 * width, o)
    with t.op("residual2", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, o.dropout))


def _norm(t: Tape, name: str, x: Value, o: Transformer) -> Value:
    with t.op(name, o.norm):
        if o.norm == "layer_norm":
            return norm.layer_norm(t, x)
        return norm.rms_norm(t, x, flavor="torch")


def _mlp(t: Tape, x: Value, inner: int, o: Transformer) -> Value:
    width, act = x.shape[-1], o.activation
    if o.gated:
        names = ("gate", "up", "down")
        return gated_mlp(t, x, inner, width, activation=act, bias=o.bias, names=names)
    with t.op("up", "linear"):
        h = linear.linear(t, x, inner, bias=o.bias)
    with t.op("act", act):
        h = pointwise.unary(t, act, h)
    with t.op("down", "linear"):
        return linear.linear(t, h, width, bias=o.bias)
