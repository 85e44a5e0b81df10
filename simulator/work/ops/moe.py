"""Mixtures of experts: top-k routing, rows sorted by expert, one grouped product over all experts
[shazeer2017] [gale2023].

Routing is taken as balanced: every expert gets tokens * k / experts rows.
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import linear, pointwise
from roofcast.simulator.work.ops.linear import product_format
from roofcast.simulator.work.tape import Tape, Value


def top_k(t: Tape, scores: Value, k: int) -> tuple[Value, Value]:
    """The k largest of the last dimension and their places; keeps the places, whether or not the
    values are used.
    """
    shape = (*scores.shape[:-1], k)
    ids = t.new(shape, "int64")
    out = t.new(shape, scores.dtype, scores.grad)
    t.emit("gather", (scores,), (ids, out), vector=2 * scores.size)
    if out.grad:
        t.save(ids)
        t.backward(
            "scatter", read=ids.bytes + out.bytes, written=scores.bytes, product=scores.dtype
        )
    return out, ids


def take(t: Tape, x: Value, index: Value, *shape) -> Value:
    """x[index]: rows picked by number; keeps the numbers. A training stack's permutation kernels
    move rows as fast as a copy.
    """
    out = t.new(shape, x.dtype, x.grad)
    fused = t.implementation("permute", "composed") == "fused"
    t.emit("copy" if fused else "gather", (index,), (out,), read=out.bytes + index.bytes)
    if out.grad:
        t.save(index)
        t.backward(
            "copy" if fused else "scatter",
            vector=out.size,
            read=out.bytes + index.bytes,
            written=x.bytes + out.bytes,
            product=x.dtype,
        )
    return out


def normalise(t: Tape, weights: Value) -> Value:
    """w /= sum(w) in place: keeps the sum, and a copy of w as it was."""
    total = pointwise.total(t, weights)
    t.emit("elementwise", (weights, total), (weights,), vector=weights.size, special=weights.size)
    if weights.grad:
        t.save(total)
        t.keep(weights.bytes)
        t.backward(
            "elementwise",
            vector=4 * weights.size,
            read=3 * weights.bytes,
            written=weights.bytes,
            product=weights.dtype,
        )
    return weights


def within_groups(t: Tape, scores: Value, groups: int, chosen: int, best: int) -> Value:
    """Scores with all but the `chosen` best groups of experts hidden; a group counts by its `best`
    largest [deepseek2024].
    """
    tokens, experts = scores.shape
    values, _ = top_k(t, t.view(scores, tokens, groups, experts // groups), best)
    top_k(t, t.view(pointwise.total(t, values), tokens, groups), chosen)
    return pointwise.where(t, scores, t.new((tokens, experts), "bool"))


class Routes(NamedTuple):
    """Who goes where: indices that sort rows by expert and back, whose each row is, and each
    expert's end.
    """

    experts: int
    rows: int  # tokens * k
    forth: Value
    order: Value
    back: Value
    owner: Value
    ends: Value


def route(t: Tape, ids: Value, experts: int) -> Routes:
    """Sort the chosen experts' numbers."""
    indices = [t.new((ids.size,), "int64") for _ in range(4)]
    ends = t.new((experts,), "int32")
    t.emit("gather", (ids,), (*indices, ends), vector=8 * ids.size)
    return Routes(experts, ids.size, *indices, ends)


def grouped_linear(
    t: Tape, x: Value, out_features: int, routes: Routes, *, bias: bool = False
) -> Value:
    """Each expert's rows times its own matrix: 2 rows in out FLOPs in all. Not on autocast's list:
    runs in the weights' format.
    """
    rows, k = x.shape
    if routes.experts % t.parallel.ep:
        raise BadInput(f"ep {t.parallel.ep} does not divide the {routes.experts} experts")
    experts = routes.experts // t.parallel.ep
    w = t.parameter(experts, out_features, k, expert=True)
    b = t.parameter(experts, out_features, expert=True) if bias else None
    x = t.cast(x, w.dtype)
    out = t.new((rows, out_features), x.dtype, x.grad or w.grad)
    flops, product, each = 2 * rows * k * out_features, product_format(t, x), rows / experts
    t.emit(
        "matmul",
        (x, w),
        (out,),
        matrix=flops,
        product=product,
        shape=(experts, each, out_features, k),
    )
    if out.grad:
        t.save(x, routes.ends)
        t.backward(
            "matmul",
            matrix=flops,
            read=out.bytes + x.bytes,
            written=w.bytes,
            product=product,
            shape=(experts, out_features, k, each),
        )
        if x.grad:
            t.backward(
                "matmul",
                matrix=flops,
                read=out.bytes + w.bytes,
                written=x.bytes,
                product=product,
                shape=(experts, each, k, out_features),
            )
    if b is None:
        return out
    picked = take(t, b, routes.owner, rows, out_features)
    t.emit("elementwise", (out, picked), (out,), vector=out.size)
    return out


