"""ONNX operators with weights or windows: products, convolutions, norms, pools, look-ups, recurrent
layers, attention.
"""

from __future__ import annotations

from math import prod

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import MADE, Call, Stored, moved
from roofcast.simulator.importers.onnx_shapes import axes_of
from roofcast.simulator.work.ops import (
    attention,
    conv,
    embedding,
    linear,
    loss,
    norm,
    pointwise,
    recurrent,
)
from roofcast.simulator.work.tape import Value


# ------------------------------------------------------------------ products
def dense(c: Call, x: Value, w: Value, out_features: int, bias: int | None):
    """x[.., in] times w[in, out], with the bias of input `bias` where there is one."""
    if bias is not None:
        c.announce(bias)
    return linear.linear(c.t, x, out_features, bias=bias is not None, weight=w)


def product(c: Call):
    """MatMul: a linear layer where the right side is a learned matrix, a batched product
    otherwise.
    """
    a, b = c.value(0), c.value(1)
    if len(b.shape) == 2 and b.kind == "parameter":
        return dense(c, a, b, b.shape[1], None)
    if len(a.shape) == 1:
        a = c.t.view(a, 1, *a.shape)
    if len(b.shape) == 1:
        b = c.t.view(b, *b.shape, 1)
    if prod(a.shape[:-2]) < prod(b.shape[:-2]):
        a = c.t.view(a, *b.shape[:-2], *a.shape[-2:])
    if a.shape[-1] != b.shape[-2]:
        raise BadInput(
            f"{list(a.shape)} times {list(b.shape)}: {a.shape[-1]} and {b.shape[-2]} differ"
        )
    return linear.matmul(c.t, a, b)


def gemm_op(c: Call):
    """Gemm: alpha A B + beta C, either side transposed."""
    a, b = c.value(0), c.value(1)
    if c.attributes.get("transA"):
        a = c.t.view(a, *a.shape[::-1])
    k, n = b.shape[::-1] if c.attributes.get("transB") else b.shape
    if a.shape[-1] != k:
        raise BadInput(f"{list(a.shape)} arrives where rows of {k} are wanted")
    if b.kind == "parameter" and (not c.given(2) or isinstance(c.ins[2], Stored)):
        return dense(c, a, b, n, 2 if c.given(2) else None)
    out = linear.matmul(c.t, a, c.t.view(b, k, n))
    return pointwise.add(c.t, out, c.value(2)) if c.given(2) else out


def einsum_op(c: Call):
    """Einsum of two operands as a batched product."""
    equation = c.attributes["equation"].decode().replace(" ", "")
    left, _, result = equation.partition("->")
    if left.count(",") != 1 or "." in left:
        raise BadInput(
            f"einsum {equation!r}: only products of two operands with named axes are known"
        )
    terms = left.split(",")
    a, b = c.value(0), c.value(1)
    size = {
        letter: n
        for term, v in zip(terms, (a, b), strict=True)
        for letter, n in zip(term, v.shape, strict=True)
    }
    result = result or "".join(sorted(x for x in size if left.count(x) == 1))
    shared = set(terms[0]) & set(terms[1])
    batch, inner = [x for x in shared if x in result], [x for x in shared if x not in result]
    rows, columns = (
        [x for x in terms[0] if x not in shared],
        [x for x in terms[1] if x not in shared],
    )
    of = lambda letters: prod(size[x] for x in letters)  # noqa: E731
    out = linear.matmul(
        c.t,
        c.t.view(a, of(batch), of(rows), of(inner)),
        c.t.view(b, of(batch), of(inner), of(columns)),
    )
    return c.t.view(out, *(size[x] for x in result))


