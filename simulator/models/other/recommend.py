"""Recommenders: matrix factorisation with biases, NeuMF [he2017], DLRM [naumov2019]."""

from __future__ import annotations

from simulator.models.other.parts import dense_row
from simulator.models.vision.parts import dense, pairwise_loss
from simulator.ops import embedding, linear, pointwise
from simulator.tape import Tape, Value


def build(t: Tape, batch: int, size: int | None, *, kind: str, **sizes):
    """`kind` dot, neumf or dlrm; a sample is a row of a table, so there is no size."""
    return {"dot": dot, "neumf": neumf, "dlrm": dlrm}[kind](t, batch, **sizes)


def dot(t: Tape, batch: int, users: int, items: int, width: int):
    """sigmoid(user . item + user's bias + item's bias)."""
    user, item = _pair(t, batch)
    u, i = _look_up(t, "u", user, users, width), _look_up(t, "i", item, items, width)
    with t.op("dot", "mul"):
        x = pointwise.mean(t, t.full(pointwise.mul(t, u, i)))
    for name, ids, rows in (("ub", user, users), ("ib", item, items)):
        bias = _look_up(t, name, ids, rows, 1)
        with t.op(f"{name}.add", "add"):
            x = pointwise.add(t, x, bias)
    with t.op("sigmoid", "sigmoid"):
        x = pointwise.unary(t, "sigmoid", x)
    return pairwise_loss(t, "bce", x)


def neumf(t: Tape, batch: int, users: int, items: int, factors: int, widths):
    """A product of factors beside an MLP on concatenated ones; `widths` of the MLP, its input first."""
    user, item = _pair(t, batch)
    with t.op("gmf", "mul"):
        product = pointwise.mul(t, _look_up(t, "", user, users, factors), _look_up(t, "", item, items, factors))
    u, i = _look_up(t, "mlp_user", user, users, widths[0] // 2), _look_up(t, "mlp_item", item, items, widths[0] // 2)
    with t.scope("mlp"):
        with t.op("cat", "concat"):
            x = pointwise.concat(t, [u, i], 1)
        x = dense_row(t, x, widths[1:], last="relu")
    with t.op("cat", "concat"):
        x = pointwise.concat(t, [product, x], 1)
    return pairwise_loss(t, "bce_with_logits", dense(t, "predict", x, 1))


def dlrm(t: Tape, batch: int, tables: int, rows: int, width: int, lookups: int, dense_features: int, bottom, top):
    """An MLP on dense features, sums of looked-up rows, all their products with one another, an MLP on top."""
    numbers, ids = t.input((batch, dense_features)), t.input((tables, batch, lookups), "int64")
    with t.scope("bot"):
        b = dense_row(t, numbers, bottom, last="relu")
    parts = [b]
    for table in range(tables):
        with t.op(f"e.{table}", "embedding_bag"):
            parts.append(embedding.embedding_bag(t, t.view(ids, batch, lookups), batch, rows, width))
    count = tables + 1
    with t.op("interact", "matmul"):
        z = t.view(pointwise.concat(t, [t.view(p, batch, 1, width) for p in parts], 1), batch, count, width)
        products = linear.matmul(t, z, z, transposed=True)
        pairs = count * (count - 1) // 2
        picked = pointwise.copy(t, products, batch, pairs)
        t.keep(2 * 8 * pairs)  # the places below the diagonal
        x = pointwise.concat(t, [b, picked], 1)
    with t.scope("top"):
        x = dense_row(t, x, top, last="sigmoid")
    return pairwise_loss(t, "bce", x)


def _pair(t: Tape, batch: int) -> tuple[Value, Value]:
    both = t.input((batch, 2), "int64")
    return t.view(both, batch), t.view(both, batch)


def _look_up(t: Tape, name: str, ids: Value, rows: int, width: int) -> Value:
    with t.op(name, "embedding"):
        return embedding.embedding(t, ids, rows, width)
