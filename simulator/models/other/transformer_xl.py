"""Transformer-XL [dai2019]: a decoder with memory of the previous segment, and relative attention.

As trained by NVIDIA on WikiText-103: words, an adaptive softmax tied to the embeddings, norms after
the residuals. The states of the previous segment are an input of each layer, without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.other import adaptive
from roofcast.simulator.models.vision.parts import activation, dense, dropped, layer_norm, residual
from roofcast.simulator.work.ops import attention, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

# ends of the clusters of WikiText-103's words by frequency, from the released code
ENDS = (19997, 39997, 199997, 267735)
# Fraction of the text's words in each cluster after the head: Zipf's law through its 103 million
# words and the 3 occurrences of the rarest [merity2016]
SHARES = (0.030, 0.031, 0.0025)


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    layers: int,
    width: int,
    heads: int,
    dim: int,
    hidden: int,
    dropout: float = 0.1,
    drop_attention: float = 0.0,
    divisor: int = 1,
) -> Value:
    """Segments of `size` tokens, with as many tokens of memory; heads have width `dim`.

    The embeddings of each cluster of words are `divisor` times as narrow as those of the previous
    one. Raises BadInput under tensor or context parallelism.
    """
    if t.parallel.tp > 1 or t.parallel.cp > 1:
        raise BadInput(
            f"tp {t.parallel.tp}, cp {t.parallel.cp}: relative attention cannot be split; use tp 1"
            " and cp 1"
        )
    clusters = adaptive.Clusters(ENDS, divisor, SHARES)
    table = adaptive.tables(t, clusters, width)
    ids = t.input((size, batch), "int64")
    memory = t.input((layers, size, batch, width))
    x = adaptive.embedded(t, clusters, table, ids, width)
    with t.op("pos_emb", "rotary"):
        positions = t.new((2 * size, width))
        t.emit("elementwise", (), (positions,), special=positions.size)
        positions = pointwise.dropout(t, positions, dropout)
        biases = [t.parameter(heads, dim) for _ in range(2)]
    x = dropped(t, "drop", x, dropout)
    attended = partial(
        attend, t, positions=positions, biases=biases, heads=heads, dim=dim, drop=drop_attention
    )
    body = partial(layer, t, memory=memory, attended=attended, hidden=hidden, dropout=dropout)
    x = t.repeat("layers", layers, body, x)
    with t.op("memory", "copy"):
        t.emit("copy", (), (), read=memory.bytes, written=memory.bytes)
    x = dropped(t, "drop_out", x, dropout)
    return adaptive.loss(t, clusters, table, t.view(x, size * batch, width))


def layer(
    t: Tape,
    x: Value,
    memory: Value,
    attended: Callable[[Value, Value], Value],
    hidden: int,
    dropout: float,
) -> Value:
    """One block: attention (`attended`) over memory and x [tokens, batch, width], then the MLP."""
    with t.scope("dec_attn"):
        h = attended(x, t.view(memory, *x.shape))
        h = dropped(t, "drop", dense(t, "o_net", h, x.shape[-1], bias=False), dropout)
        x = layer_norm(t, "layer_norm", residual(t, x, h))
    with t.scope("pos_ff"):
        h = activation(t, "relu", "relu", dense(t, "0", x, hidden))
        h = dropped(t, "4", dense(t, "3", dropped(t, "2", h, dropout), x.shape[-1]), dropout)
        return layer_norm(t, "layer_norm", residual(t, x, h))


def attend(
    t: Tape,
    x: Value,
    memory: Value,
    positions: Value,
    biases: Sequence[Value],
    heads: int,
    dim: int,
    drop: float,
) -> Value:
    """Relative attention: softmax((q + u) k + shift((q + v) r)) values.

    Queries are of x [S, B, D], keys and values of memory and x, r of the distances; `biases` are u
    and v. Queries of the memory are computed too, and dropped. The shift is a copy into rows that
    are one element longer.
    """
    size, batch, _ = x.shape
    keys = positions.shape[0]
    with t.op("cat", "concat"):
        both = pointwise.concat(t, [memory, x], 0)
    qkv = dense(t, "qkv_net", both, 3 * heads * dim, bias=False)
    r = dense(t, "r_net", positions, heads * dim, bias=False)
    with t.op("attention", "attention"):
        q = pointwise.part(t, qkv, size, batch, heads, dim)
        if qkv.grad:
            # concatenates the gradients of the three parts
            t.backward("copy", read=qkv.bytes, written=qkv.bytes, product=qkv.dtype)
        k, v = (pointwise.copy(t, t.low(qkv), batch, heads, keys, dim) for _ in range(2))
        content = t.view(pointwise.add(t, q, biases[0]), batch, heads, size, dim)
        content = linear.matmul(t, content, k, transposed=True)
        shifted = t.low(pointwise.add(t, q, biases[1]))
        shifted = pointwise.copy(t, shifted, 1, heads, size * batch, dim)
        distance = linear.matmul(t, shifted, t.view(r, 1, heads, keys, dim), transposed=True)
        distance = pointwise.copy(t, distance, batch, heads, size, keys + 1)
        scores = pointwise.add(t, content, pointwise.part(t, distance, *content.shape))
        scores = pointwise.unary(t, "mul_scalar", scores)
        scores = pointwise.where(t, scores, t.buffer(size, keys, dtype="bool"))
        p = pointwise.dropout(t, norm.softmax(t, scores), drop)
        return t.view(attention.merged(t, linear.matmul(t, p, v)), size, batch, heads * dim)