def _dispatch(t: Tape, rows: Value, copies: int) -> Value:
    """Rows, `copies` of each token, go to the ranks that hold their experts, and to all ranks that
    hold a part of one.
    """
    _exchange(t, rows, copies)
    return _over_parts(t, rows, "all_gather", "reduce_scatter", rows.shape[0] * t.parallel.etp)


def _combine(t: Tape, rows: Value, copies: int) -> Value:
    """The parts' sums are added up, and rows come back to the ranks of their tokens."""
    rows = _over_parts(t, rows, "reduce_scatter", "all_gather", rows.shape[0] // t.parallel.etp)
    _exchange(t, rows, copies)
    return rows


def _exchange(t: Tape, rows: Value, copies: int):
    """One way over the ranks that hold different experts; gradients go the other way."""
    if t.parallel.ep > 1:
        t.send("all_to_all", "ep", rows.bytes, copies=copies)
        if t.training:
            t.send("all_to_all", "ep", rows.bytes, phase="backward", copies=copies)


def _over_parts(t: Tape, rows: Value, kind: str, back: str, length: int) -> Value:
    """One way over the ranks that hold parts of the same experts; gradients go the other way."""
    if t.parallel.etp == 1:
        return rows
    bytes_ = rows.bytes * max(length / rows.shape[0], 1.0)
    t.send(kind, "etp", bytes_)
    if t.training:
        t.send(back, "etp", bytes_, phase="backward")
    return t.new((length, *rows.shape[1:]), rows.dtype, rows.grad)


def gated_experts(
    t: Tape,
    x: Value,
    weights: Value,
    ids: Value,
    experts: int,
    width: int,
    gate,
    *,
    bias: bool = False,
) -> Value:
    """Sum over a token's k experts of weight * down(gate(up(x))), for rows x[T, D]; `gate` maps [S,
    2 F] to [S, F].
    """
    tokens, dim = x.shape
    if t.parallel.tp > 1 and x.split != "tokens":
        raise BadInput(
            f"tp {t.parallel.tp}: experts take each rank's own tokens; use sequence parallelism"
            " (--sp)"
        )
    etp = t.parallel.etp
    if width % etp:
        raise BadInput(f"etp {etp} does not divide the width of an expert ({width})")
    routes = route(t, ids, experts)
    rows = _dispatch(t, take(t, x, routes.forth, routes.rows, dim), ids.shape[-1])
    share = take(t, t.view(weights, weights.size), routes.order, routes.rows)
    h = gate(grouped_linear(t, rows, 2 * width // etp, routes, bias=bias))
    h = _combine(t, grouped_linear(t, h, dim, routes, bias=bias), ids.shape[-1])
    h = pointwise.mul(t, h, t.view(share, routes.rows, 1))
    h = take(t, h, routes.back, routes.rows, dim)
    out = pointwise.total(t, t.view(h, tokens, ids.shape[-1], dim), 1)
    return t.cast(t.view(out, tokens, dim), x.dtype)


def spread(t: Tape, best: Value, ids: Value, tokens: int, experts: int) -> Value:
    """The chosen experts' logits at their places among all, the others at minus infinity; keeps the
    places.
    """
    out = t.new((tokens, experts), best.dtype, best.grad)
    t.emit("scatter", (best, ids), (out,), vector=out.size)
    if out.grad:
        t.save(ids)
        t.backward("gather", read=ids.bytes + best.bytes, written=best.bytes, product=best.dtype)
    return out


def dense_experts(t: Tape, x: Value, scores: Value, width: int, gate) -> Value:
    """Every token through every expert, scaled by its score first: experts times the work of one,
    whatever k is.
    """
    tokens, dim = x.shape
    experts = scores.shape[-1]
    rows = pointwise.copy(t, x, experts * tokens, dim)
    rows = pointwise.mul(t, rows, pointwise.copy(t, scores, experts * tokens, 1))
    h = linear.matmul(t, t.view(rows, experts, tokens, dim), t.parameter(experts, dim, 2 * width))
    h = linear.matmul(t, gate(h), t.parameter(experts, width, dim))
    return t.view(pointwise.total(t, h, 0), tokens, dim)
