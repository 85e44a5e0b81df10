"""ONNX operators that are matrix products or convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Stored
from roofcast.simulator.work.ops import conv, linear, pointwise
from roofcast.simulator.work.tape import Value


def _dense(c: Call, x: Value, w: Value, out_features: int, bias: int | None) -> Value:
    """x[.., in] times the weight w, plus input number `bias` if there is one."""
    if bias is not None:
        c.announce(bias)
    return linear.linear(c.t, x, out_features, bias=bias is not None, weight=w)


def matmul_op(c: Call) -> Value:
    """MatMul: a linear layer if the right operand is a learned matrix, else a batched product."""
    a, b = c.value(0), c.value(1)
    if len(b.shape) == 2 and b.kind == "parameter":
        return _dense(c, a, b, b.shape[1], None)
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


def gemm_op(c: Call) -> Value:
    """Gemm: alpha A B + beta C, with either operand transposed."""
    a, b = c.value(0), c.value(1)
    if c.attributes.get("transA"):
        a = c.t.view(a, *a.shape[::-1])
    k, n = b.shape[::-1] if c.attributes.get("transB") else b.shape
    if a.shape[-1] != k:
        raise BadInput(f"got {list(a.shape)}, expected rows of {k}")
    if b.kind == "parameter" and (not c.given(2) or isinstance(c.ins[2], Stored)):
        return _dense(c, a, b, n, 2 if c.given(2) else None)
    out = linear.matmul(c.t, a, c.t.view(b, k, n))
    return pointwise.add(c.t, out, c.value(2)) if c.given(2) else out


def einsum_op(c: Call) -> Value:
    """Einsum of two operands as a batched product."""
    equation = c.attributes["equation"].decode().replace(" ", "")
    left, _, result = equation.partition("->")
    if left.count(",") != 1 or "." in left:
        raise BadInput(f"einsum {equation!r}: expected two operands with named axes")
    first, second = left.split(",")
    a, b = c.value(0), c.value(1)
    size = dict(zip(first, a.shape, strict=True)) | dict(zip(second, b.shape, strict=True))
    result = result or "".join(sorted(x for x in size if left.count(x) == 1))
    shared = set(first) & set(second)

    def over(letters: Iterable[str]) -> int:
        return prod(size[x] for x in letters)

    batch, inner = over(shared & set(result)), over(shared - set(result))
    rows = over(x for x in first if x not in shared)
    columns = over(x for x in second if x not in shared)
    out = linear.matmul(c.t, c.t.view(a, batch, rows, inner), c.t.view(b, batch, inner, columns))
    return c.t.view(out, *(size[x] for x in result))


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
