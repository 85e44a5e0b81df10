"""Embedding tables: lookups of rows, and their scattered gradients."""

from __future__ import annotations

from roofcast.simulator.work.ops.prompts import prompted
from roofcast.simulator.work.tape import Tape, Value

INDEX = 8  # bytes of an int64 index
EMBEDDED = 3  # dimensions of embedded tokens: batch, tokens, width


def embedding(
    t: Tape,
    ids: Value,
    rows: int,
    width: int,
    *,
    weight: Value | None = None,
    tied: str | None = None,
) -> Value:
    """Rows of a table [rows, width], one per id: [*ids.shape, width]; keeps the ids.

    The gradient is dense: the whole table is set to zero and the rows are added to it. If the table
    is split over tensor-parallel ranks, each contributes its rows and the results are added up.
    """
    table = weight if weight is not None else t.parameter(rows, width, tied=tied)
    # what a checkpoint encloses has a gradient only if its input has one
    needed = t.inputs_need_grad and (ids.kind == "input" or weight is not None)
    dtype = t.wide(table.dtype) if not t.training else table.dtype
    out = t.new((*ids.shape, width), dtype, table.grad or needed)
    read = ids.bytes + out.bytes
    t.emit("gather", (ids, table), (out,), read=read)
    if table.grad:
        t.save(ids)
        written, dtype = table.bytes + out.bytes, table.dtype
        moved = {"read": read, "written": written}
        t.backward("scatter", vector=out.size, product=dtype, shape=(ids.size,), **moved)
    out = t.leave(out) if table.split else out
    return prompted(t, out) if ids.kind == "input" and len(out.shape) == EMBEDDED else out


def embedding_bag(t: Tape, ids: Value, bags: int, rows: int, width: int) -> Value:
    """Sums of rows of a table [rows, width], one sum per bag: [bags, width].

    Keeps the ids, and with them the offsets, the bag of each id and the sizes of the bags.
    """
    table = t.parameter(rows, width)
    out = t.new((bags, width), table.dtype, table.grad)
    n = ids.size
    looked_up = n * width * table.bytes // table.size
    t.emit("gather", (ids,), (out,), vector=n * width, read=ids.bytes + looked_up)
    if out.grad:
        t.save(ids)
        t.keep(INDEX * (n + 2 * bags))
        read, written = out.bytes + ids.bytes, table.bytes
        t.backward("scatter", vector=n * width, read=read, written=written, product=table.dtype)
    return out
