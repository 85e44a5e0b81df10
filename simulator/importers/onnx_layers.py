"""ONNX operators: norms, reductions, pools, lookups, recurrent layers, attention, losses."""

from __future__ import annotations

from math import prod

import numpy as np

from roofcast.simulator.importers.onnx_call import Call, Handler, Stored, moved
from roofcast.simulator.importers.onnx_products import window
from roofcast.simulator.importers.onnx_shapes import axes_of
from roofcast.simulator.work.ops import conv, embedding, loss, norm, recurrent
from roofcast.simulator.work.tape import Value

FEW = 256  # numbers of 8 bits up to which a table is a constant and no embedding


# ------------------------------------------------------------------ norms
def batch_norm_op(c: Call) -> list[Value]:
    """BatchNormalization with statistics of the batch."""
    c.announce(1, 2)
    return [norm.batch_norm(c.t, c.value(0))]


def layer_norm_op(c: Call) -> list[Value]:
    """LayerNormalization over the axes from `axis` on."""
    x = c.value(0)
    axis = c.attributes.get("axis", -1) % len(x.shape)
    c.announce(1, 2)
    rows = c.t.view(x, *x.shape[:axis], prod(x.shape[axis:]))
    out = norm.layer_norm(c.t, rows, affine=c.given(1), bias=c.given(2))
    return [c.t.view(out, *x.shape)]


def group_norm_op(c: Call) -> Value:
    """GroupNormalization, or InstanceNormalization: one group per channel."""
    x, gain = c.value(0), c.ins[1]
    constant = isinstance(gain, np.ndarray) or (isinstance(gain, Stored) and gain.exported)
    c.announce(*(() if constant else (1, 2)))
    groups = c.attributes.get("num_groups", x.shape[1])
    return norm.group_norm(c.t, x, groups, affine=not constant)


def rms_norm_op(c: Call) -> list[Value]:
    """RMSNormalization over the last axis."""
    c.announce(1)
    return [norm.rms_norm(c.t, c.value(0), flavor="torch")]


# ------------------------------------------------------------------ reductions and windows
def reduce_op(c: Call) -> Value:
    """ReduceSum, ReduceMean, ReduceMax .., ArgMax over axes, which stay with length 1 or not."""
    x, keep = c.value(0), c.attributes.get("keepdims", 1)
    index = c.node.op_type.startswith("Arg")
    axes = axes_of(c, len(x.shape))
    if index:
        axes = [c.attributes.get("axis", 0) % len(x.shape)]
    if axes is None:
        if c.attributes.get("noop_with_empty_axes"):
            return x
        axes = list(range(len(x.shape)))
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
    out = c.t.new(shape, "int64" if index else x.dtype, x.grad and not index)
    c.t.emit("reduce", (x,), (out,), vector=x.size)
    if out.grad:
        if c.node.op_type not in ("ReduceSum", "ReduceMean"):
            c.t.save(x)
        c.t.backward("elementwise", vector=x.size, read=out.bytes, written=x.bytes, product=x.dtype)
    return out


def pool_op(kind: str) -> Handler:
    """The handler of MaxPool or AveragePool."""

    def handler(c: Call) -> list[Value]:
        kernel = c.attributes["kernel_shape"]
        x, stride, _, padding = window(c, c.value(0), kernel)
        ceil, dims = bool(c.attributes.get("ceil_mode")), len(kernel)
        out = conv.pool(c.t, x, kind, kernel, stride=stride, padding=padding, ceil=ceil, dims=dims)
        return [out]

    return handler


def global_pool_op(kind: str) -> Handler:
    """The handler of GlobalMaxPool or GlobalAveragePool."""
    return lambda c: conv.adaptive_pool(c.t, c.value(0), kind, 1)


def resize_op(c: Call) -> Value:
    """Resize to given sizes or by given scales."""
    x = c.value(0)
    if c.given(3):
        shape = [int(n) for n in c.numbers(3)]
    else:
        place = 2 if c.given(2) else 1
        scales = c.numbers(place) if c.given(place) else c.attributes["scales"]
        shape = [int(n * s) for n, s in zip(x.shape, scales, strict=True)]
    nearest = c.attributes.get("mode", b"nearest") == b"nearest"
    return conv.resize(c.t, x, tuple(shape[2:]), kind="nearest" if nearest else "linear")


