"""Look-ups: embedding tables, gathers, and their scattered gradients."""

from __future__ import annotations

from roofcast.simulator.work.tape import Tape, Value

INDEX = 8  # bytes of an int64 index


def embedding(
    t: Tape,
    ids: Value,
    rows: int,
    width: int,
    *,
    weight: Value | None = None,
    tied: str | None = None,
) -> Value:
    """Rows of a table [rows, width], one an id; keeps the ids.

    The gradient is dense: the whole table is zeroed and the rows are added into it. A table cut
    over tensor-parallel ranks gives each a part of the rows; the parts are added up.
    """
    table = weight if weight is not None else t.parameter(rows, width, tied=tied)
    out = t.new((*ids.shape, width), table.dtype, table.grad)
    t.emit("gather", (ids, table), (out,), read=ids.bytes + out.bytes)
    if out.grad:
        t.save(ids)
        t.backward(
            "scatter",
            vector=out.size,
            read=out.bytes + ids.bytes,
            written=table.bytes + out.bytes,
            product=table.dtype,
        )
    return t.leave(out) if table.split else out


def embedding_bag(
    t: Tape, ids: Value, bags: int, rows: int, width: int, *, offsets: bool = False
) -> Value:
    """Sums of table rows, one a bag; keeps ids, and with them the offsets, the bag of each id and
    the bag sizes.
    """
    table = t.parameter(rows, width)
    out = t.new((bags, width), table.dtype, table.grad)
    n = ids.size
    t.emit(
        "gather",
        (ids,),
        (out,),
        vector=n * width,
        read=ids.bytes + n * width * table.bytes // table.size,
    )
    if out.grad:
        t.save(ids)
        t.keep(INDEX * (n + 2 * bags))
        t.backward(
            "scatter",
            vector=n * width,
            read=out.bytes + ids.bytes,
            written=table.bytes,
            product=table.dtype,
        )
    return out