def window(c: Call, x: Value, kernel):
    """Strides, dilations and the input with uneven padding laid on; even padding as a number an
    axis.
    """
    dims = len(kernel)
    stride, dilation = (tuple(c.attributes.get(k, [1] * dims)) for k in ("strides", "dilations"))
    pads, auto = c.attributes.get("pads", [0] * 2 * dims), c.attributes.get("auto_pad", b"NOTSET")
    if auto.startswith(b"SAME"):
        total = [
            conv.same_padding(n, k, s, d)
            for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        pads = [n // 2 for n in total] + [n - n // 2 for n in total]
    if pads[:dims] == pads[dims:]:
        return x, stride, dilation, tuple(pads[:dims])
    laid = c.t.view(
        x,
        *x.shape[:2],
        *(n + a + b for n, a, b in zip(x.shape[2:], pads[:dims], pads[dims:], strict=True)),
    )
    return laid, stride, dilation, (0,) * dims


def convolution(c: Call):
    """Conv of x[batch, channels, ..space] over any number of space axes."""
    x, w = c.value(0), c.value(1)
    kernel = w.shape[2:]
    groups = c.attributes.get("group", 1)
    if x.shape[1] != w.shape[1] * groups:
        raise BadInput(f"{x.shape[1]} channels arrive where {w.shape[1] * groups} are wanted")
    x, stride, dilation, padding = window(c, x, kernel)
    c.announce(2)
    return conv.conv(
        c.t,
        x,
        w.shape[0],
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=c.given(2),
        dims=len(kernel),
        weight=w,
    )


def conv_transpose_op(c: Call):
    """ConvTranspose of x[batch, channels, ..space]."""
    x, w = c.value(0), c.ins[1]
    kernel, groups = w.shape[2:], c.attributes.get("group", 1)
    _, stride, _, padding = window(c, x, kernel)
    c.announce(1, 2)
    return conv.conv_transpose(
        c.t,
        x,
        w.shape[1] * groups,
        kernel,
        stride=stride,
        padding=padding,
        output_padding=tuple(c.attributes.get("output_padding", [0] * len(kernel))),
        groups=groups,
        bias=c.given(2),
        dims=len(kernel),
    )


# ------------------------------------------------------------------ norms
def batch_norm_op(c: Call):
    """BatchNormalization with statistics of the batch."""
    c.announce(1, 2)
    return [norm.batch_norm(c.t, c.value(0))]


def layer_norm_op(c: Call):
    """LayerNormalization over the axes from `axis` on."""
    x = c.value(0)
    axis = c.attributes.get("axis", -1) % len(x.shape)
    c.announce(1, 2)
    out = norm.layer_norm(
        c.t, c.t.view(x, *x.shape[:axis], prod(x.shape[axis:])), affine=c.given(1), bias=c.given(2)
    )
    return [c.t.view(out, *x.shape)]


def group_norm_op(c: Call):
    """GroupNormalization or InstanceNormalization, the latter a group a channel."""
    x = c.value(0)
    affine = not isinstance(c.ins[1], np.ndarray) and not (
        isinstance(c.ins[1], Stored) and MADE.match(c.ins[1].name)
    )
    c.announce(*((1, 2) if affine else ()))
    return norm.group_norm(c.t, x, c.attributes.get("num_groups", x.shape[1]), affine=affine)


def rms_norm_op(c: Call):
    """RMSNormalization over the last axis."""
    c.announce(1)
    return [norm.rms_norm(c.t, c.value(0), flavor="torch")]


# ------------------------------------------------------------------ the rest
def reduced(c: Call):
    """ReduceSum, ReduceMean, ReduceMax .., ArgMax: over some axes, kept with length one or
    dropped.
    """
    x = c.value(0)
    axes, keep = axes_of(c, len(x.shape)), c.attributes.get("keepdims", 1)
    if c.node.op_type.startswith("Arg"):
        axes = [c.attributes.get("axis", 0) % len(x.shape)]
    if axes is None and c.attributes.get("noop_with_empty_axes"):
        return x
    axes = range(len(x.shape)) if axes is None else axes
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
    index = c.node.op_type.startswith("Arg")
    out = c.t.new(shape, "int64" if index else x.dtype, x.grad and not index)
    c.t.emit("reduce", (x,), (out,), vector=x.size)
    if out.grad:
        if c.node.op_type not in ("ReduceSum", "ReduceMean"):
            c.t.save(x)
        c.t.backward("elementwise", vector=x.size, read=out.bytes, written=x.bytes, product=x.dtype)
    return out


def pool_op(kind: str):
    """The handler of MaxPool or AveragePool."""

    def handler(c: Call):
        kernel = c.attributes["kernel_shape"]
        x, stride, _, padding = window(c, c.value(0), kernel)
        return [
            conv.pool(
                c.t,
                x,
                kind,
                kernel,
                stride=stride,
                padding=padding,
                ceil=bool(c.attributes.get("ceil_mode")),
                dims=len(kernel),
            )
        ]

    return handler


def global_pool_op(kind: str):
    """The handler of GlobalMaxPool or GlobalAveragePool."""
    return lambda c: conv.adaptive_pool(c.t, c.value(0), kind, 1)


def resize_op(c: Call):
    """Resize to given sizes or by given scales."""
    x = c.value(0)
    sizes = c.numbers(3) if c.given(3) else None
    scales = None
    if sizes is None:
        place = 2 if c.given(2) else 1
        scales = c.numbers(place) if c.given(place) else c.attributes["scales"]
    shape = (
        [int(n) for n in sizes]
        if sizes is not None
        else [int(n * s) for n, s in zip(x.shape, scales, strict=True)]
    )
    return conv.resize(
        c.t,
        x,
        tuple(shape[2:]),
        kind="nearest" if c.attributes.get("mode", b"nearest") == b"nearest" else "linear",
    )


def gather_op(c: Call):
    """Gather: an embedding where rows of a learned table are looked up, else a copy of what is
    chosen.
    """
    axis = c.attributes.get("axis", 0)
    table, index = c.ins[0], c.ins[1]
    if isinstance(table, Stored) and table.floating and len(table.shape) == 2 and axis == 0:
        return embedding.embedding(c.t, c.value(1), *table.shape, weight=c.value(0))
    x, i = c.value(0), c.value(1)
    axis %= len(x.shape)
    shape = (*x.shape[:axis], *i.shape, *x.shape[axis + 1 :])
    if isinstance(index, (np.ndarray, Stored)) and prod(i.shape) == 1:
        return c.t.view(x, *shape)
    out = c.t.new(shape, x.dtype, x.grad)
    moved(c, "gather", [out])
    return out


def indexed_op(c: Call):
    """GatherElements, GatherND: shaped by the indices. Scatter*: shaped by what is written into."""
    x, i = c.value(0), c.value(1)
    op = c.node.op_type
    shape = (
        i.shape
        if op == "GatherElements"
        else (
            x.shape
            if op.startswith("Scatter")
            else (*i.shape[:-1], *x.shape[i.shape[-1] + c.attributes.get("batch_dims", 0) :])
        )
    )
    out = c.t.new(shape, x.dtype, c.grad)
    moved(c, "scatter" if op.startswith("Scatter") else "gather", [out])
    return out


def top_k_op(c: Call):
    """TopK: the largest k along an axis, with their indices."""
    x, k, axis = c.value(0), int(np.ravel(c.numbers(1))[0]), c.attributes.get("axis", -1)
    shape = list(x.shape)
    shape[axis] = k
    outs = [c.t.new(shape, x.dtype, x.grad), c.t.new(shape, "int64")]
    moved(c, "gather", outs)
    return outs


def same_shape(kind: str):
    """The handler of an op whose result has its input's shape, as one kernel of that kind."""

    def handler(c: Call):
        x = c.value(0)
        outs = [c.t.new(x.shape, x.dtype, x.grad)]
        moved(c, kind, outs)
        return outs

    return handler


def layer(cell: str):
    """The handler of RNN, GRU or LSTM: x[steps, batch, features] through one layer, one way or
    both.
    """

    def handler(c: Call):
        x, hidden = c.value(0), c.attributes["hidden_size"]
        if not c.attributes.get("layout"):
            x = c.t.view(x, x.shape[1], x.shape[0], x.shape[2])
        both = c.attributes.get("direction", b"forward") == b"bidirectional"
        if isinstance(c.ins[1], Value):  # put together by the graph: counted where its parts are
            c.announce(*(1, 3, 2, 3) * (2 if both else 1))
        out, last = recurrent.recurrent(c.t, x, hidden, cell=cell, both_ways=both)
        batch, steps, ways = x.shape[0], x.shape[1], 2 if both else 1
        states = (
            c.t.view(out, batch, steps, ways, hidden)
            if c.attributes.get("layout")
            else c.t.view(out, steps, ways, batch, hidden)
        )
        final = c.t.view(last, ways, batch, hidden)
        return [states, final, final]

    return handler


def attended(c: Call):
    """Attention of q, k and v, in heads or flat."""
    q, k, v = (c.value(i) for i in range(3))
    flat = len(q.shape) == 3
    if flat:
        heads, groups = c.attributes["q_num_heads"], c.attributes["kv_num_heads"]
        q, k, v = (
            c.t.view(x, x.shape[0], n, x.shape[1], x.shape[2] // n)
            for x, n in ((q, heads), (k, groups), (v, groups))
        )
    mask = c.value(3) if c.given(3) else None
    out = attention.attention(c.t, q, k, v, causal=bool(c.attributes.get("is_causal")), mask=mask)
    return [out if flat else c.t.view(out, q.shape[0], q.shape[1], q.shape[2], v.shape[3])]


def cross_entropy_op(c: Call):
    """SoftmaxCrossEntropyLoss of scores and labels."""
    return [loss.cross_entropy(c.t, c.value(0), c.value(1))]


def stored_integers(c: Call):
    """DequantizeLinear: weights held in few bits, used in the step's format."""
    x = c.ins[0]
    if isinstance(x, Stored):
        return c.t.tape.parameter(*x.shape, tied=x.name)
    return pointwise.copy(c.t, x, dtype=c.t.precision.activations)
