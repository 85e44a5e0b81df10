"""Recommenders: matrix factorization, NeuMF [he2017], DLRM [naumov2019], variational autoencoder.

The autoencoder is that of [liang2018].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from roofcast.simulator.models.other.parts import dense_row
from roofcast.simulator.models.vision.parts import activation, dense, pairwise_loss
from roofcast.simulator.work.ops import embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(t: Tape, batch: int, size: int | None, *, kind: str, **sizes: Any) -> Value:
    """`kind` is dot, neumf, dlrm or vae. A sample is a row of a table, so `size` is not used."""
    nets: dict[str, Callable[..., Value]] = {"dot": dot, "neumf": neumf, "dlrm": dlrm, "vae": vae}
    return nets[kind](t, batch, **sizes)


def dot(t: Tape, batch: int, users: int, items: int, width: int) -> Value:
    """Matrix factorization: sigmoid(user . item + bias of the user + bias of the item)."""
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


def neumf(
    t: Tape, batch: int, users: int, items: int, factors: int, widths: Sequence[int]
) -> Value:
    """NeuMF: an elementwise product of factors parallel to an MLP.

    `widths` are those of the MLP, starting with its input.
    """
    user, item = _pair(t, batch)
    with t.op("gmf", "mul"):
        u, i = (_look_up(t, "", x, n, factors) for x, n in ((user, users), (item, items)))
        product = pointwise.mul(t, u, i)
    u = _look_up(t, "mlp_user", user, users, widths[0] // 2)
    i = _look_up(t, "mlp_item", item, items, widths[0] // 2)
    with t.scope("mlp"):
        with t.op("cat", "concat"):
            x = pointwise.concat(t, [u, i], 1)
        x = dense_row(t, x, widths[1:], last="relu")
    with t.op("cat", "concat"):
        x = pointwise.concat(t, [product, x], 1)
    return pairwise_loss(t, "bce_with_logits", dense(t, "predict", x, 1))


def dlrm(
    t: Tape,
    batch: int,
    tables: int,
    rows: int,
    width: int,
    lookups: int,
    dense_features: int,
    bottom: Sequence[int],
    top: Sequence[int],
) -> Value:
    """DLRM: an MLP on dense features, sums of embeddings, their pairwise products, an MLP on top.

    There are `tables` embedding tables of `rows` x `width`, with `lookups` ids each per sample.
    """
    numbers, ids = t.input((batch, dense_features)), t.input((tables, batch, lookups), "int64")
    with t.scope("bot"):
        b = dense_row(t, numbers, bottom, last="relu")
    parts = [b]
    for table in range(tables):
        with t.op(f"e.{table}", "embedding_bag"):
            own = t.view(ids, batch, lookups)
            parts.append(embedding.embedding_bag(t, own, batch, rows, width))
    count = tables + 1
    with t.op("interact", "matmul"):
        rows_of = [t.view(p, batch, 1, width) for p in parts]
        z = t.view(pointwise.concat(t, rows_of, 1), batch, count, width)
        products = linear.matmul(t, z, z, transposed=True)
        pairs = count * (count - 1) // 2
        picked = pointwise.copy(t, products, batch, pairs)
        t.keep(2 * 8 * pairs)  # positions below the diagonal
        x = pointwise.concat(t, [b, picked], 1)
    with t.scope("top"):
        x = dense_row(t, x, top, last="sigmoid")
    return pairwise_loss(t, "bce", x)


def vae(t: Tape, batch: int, items: int, seen: int, hidden: int, latent: int) -> Value:
    """Autoencoder of the `items` that a user liked, `seen` on average, with a multinomial loss.

    `hidden` and `latent` are the widths of its layers. The first layer sums the rows of its weight
    that belong to the liked items.
    """
    ids = t.input((batch, seen), "int64")
    with t.op("encoder.0", "embedding_bag"):
        x = embedding.embedding_bag(t, ids, batch, items, hidden)
        x = pointwise.add(t, x, t.parameter(hidden))
    x = dense(t, "encoder.2", activation(t, "encoder.1", "tanh", x, in_place=False), 2 * latent)
    with t.op("sample", "mul"):
        mean, log_variance = (pointwise.part(t, x, batch, latent) for _ in range(2))
        spread = pointwise.unary(t, "exp", pointwise.scale(t, log_variance))
        noise = t.new((batch, latent))
        t.emit("elementwise", (), (noise,), special=noise.size)
        x = pointwise.add(t, mean, pointwise.mul(t, spread, noise))
    x = activation(t, "decoder.1", "tanh", dense(t, "decoder.0", x, hidden), in_place=False)
    logits = dense(t, "decoder.2", x, items)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        log_p = norm.softmax(t, logits)
        liked = t.new((batch, seen), log_p.dtype, True)
        t.emit("gather", (ids,), (liked,), read=ids.bytes + liked.bytes)
        t.save(ids)
        read, written = liked.bytes + ids.bytes, log_p.bytes + liked.bytes
        t.backward("scatter", vector=liked.size, read=read, written=written)
        return pointwise.mean(t, liked)


def _pair(t: Tape, batch: int) -> tuple[Value, Value]:
    both = t.input((batch, 2), "int64")
    return t.view(both, batch), t.view(both, batch)


def _look_up(t: Tape, name: str, ids: Value, rows: int, width: int) -> Value:
    with t.op(name, "embedding"):
        return embedding.embedding(t, ids, rows, width)
