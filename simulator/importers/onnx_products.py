"""ONNX operators that are matrix products or convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Stored, quoted
from roofcast.simulator.work.ops import conv, linear, pointwise
from roofcast.simulator.work.tape import Value


def _dense(c: Call, x: Value, w: Value, out_features: int, bias: int | None) -> Value:
    """x[.., in] times the weight w, plus input number `bias` if there is one."""
    if bias is not None:
        c.announce(bias)
    return linear.linear(c.t, x, out_features, bias=bias is not None, weight=w)


def matmul_op(c: Call) -> Value:
    """MatMul: a linear layer if the right operand is a learned matrix, else a batched product."""
    return times(c, c.value(0), c.value(1))


def biased_op(c: Call) -> Value:
    """A product of x and a weight, with a bias that may be left out in its kernel."""
    return times(c, c.value(0), c.value(1), 2 if c.given(2) else None)


def times(c: Call, a: Value, b: Value, bias: int | None = None) -> Value:
    """a[.., m, k] times b[.., k, n], plus input number `bias`; vectors and batches as in numpy."""
    left, right = a.shape, b.shape
    if not left or not right:
        raise BadInput(f"{list(left)} times {list(right)}: a number is no matrix")
    inner = right[0] if len(right) == 1 else right[-2]
    if left[-1] != inner:
        raise BadInput(f"{list(left)} times {list(right)}: {left[-1]} and {inner} differ")
    if len(right) == 2 and b.kind == "parameter" and a.size:
        return _dense(c, a, b, right[1], bias)
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    m, n = (left[-2] if len(left) > 1 else 1), (right[-1] if len(right) > 1 else 1)
    shape = (*batch, *((m,) if len(left) > 1 else ()), *((n,) if len(right) > 1 else ()))
    if not prod(shape) or not inner:
        return c.t.new(shape, a.dtype, a.grad or b.grad)
    out = linear.matmul(c.t, c.t.view(a, *batch, m, inner), c.t.view(b, *right[:-2], inner, n))
    out = c.t.view(out, *shape)
    return out if bias is None else pointwise.add(c.t, out, c.value(bias))


def gemm_op(c: Call) -> Value:
    """Gemm: alpha A B + beta C, with either operand transposed."""
    a, b = c.value(0), c.value(1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise BadInput(f"got {list(a.shape)} and {list(b.shape)}, expected matrices")
    if c.attributes.get("transA"):
        a = c.t.view(a, *a.shape[::-1])
    k, n = b.shape[::-1] if c.attributes.get("transB") else b.shape
    if a.shape[-1] != k:
        raise BadInput(f"got {list(a.shape)}, expected rows of {k}")
    bias = c.ins[2] if c.given(2) else None
    held = isinstance(bias, Stored) or (isinstance(bias, Value) and bias.kind == "parameter")
    if b.kind == "parameter" and a.size and (bias is None or held):
        return _dense(c, a, b, n, 2 if c.given(2) else None)
    out = linear.matmul(c.t, a, c.t.view(b, k, n))
    return pointwise.add(c.t, out, c.value(2)) if c.given(2) else out


DOTS = "αβγδεζηθ"  # axes that an equation writes as dots


def einsum_op(c: Call) -> Value:
    """Einsum: of several operands, from the left, each a batched product with the next."""
    equation = c.text("equation").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms, values = left.split(","), c.values()
    if len(terms) != len(values):
        raise BadInput(
            f"einsum {quoted(equation)}: {len(terms)} operands, but {len(values)} are given"
        )
    dots = [len(v.shape) - len(s.replace("...", "")) for s, v in zip(terms, values, strict=True)]
    most = max((d for d, s in zip(dots, terms, strict=True) if "..." in s), default=0)
    if not 0 <= most <= len(DOTS):
        raise BadInput(f"einsum {quoted(equation)}: an operand has too few or too many axes")
    terms = [
        s.replace("...", DOTS[most - d : most] if d else "")
        for s, d in zip(terms, dots, strict=True)
    ]
    if not arrow:
        found = "".join(terms)
        result = "..." + "".join(sorted(x for x in set(found) - set(DOTS) if found.count(x) == 1))
    result = result.replace("...", DOTS[:most])
    for s, v in zip(terms, values, strict=True):
        if len(s) != len(v.shape):
            raise BadInput(f"einsum {quoted(equation)}: an operand has {len(v.shape)} axes")
    first, a = terms[0], values[0]
    for place, (second, b) in enumerate(zip(terms[1:], values[1:], strict=True)):
        later = "".join(terms[place + 2 :]) + result
        kept = "".join(dict.fromkeys(x for x in first + second if x in later))
        a = _einsum(c, first, second, kept, a, b)
        first = kept
    if first == result:
        return a
    size = dict(zip(first, a.shape, strict=True))
    if any(x not in size for x in result):
        raise BadInput(f"einsum {quoted(equation)}: its result has an axis that no operand has")
    shape = [size[x] for x in result]
    if prod(shape) == a.size:
        return c.t.view(a, *shape)
    out = c.t.new(shape, a.dtype, a.grad)
    c.t.emit("reduce", (a,), (out,), vector=a.size)
    return out


def _einsum(c: Call, first: str, second: str, result: str, a: Value, b: Value) -> Value:
    """The product of two operands, summed over the axes that are not in `result`."""
    size = dict(zip(first, a.shape, strict=True))
    for x, n in zip(second, b.shape, strict=True):
        size[x] = max(size.get(x, 1), n)
    shared = set(first) & set(second)

    def over(letters: Iterable[str]) -> int:
        return prod(size[x] for x in letters)

    batch, inner = over(shared & set(result)), over(shared - set(result))
    rows = over(x for x in first if x not in shared)
    columns = over(x for x in second if x not in shared)
    if not batch * rows * inner * columns:
        return c.t.new([size[x] for x in result], a.dtype, a.grad or b.grad)
    out = linear.matmul(c.t, c.t.view(a, batch, rows, inner), c.t.view(b, batch, inner, columns))
    shape = [size[x] for x in result]
    if prod(shape) == out.size:
        return c.t.view(out, *shape)
    summed = c.t.new(shape, out.dtype, out.grad)  # an axis of one operand alone
    c.t.emit("reduce", (out,), (summed,), vector=out.size)
    return summed


class Window(NamedTuple):
    """Where a sliding window of a convolution or a pool stops."""

    x: Value  # the input, padded already if the padding is uneven
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]  # on either side of each axis


def window(c: Call, x: Value, kernel: Sequence[int]) -> Window:
    """The window of an op on x[batch, channels, ..space], from its attributes."""
    dims, space = len(kernel), x.shape[2:]
    stride, dilation = (tuple(c.attributes.get(k, [1] * dims)) for k in ("strides", "dilations"))
    if len(space) != dims or len(stride) != dims or len(dilation) != dims:
        raise BadInput(f"a window of {list(kernel)[:8]} over an input {list(x.shape)[:8]}")
    if min((*kernel, *stride, *dilation)) < 1:
        raise BadInput("a window, its strides and dilations must be 1 or more")
    pads, auto = c.attributes.get("pads", [0] * 2 * dims), c.attributes.get("auto_pad", b"NOTSET")
    if auto.startswith(b"SAME"):
        sizes = zip(space, kernel, stride, dilation, strict=True)
        total = [conv.same_padding(n, k, s, d) for n, k, s, d in sizes]
        pads = [n // 2 for n in total] + [n - n // 2 for n in total]
    before, after = pads[:dims], pads[dims:]
    if before == after:
        return Window(x, stride, dilation, tuple(before))
    grown = [n + a + b for n, a, b in zip(space, before, after, strict=True)]
    return Window(c.t.view(x, *x.shape[:2], *grown), stride, dilation, (0,) * dims)


def conv_op(c: Call) -> Value:
    """Conv of x[batch, channels, ..space] over any number of space axes."""
    x, w = c.value(0), c.value(1)
    kernel = w.shape[2:]
    groups = c.attributes.get("group", 1)
    if len(x.shape) != len(w.shape) or not kernel:
        raise BadInput(
            f"got {list(x.shape)} and weights {list(w.shape)}, expected as many axes, from 3 on"
        )
    if x.shape[1] != w.shape[1] * groups:
        raise BadInput(f"got {x.shape[1]} channels, expected {w.shape[1] * groups}")
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


def conv_transpose_op(c: Call) -> Value:
    """ConvTranspose of x[batch, channels, ..space]."""
    x, w = c.value(0), c.ins[1]
    if w is None:
        raise ValueError("the weight is missing")
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
