"""Mixtures of experts: top-k routing, rows sorted by expert, one grouped product over all experts.

[shazeer2017] [gale2023]. Routing is assumed balanced: each expert gets tokens * k / experts rows.
"""

from __future__ import annotations

from collections.abc import Callable

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.ops import linear, pointwise
from roofcast.simulator.work.ops.linear import keep_operand, narrowed, product_format, product_kind
from roofcast.simulator.work.tape import Tape, Value


def top_k(t: Tape, scores: Value, k: int) -> tuple[Value, Value]:
    """The k largest of the last dimension, and their indices.

    Keeps the indices, even if the values are not used.
    """
    shape = (*scores.shape[:-1], k)
    ids = t.new(shape, "int64")
    out = t.new(shape, scores.dtype, scores.grad)
    t.emit("gather", (scores,), (ids, out), vector=2 * scores.size)
    if out.grad:
        t.save(ids)
        read, written = ids.bytes + out.bytes, scores.bytes
        t.backward("scatter", read=read, written=written, product=scores.dtype)
    return out, ids


def take(t: Tape, x: Value, index: Value, *shape: int) -> Value:
    """x[index], of the given shape; keeps the index.

    The permutation kernels of a training stack (`permute = "fused"`) move rows as fast as a copy.
    """
    out = t.new(shape, x.dtype, x.grad)
    fused = t.implementation("permute", "composed") == "fused"
    read = out.bytes + index.bytes
    t.emit("copy" if fused else "gather", (index,), (out,), read=read)
    if out.grad:
        t.save(index)
        kind, written = "copy" if fused else "scatter", x.bytes + out.bytes
        t.backward(kind, vector=out.size, read=read, written=written, product=x.dtype)
    return out


def normalise(t: Tape, weights: Value) -> Value:
    """w /= sum(w) in place; keeps the sum and a copy of the original w."""
    total, n = pointwise.total(t, weights), weights.size
    t.emit("elementwise", (weights, total), (weights,), vector=n, special=n)
    if weights.grad:
        t.save(total)
        t.keep(weights.bytes)
        read, dtype = 3 * weights.bytes, weights.dtype
        t.backward("elementwise", vector=4 * n, read=read, written=weights.bytes, product=dtype)
    return weights


