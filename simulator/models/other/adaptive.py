"""Adaptive embeddings and softmax: clusters of words by frequency [grave2016] [baevski2018].

As in Transformer-XL. The number of words of a text in each cluster depends on the text;
`Clusters.shares` gives it for the clusters of rarer words.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from roofcast.simulator.models.vision.parts import dense
from roofcast.simulator.work.ops import embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Clusters(NamedTuple):
    """Words by frequency: the first `ends[0]` are the head; each end closes a cluster.

    The embeddings of each cluster are `divisor` times as narrow as those of the cluster before it.
    """

    ends: tuple[int, ...]
    divisor: int
    shares: tuple[float, ...]  # fraction of a text's words in each cluster after the head

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of words in each cluster, the head included."""
        return tuple(end - start for start, end in zip((0, *self.ends), self.ends, strict=False))

    def words(self, tokens: int) -> tuple[int, ...]:
        """How many of `tokens` tokens fall into each cluster.

        >>> Clusters((2, 4, 8), 1, (0.2, 0.1)).words(100)
        (70, 20, 10)
        """
        rare = tuple(ceil(tokens * share) for share in self.shares)
        return (tokens - sum(rare), *rare)


class Tables(NamedTuple):
    """Embedding rows, as one table or one per cluster, and the projections of narrow rows."""

    rows: list[Value]
    projections: list[Value]


def tables(t: Tape, clusters: Clusters, width: int) -> Tables:
    """Embedding tables and projections of all clusters."""
    with t.op("word_emb", "parameter"):
        if clusters.divisor == 1:
            return Tables([t.parameter(clusters.ends[-1], width)], [])
        widths = [width // clusters.divisor**index for index in range(len(clusters.ends))]
        rows = [
            t.parameter(size, narrow) for size, narrow in zip(clusters.sizes, widths, strict=True)
        ]
        return Tables(rows, [t.parameter(width, narrow) for narrow in widths])


def embedded(t: Tape, clusters: Clusters, table: Tables, ids: Value, width: int) -> Value:
    """ids [S, B] -> scaled embeddings [S, B, width]."""
    with t.op("word_emb", "embedding"):
        if clusters.divisor == 1:
            x = embedding.embedding(t, ids, *table.rows[0].shape, weight=table.rows[0])
        else:
            x = t.new((*ids.shape, width), t.precision.weights, t.training)
            t.emit("elementwise", (), (x,))
            for count, rows, projection in zip(
                clusters.words(ids.size), table.rows, table.projections, strict=True
            ):
                place = t.new((count,), "int64")
                own = t.new((count,), "int64")
                t.emit("gather", (ids,), (place, own), vector=4 * ids.size)
                found = embedding.embedding(t, own, *rows.shape, weight=rows)
                wide = linear.linear(t, found, width, bias=False, weight=projection)
                _put(t, t.cast(wide, x.dtype), place, x)
        return pointwise.unary(t, "mul_scalar", x, in_place=True)


def _put(t: Tape, rows: Value, place: Value, whole: Value) -> None:
    """whole[place] = rows, in place; both are kept."""
    t.emit("scatter", (rows, place), (whole,), read=rows.bytes + place.bytes, written=rows.bytes)
    if rows.grad:
        t.save(place, rows)
        read, written = rows.bytes + place.bytes, rows.bytes + whole.bytes
        t.backward("gather", read=read, written=written, product=rows.dtype)


def loss(t: Tape, clusters: Clusters, table: Tables, x: Value) -> Value:
    """The negative log-likelihood of every word; x [T, width].

    The probability of a rare word is that of its cluster times that within the cluster.
    """
    with t.scope("crit"):
        with t.op("clusters", "parameter"):
            weight = t.parameter(len(clusters.ends) - 1, x.shape[-1])
            projection = t.parameter(x.shape[-1], x.shape[-1]) if table.projections else None
        head = _scores(t, "head", x, _rows(t, clusters, table, 0, weight), projection)
        if not t.training:
            return head
        targets = t.input((x.shape[0],), "int64")
        with t.op("head.log_softmax", "softmax"):
            head = log_softmax(t, head)
        for index, count in enumerate(clusters.words(x.shape[0])):
            _cluster_loss(t, clusters, table, x, head, targets, index, count)
        out = t.new((), x.dtype, True)
        t.emit("reduce", (targets,), (out,), vector=x.shape[0])
        return out


def _cluster_loss(
    t: Tape,
    clusters: Clusters,
    table: Tables,
    x: Value,
    head: Value,
    targets: Value,
    index: int,
    count: int,
) -> None:
    """The log-probabilities of the `count` target words in cluster `index`; 0 is the head."""
    with t.op(f"cluster{index}", "gather"):
        place = t.new((count,), "int64")
        own = t.new((count,), "int64")
        t.emit("gather", (targets,), (place, own), vector=4 * targets.size)
        found = moe.take(t, head, place, count, head.shape[-1])
    if index:
        with t.op(f"cluster{index}.hidden", "gather"):
            hidden = moe.take(t, x, place, count, x.shape[-1])
        projection = table.projections[index] if table.projections else None
        rows = _rows(t, clusters, table, index)
        scores = _scores(t, f"tail{index}", hidden, rows, projection)
        with t.op(f"tail{index}.log_softmax", "softmax"):
            pointwise.part(t, found, count)
            found = log_softmax(t, scores)
    with t.op(f"cluster{index}.pick", "gather"):
        t.save(found)  # torch.gather keeps the tensor it reads
        moe.take(t, found, own, count)


def _rows(
    t: Tape, clusters: Clusters, table: Tables, index: int, more: Value | None = None
) -> Value:
    """Embedding rows of a cluster; the head has one more row (`more`) per other cluster."""
    with t.op(f"weight{index}", "concat"):
        if table.projections:
            rows = table.rows[index]
        else:
            rows = pointwise.part(t, table.rows[0], clusters.sizes[index], table.rows[0].shape[-1])
        return rows if more is None else pointwise.concat(t, [rows, more], 0)


def _scores(t: Tape, name: str, x: Value, rows: Value, projection: Value | None) -> Value:
    """x times the rows; x is first projected to the width of narrow rows."""
    if projection is None:
        return dense(t, name, x, rows.shape[0], weight=rows)
    with t.op(f"{name}.project", "linear"):
        x = linear.linear(t, x, rows.shape[-1], bias=False, weight=projection)
    with t.op(name, "linear"):
        scores = linear.linear(t, x, rows.shape[0], bias=False, weight=rows)
        return pointwise.add(t, scores, t.parameter(rows.shape[0]))


def log_softmax(t: Tape, x: Value) -> Value:
    """Counted as a softmax, which also keeps its result."""
    return norm.softmax(t, x)
