"""Word tables and softmax by clusters of frequency [grave2016] [baevski2018], as Transformer-XL has
them.

How many words of a text fall into each cluster depends on the text; `Clusters.shares` says it for
the rarer ones.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from roofcast.simulator.models.vision.parts import dense
from roofcast.simulator.work.ops import embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Clusters(NamedTuple):
    """Words by frequency: the first `ends[0]` are the head. Rarer clusters have rows `divisor`
    times as narrow, one after another.
    """

    ends: tuple[int, ...]
    divisor: int
    shares: tuple[float, ...]  # of a text's words, cluster by cluster behind the head

    @property
    def sizes(self) -> tuple[int, ...]:
        """Words in each cluster behind the head."""
        return tuple(end - start for start, end in zip((0, *self.ends), self.ends, strict=False))

    def words(self, tokens: int) -> tuple[int, ...]:
        """Of so many tokens those in each cluster.

        >>> Clusters((2, 4, 8), 1, (0.2, 0.1)).words(100)
        (70, 20, 10)
        """
        rare = tuple(ceil(tokens * share) for share in self.shares)
        return (tokens - sum(rare), *rare)


class Tables(NamedTuple):
    """Rows of the words, one table or one a cluster, and what brings narrow rows to the model's
    width.
    """

    rows: list[Value]
    projections: list[Value]


def tables(t: Tape, clusters: Clusters, width: int) -> Tables:
    """Word tables and projections of all clusters."""
    with t.op("word_emb", "parameter"):
        if clusters.divisor == 1:
            return Tables([t.parameter(clusters.ends[-1], width)], [])
        widths = [width // clusters.divisor**index for index in range(len(clusters.ends))]
        rows = [
            t.parameter(size, narrow) for size, narrow in zip(clusters.sizes, widths, strict=True)
        ]
        return Tables(rows, [t.parameter(width, narrow) for narrow in widths])


def embedded(t: Tape, clusters: Clusters, table: Tables, ids: Value, width: int) -> Value:
    """ids[S, B] -> [S, B, width], scaled."""
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
                _put(
                    t,
                    t.cast(linear.linear(t, found, width, bias=False, weight=projection), x.dtype),
                    place,
                    x,
                )
        return pointwise.unary(t, "mul_scalar", x, in_place=True)


def _put(t: Tape, rows: Value, place: Value, whole: Value):
    """whole[place] = rows, in place; keeps both."""
    t.emit("scatter", (rows, place), (whole,), read=rows.bytes + place.bytes, written=rows.bytes)
    if rows.grad:
        t.save(place, rows)
        t.backward(
            "gather",
            read=rows.bytes + place.bytes,
            written=rows.bytes + whole.bytes,
            product=rows.dtype,
        )


def loss(t: Tape, clusters: Clusters, table: Tables, x: Value) -> Value:
    """- log p of every word; x[T, width]. Of a rare word p is that of its cluster times that within
    the cluster.
    """
    with t.scope("crit"):
        with t.op("clusters", "parameter"):
            weight = t.parameter(len(clusters.ends) - 1, x.shape[-1])
            head_projection = t.parameter(x.shape[-1], x.shape[-1]) if table.projections else None
        head = _scores(t, "head", x, _rows(t, clusters, table, 0, weight), head_projection)
        if not t.training:
            return head
        targets = t.input((x.shape[0],), "int64")
        with t.op("head.log_softmax", "softmax"):
            head = log_softmax(t, head)
        for index, count in enumerate(clusters.words(x.shape[0])):
            with t.op(f"cluster{index}", "gather"):
                place = t.new((count,), "int64")
                own = t.new((count,), "int64")
                t.emit("gather", (targets,), (place, own), vector=4 * targets.size)
                found = moe.take(t, head, place, count, head.shape[-1])
            if index:
                with t.op(f"cluster{index}.hidden", "gather"):
                    hidden = moe.take(t, x, place, count, x.shape[-1])
                projection = table.projections[index] if table.projections else None
                scores = _scores(
                    t, f"tail{index}", hidden, _rows(t, clusters, table, index), projection
                )
                with t.op(f"tail{index}.log_softmax", "softmax"):
                    pointwise.part(t, found, count)
                    found = log_softmax(t, scores)
            with t.op(f"cluster{index}.pick", "gather"):
                t.save(found)  # a gather by element keeps where it reads
                moe.take(t, found, own, count)
        out = t.new((), x.dtype, True)
        t.emit("reduce", (targets,), (out,), vector=x.shape[0])
        return out


def _rows(
    t: Tape, clusters: Clusters, table: Tables, index: int, more: Value | None = None
) -> Value:
    """The words of a cluster; in the head a row for each other cluster too."""
    with t.op(f"weight{index}", "concat"):
        if table.projections:
            rows = table.rows[index]
        else:
            rows = pointwise.part(t, table.rows[0], clusters.sizes[index], table.rows[0].shape[-1])
        return rows if more is None else pointwise.concat(t, [rows, more], 0)


def _scores(t: Tape, name: str, x: Value, rows: Value, projection: Value | None) -> Value:
    """x times the rows; narrow ones by way of a projection."""
    if projection is None:
        return dense(t, name, x, rows.shape[0], weight=rows)
    with t.op(f"{name}.project", "linear"):
        x = linear.linear(t, x, rows.shape[-1], bias=False, weight=projection)
    with t.op(name, "linear"):
        scores = linear.linear(t, x, rows.shape[0], bias=False, weight=rows)
        return pointwise.add(t, scores, t.parameter(rows.shape[0]))


def log_softmax(t: Tape, x: Value) -> Value:
    """Keeps its result."""
    return norm.softmax(t, x)