# ------------------------------------------------------------------ lookups
def gather_op(c: Call) -> Value:
    """Gather: an embedding if rows of a learned table are looked up, else a copy of elements."""
    axis = c.attributes.get("axis", 0)
    table, index = c.ins[0], c.ins[1]
    if isinstance(table, Stored) and len(table.shape) == 2 and axis == 0:
        small = table.format in ("INT8", "UINT8", "INT4", "UINT4") and prod(table.shape) > FEW
        if table.floating or small:
            weight = c.weight(0, trained=True) if small else c.value(0)
            return embedding.embedding(c.t, c.value(1), *table.shape, weight=weight)
    held = c.value(0)
    if held.kind == "parameter" and len(held.shape) == 2 and axis == 0 and held.dtype != "fp64":
        return embedding.embedding(c.t, c.value(1), *held.shape, weight=held)
    x, i = c.value(0), c.value(1)
    axis %= len(x.shape)
    shape = (*x.shape[:axis], *i.shape, *x.shape[axis + 1 :])
    if isinstance(index, (np.ndarray, Stored)) and prod(i.shape) == 1:
        return c.t.view(x, *shape)
    out = c.t.new(shape, x.dtype, x.grad)
    moved(c, "gather", [out])
    return out


def indexed_op(c: Call) -> Value:
    """GatherElements and GatherND, shaped by the indices; Scatter*, shaped by its first operand."""
    x, i = c.value(0), c.value(1)
    scatter = c.node.op_type.startswith("Scatter")
    if scatter:
        shape = x.shape
    elif c.node.op_type == "GatherElements":
        shape = i.shape
    else:
        shape = (*i.shape[:-1], *x.shape[i.shape[-1] + c.attributes.get("batch_dims", 0) :])
    out = c.t.new(shape, x.dtype, c.grad)
    moved(c, "scatter" if scatter else "gather", [out])
    return out


def top_k_op(c: Call) -> list[Value]:
    """TopK: the largest k along an axis, and their indices."""
    x, k, axis = c.value(0), int(np.ravel(c.numbers(1))[0]), c.attributes.get("axis", -1)
    shape = list(x.shape)
    shape[axis] = k
    outs = [c.t.new(shape, x.dtype, x.grad), c.t.new(shape, "int64")]
    moved(c, "gather", outs)
    return outs


def same_shape(kind: str) -> Handler:
    """The handler of an op whose result has the shape of its input, as one kernel of that kind."""

    def handler(c: Call) -> list[Value]:
        x = c.value(0)
        outs = [c.t.new(x.shape, x.dtype, x.grad)]
        moved(c, kind, outs)
        return outs

    return handler


# ------------------------------------------------------------------ layers and losses
def recurrent_op(cell: str) -> Handler:
    """The handler of RNN, GRU or LSTM: x[steps, batch, features], in one or both directions."""

    def handler(c: Call) -> list[Value]:
        x, hidden = c.value(0), c.attributes["hidden_size"]
        batch_first = c.attributes.get("layout")
        if not batch_first:
            x = c.t.view(x, x.shape[1], x.shape[0], x.shape[2])
        both = c.attributes.get("direction", b"forward") == b"bidirectional"
        ways = 2 if both else 1
        if isinstance(c.ins[1], Value):  # weights that the graph assembles from counted parts
            c.announce(*(1, 3, 2, 3) * ways)
        out, last = recurrent.recurrent(c.t, x, hidden, cell=cell, both_ways=both)
        batch, steps = x.shape[:2]
        axes = (batch, steps, ways) if batch_first else (steps, ways, batch)
        final = c.t.view(last, ways, batch, hidden)
        return [c.t.view(out, *axes, hidden), final, final]

    return handler


def cross_entropy_op(c: Call) -> list[Value]:
    """SoftmaxCrossEntropyLoss of scores and labels."""
    return [loss.cross_entropy(c.t, c.value(0), c.value(1))]