def within_groups(t: Tape, scores: Value, groups: int, chosen: int, best: int) -> Value:
    """scores[T, experts] with all but the `chosen` best groups of experts masked [deepseek2024].

    A group is rated by the sum of its `best` largest scores.
    """
    tokens, experts = scores.shape
    values, _ = top_k(t, t.view(scores, tokens, groups, experts // groups), best)
    top_k(t, t.view(pointwise.total(t, values), tokens, groups), chosen)
    return pointwise.where(t, scores, t.new((tokens, experts), "bool"))


class Routes(NamedTuple):
    """Index tensors of a routing, each with one entry per row but `ends`."""

    experts: int
    rows: int  # tokens * k
    forth: Value  # token of each row, in the order of experts
    order: Value  # sorts the rows by expert
    back: Value  # restores the order of tokens
    owner: Value  # expert of each row
    ends: Value  # last row of each expert
    share: float  # of the experts that a token chooses: k / experts


def route(t: Tape, ids: Value, experts: int) -> Routes:
    """Sort the rows by the indices of their experts, ids[T, k]."""
    forth, order, back, owner = (t.new((ids.size,), "int64") for _ in range(4))
    ends = t.new((experts,), "int32")
    t.emit("gather", (ids,), (forth, order, back, owner, ends), vector=8 * ids.size)
    share = ids.shape[-1] / experts
    return Routes(experts, ids.size, forth, order, back, owner, ends, share)


def grouped_linear(
    t: Tape, x: Value, out_features: int, routes: Routes, *, bias: bool = False, last: bool = False
) -> Value:
    """Each expert's rows of x[rows, in] times its own matrix: 2 rows in out FLOPs in total.

    last: of the products of an expert; Megatron-Core adds its bias expert by expert. Autocast does
    not cover this product: it runs in the format of the weights. Raises BadInput if ep does not
    divide the experts.
    """
    rows, k = x.shape
    if routes.experts % t.parallel.ep:
        raise BadInput(f"ep {t.parallel.ep} does not divide the {routes.experts} experts")
    experts = routes.experts // t.parallel.ep
    held = t.matrix_format(out_features, k)
    w = t.parameter(experts, out_features, k, expert=True, dtype=held, share=routes.share)
    b = t.parameter(experts, out_features, expert=True, share=routes.share) if bias else None
    x = t.cast(x, t.wide(w.dtype))
    wide = t.widened(w, x.dtype)
    out = t.new((rows, out_features), x.dtype, x.grad or w.grad)
    product, each = product_format(t, x.dtype, w), rows / experts
    operand = narrowed(t, x, out, product) if not t.training else x
    flops, shape = 2 * rows * k * out_features, (experts, each, out_features, k)

    def back(read: Value, gradient: Value, shape: tuple) -> None:
        """The product of dy and `read`; writes the gradient of `gradient`."""
        moved, written = out.bytes + read.bytes, gradient.bytes
        t.backward(
            "matmul", matrix=flops, read=moved, written=written, product=product, shape=shape
        )

    kind, computed = product_kind(t, w, flops)
    t.emit(kind, (operand, wide), (out,), matrix=computed, product=product, shape=shape)
    if out.grad:
        t.save(routes.ends)
        if w.grad:
            keep_operand(t, x, product)
            back(x, w, (experts, out_features, k, each))
        if x.grad:
            t.widened_again(w, wide)
            back(wide, x, (experts, each, k, out_features))
    how = t.implementation("expert_bias", "composed")
    if b is None:
        return out
    if how == "loop" and last:
        return _bias_by_expert(t, out)
    picked = take(t, b, routes.owner, rows, out_features)
    t.emit("elementwise", (out, picked), (out,), vector=out.size)
    return out


def _bias_by_expert(t: Tape, x: Value) -> Value:
    """x[rows, width] plus each expert's bias times the router's weights, expert by expert in fp32,
    as Megatron-Core's TEGroupedMLP adds the bias of the second product: b * p, the sum,
    concatenation and a cast; in backward dx, db and dp. No compiler fuses it.
    """
    full, n = 4.0 * x.size, x.size
    for read, written in ((0.0, full), (x.bytes + full, full), (full, full), (full, x.bytes)):
        t.emit("fused", (), (), vector=n, read=read, written=written)
    if x.grad:
        back = ((x.bytes, full), (full, x.bytes), (full, full), (full, 0.0), (full, full))
        for read, written in (*back, (full, 0.0), (x.bytes, x.bytes)):
            t.backward("fused", vector=n, read=read, written=written)
    return x


def _dispatch(t: Tape, rows: Value, copies: int) -> Value:
    """Send rows, `copies` per token, to all ranks that hold their expert or a part of it."""
    _exchange(t, rows, copies)
    return _over_parts(t, rows, "all_gather", "reduce_scatter", rows.shape[0] * t.parallel.etp)


def _combine(t: Tape, rows: Value, copies: int) -> Value:
    """Add up the partial sums of the parts of an expert and return rows to their tokens' ranks."""
    rows = _over_parts(t, rows, "reduce_scatter", "all_gather", rows.shape[0] // t.parallel.etp)
    _exchange(t, rows, copies)
    return rows


def _exchange(t: Tape, rows: Value, copies: int) -> None:
    """All-to-all over the ranks that hold different experts; gradients return the other way."""
    if t.parallel.ep > 1:
        t.send("all_to_all", "ep", rows.bytes, copies=copies)
        if t.training:
            t.send("all_to_all", "ep", rows.bytes, phase="backward", copies=copies)


def _over_parts(t: Tape, rows: Value, kind: str, back: str, length: int) -> Value:
    """A collective over the ranks that hold parts of the same experts; `back` for gradients."""
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
    gate: Callable[[Value], Value],
    *,
    bias: bool = False,
    halves: int = 2,
) -> Value:
    """Sum over a token's k experts of weight * down(gate(up(x))), for x[T, D].

    weights[T, k] and ids[T, k] are those of the chosen experts; `gate` maps [S, halves * width] to
    [S, width]: with one half, it is only an activation. Raises BadInput for tensor parallelism
    without sequence parallelism, or if etp does not divide the width.
    """
    if t.generates:
        return _generating(t, x, weights, ids, experts, width, gate, bias, halves)
    tokens, dim = x.shape
    k, etp = ids.shape[-1], t.parallel.etp
    if t.parallel.tp > 1 and x.split != "tokens":
        raise BadInput(
            f"tp {t.parallel.tp}: experts process each rank's own tokens; use sequence parallelism"
            " (--sp)"
        )
    if width % etp:
        raise BadInput(f"etp {etp} does not divide the width of an expert ({width})")
    routes = route(t, ids, experts)
    rows = _dispatch(t, take(t, x, routes.forth, routes.rows, dim), k)
    share = take(t, t.view(weights, weights.size), routes.order, routes.rows)
    h = gate(grouped_linear(t, rows, halves * width // etp, routes, bias=bias))
    h = _combine(t, grouped_linear(t, h, dim, routes, bias=bias, last=True), k)
    result = h.storage
    h = pointwise.mul(t, h, t.view(share, routes.rows, 1))
    if t.implementation("experts", "") == "grouped":
        # Megatron-Core weights what the second product reads, so that its result need not be kept
        t.saved.pop(result, None)
    h = take(t, h, routes.back, routes.rows, dim)
    out = pointwise.total(t, t.view(h, tokens, k, dim), 1)
    return t.cast(t.view(out, tokens, dim), x.dtype)


def _generating(
    t: Tape,
    x: Value,
    weights: Value,
    ids: Value,
    experts: int,
    width: int,
    gate: Callable[[Value], Value],
    bias: bool,
    halves: int,
) -> Value:
    """The same of new tokens, as serving engines run it: one kernel permutes, one per product and
    gate, one adds up. The ranks of a group hold experts (ep) or parts of each (etp), and every rank
    of a tensor-parallel group has all of its tokens; the sum over ranks follows.

    A product's shape is (experts of a rank, share of the tokens that choose an expert, n, k): how
    many are hit depends on the tokens of all ranks.
    """
    (tokens, dim), k = x.shape, ids.shape[-1]
    ep, etp = t.parallel.ep, t.parallel.etp
    if experts % ep:
        raise BadInput(f"ep {ep} does not divide the {experts} experts")
    own, part = experts // ep, -(-width // etp)
    rows = t.new((tokens * k, dim), x.dtype)
    t.emit("copy", (x, ids, weights), (rows,), vector=8 * ids.size)
    rows = _hit(t, rows, halves * part, own, k / experts, bias)
    rows = _hit(t, gate(rows), dim, own, k / experts, bias)
    out = t.new((tokens, dim), x.dtype)
    t.emit("copy", (rows, weights), (out,), vector=2 * rows.size)
    if ep * etp > 1:
        t.send("exchange", "ep", out.bytes, copies=k)
    return out


def _hit(t: Tape, x: Value, n: int, experts: int, share: float, bias: bool) -> Value:
    """Rows times the matrices of the experts that they chose."""
    rows, k = x.shape
    w = t.parameter(experts, n, k, expert=True, dtype=t.matrix_format(n, k), share=share)
    ins = (t.parameter(experts, n, expert=True, share=share),) if bias else ()
    x = t.cast(x, t.wide(w.dtype))
    out = t.new((rows, n), x.dtype)
    product = product_format(t, x.dtype, w)
    operand = narrowed(t, x, out, product)
    shape = (experts, share, n, k)
    t.emit(
        "expert_matmul", (operand, w, *ins), (out,), matrix=2 * rows * n * k, product=product,
        shape=shape,
    )  # fmt: skip
    return out


def spread(t: Tape, best: Value, ids: Value, tokens: int, experts: int) -> Value:
    """Logits [tokens, experts] of the chosen experts, minus infinity elsewhere; keeps `ids`."""
    out = t.new((tokens, experts), best.dtype, best.grad)
    t.emit("scatter", (best, ids), (out,), vector=out.size)
    if out.grad:
        t.save(ids)
        t.backward("gather", read=ids.bytes + best.bytes, written=best.bytes, product=best.dtype)
    return out


def dense_experts(
    t: Tape, x: Value, scores: Value, k: int, width: int, gate: Callable[[Value], Value]
) -> Value:
    """Every token of x[T, D] through every expert, scaled by its score first: 0 of all but k.

    `experts` times the work of one expert, whatever k is.
    """
    tokens, dim = x.shape
    experts = scores.shape[-1]
    rows = pointwise.copy(t, x, experts * tokens, dim)
    rows = pointwise.mul(t, rows, pointwise.copy(t, scores, experts * tokens, 1))
    held = t.matrix_format(2 * width, dim)
    up = t.parameter(experts, dim, 2 * width, dtype=held, share=k / experts)
    h = linear.matmul(t, t.view(rows, experts, tokens, dim), up)
    held = t.matrix_format(dim, width)
    down = t.parameter(experts, width, dim, dtype=held, share=k / experts)
    h = linear.matmul(t, gate(h), down)
    return t.view(pointwise.total(t, h, 0), tokens, dim)
