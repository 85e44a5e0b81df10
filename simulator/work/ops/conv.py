"""Convolutions in one, two or three dimensions, grouped, depthwise, transposed; and what changes a
picture's size.
"""

from __future__ import annotations

from math import prod

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops.linear import narrowed, product_format
from roofcast.simulator.work.tape import Tape, Value

INDEX = 8  # bytes of the position a max-pool remembers


def spread(value, dims: int) -> tuple:
    """3 -> (3, 3): the same number in every dimension."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def out_length(
    n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> int:
    """Positions a window of `kernel` takes on a padded line of n [dumoulin2016].

        floor((n + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

    >>> out_length(224, kernel=7, stride=2, padding=3)
    112
    """
    room = n + 2 * padding - dilation * (kernel - 1) - 1
    steps = -(-room // stride) if ceil else room // stride
    if ceil and steps * stride >= n + padding:  # a window may not start in the padding behind
        steps -= 1
    return steps + 1


def same_padding(n: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Zeros to add in all so that ceil(n / stride) positions come out, as TensorFlow pads.

    >>> same_padding(224, 3, 2)
    1
    """
    return max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)


def _check(x: Value, space: tuple, dims: int, what: str):
    if len(x.shape) != dims + 2:
        raise BadInput(
            f"{what} wants [batch, channels, {'x '.join(['length'] * dims)}], got {list(x.shape)}"
        )
    if min(space) < 1:
        raise BadInput(
            f"{what} leaves nothing of {list(x.shape[2:])}: use a smaller window or more padding"
        )


def conv(
    t: Tape,
    x: Value,
    channels: int,
    kernel,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
    bias: bool | Value = True,
    dims: int = 2,
    weight: Value | None = None,
) -> Value:
    """y[B, out, ...] = x[B, in, ...] * w[out, in / groups, kernel ...] + b. A `weight` or `bias`
    may be given, as where layers share it.

    forward   2 B |y space| out (in / groups) |kernel| FLOPs; keeps x
    backward  dx and dw, the same FLOPs each; dx only where x needs a gradient
    """
    kernel, stride, padding, dilation = (
        spread(v, dims) for v in (kernel, stride, padding, dilation)
    )
    batch, c_in = x.shape[:2]
    if c_in % groups or channels % groups:
        raise BadInput(
            f"convolution from {c_in} to {channels} channels cannot be cut into {groups} groups"
        )
    space = tuple(
        out_length(*a) for a in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    _check(x, space, dims, "convolution")
    w = (
        weight
        if weight is not None
        else t.parameter(channels, c_in // groups, *kernel, dtype=t.precision.matrices)
    )
    b = bias if isinstance(bias, Value) else t.parameter(channels) if bias else None
    x_low, w_low = t.low(x), t.low(w)
    ins = (x_low, w_low, t.low(b)) if bias else (x_low, w_low)
    out = t.new((batch, channels, *space), x_low.dtype, x.grad or w.grad)
    flops = 2 * batch * prod(space) * channels * (c_in // groups) * prod(kernel)
    _conv_kernels(
        t,
        x,
        x_low,
        w,
        w_low,
        ins,
        out,
        flops,
        (batch, c_in, channels, prod(x.shape[2:]), prod(space), prod(kernel), prod(stride), groups),
    )
    return out


def _conv_kernels(t, x, x_low, w, w_low, ins, out, flops, shape):
    product = product_format(t, x_low)
    narrowed(t, x_low, out, product)
    kind = "depthwise" if shape[7] > 1 and shape[7] == shape[1] else "conv"
    t.emit(kind, ins, (out,), matrix=flops, product=product, shape=("forward", *shape))
    if not out.grad:
        return
    t.save(x_low)
    if x.grad:
        t.save(w_low)
        t.backward(
            kind,
            matrix=flops,
            read=out.bytes + w_low.bytes,
            written=x_low.bytes,
            product=product,
            shape=("dgrad", *shape),
        )
    if w.grad:
        t.save(w_low)
        t.backward(
            kind,
            matrix=flops,
            read=out.bytes + x_low.bytes,
            written=w_low.bytes,
            product=product,
            shape=("wgrad", *shape),
        )
        if len(ins) == 3:
            t.backward(
                "reduce", vector=out.size, read=out.bytes, written=ins[2].bytes, product=out.dtype
            )


def conv_transpose(
    t: Tape,
    x: Value,
    channels: int,
    kernel,
    *,
    stride=1,
    padding=0,
    output_padding=0,
    groups: int = 1,
    bias: bool = True,
    dims: int = 2,
) -> Value:
    """The adjoint of a convolution: each input position is spread over |kernel| outputs.

    space     (n - 1) stride - 2 padding + kernel + output_padding
    FLOPs     2 B |x space| in (out / groups) |kernel|, forward, dx and dw alike
    """
    kernel, stride, padding, extra = (
        spread(v, dims) for v in (kernel, stride, padding, output_padding)
    )
    batch, c_in = x.shape[:2]
    if c_in % groups or channels % groups:
        raise BadInput(
            f"convolution from {c_in} to {channels} channels cannot be cut into {groups} groups"
        )
    space = tuple(
        (n - 1) * s - 2 * p + k + e
        for n, k, s, p, e in zip(x.shape[2:], kernel, stride, padding, extra, strict=True)
    )
    _check(x, space, dims, "transposed convolution")
    w = t.parameter(c_in, channels // groups, *kernel)
    b = t.parameter(channels) if bias else None
    x_low, w_low = t.low(x), t.low(w)
    ins = (x_low, w_low, t.low(b)) if bias else (x_low, w_low)
    out = t.new((batch, channels, *space), x_low.dtype, x.grad or w.grad)
    flops = 2 * batch * prod(x.shape[2:]) * c_in * (channels // groups) * prod(kernel)
    _conv_kernels(
        t,
        x,
        x_low,
        w,
        w_low,
        ins,
        out,
        flops,
        (batch, channels, c_in, prod(space), prod(x.shape[2:]), prod(kernel), prod(stride), groups),
    )
    return out


def pool(
    t: Tape,
    x: Value,
    kind: str,
    kernel,
    *,
    stride=None,
    padding=0,
    ceil: bool = False,
    dims: int = 2,
) -> Value:
    """Max or average over windows. Max keeps its input and the position of each maximum, average
    its input.
    """
    kernel = spread(kernel, dims)
    stride, padding = spread(kernel if stride is None else stride, dims), spread(padding, dims)
    space = tuple(
        out_length(n, k, s, p, 1, ceil)
        for n, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True)
    )
    _check(x, space, dims, f"{kind} pooling")
    return _pooled(t, x, kind, (*x.shape[:2], *space), prod(kernel))


def adaptive_pool(t: Tape, x: Value, kind: str, space) -> Value:
    """Pool to a given size. Average to size one is a mean: nothing is kept."""
    space = spread(space, len(x.shape) - 2)
    if kind == "avg" and prod(space) == 1:
        out = t.new((*x.shape[:2], *space), x.dtype, x.grad)
        t.emit("reduce", (x,), (out,), vector=x.size)
        if out.grad:
            t.backward(
                "elementwise", vector=x.size, read=out.bytes, written=x.bytes, product=x.dtype
            )
        return out
    return _pooled(t, x, kind, (*x.shape[:2], *space), -(-prod(x.shape[2:]) // prod(space)))


def _pooled(t, x, kind, shape, window):
    out = t.new(shape, x.dtype, x.grad)
    indices = INDEX * out.size if kind == "max" and t.training else 0
    t.emit("pool", (x,), (out,), vector=window * out.size, written=out.bytes + indices)
    if out.grad:
        t.save(x)
        t.keep(indices)
        t.backward(
            "pool",
            vector=window * out.size,
            read=out.bytes + (indices or x.bytes),
            written=x.bytes,
            product=x.dtype,
        )
    return out


def resize(t: Tape, x: Value, space, *, kind: str = "nearest") -> Value:
    """Interpolate [B, C, ...] to another size: nearest, or linear in each dimension. Nothing is
    kept.
    """
    out = t.new((*x.shape[:2], *spread(space, len(x.shape) - 2)), x.dtype, x.grad)
    t.emit("elementwise", (x,), (out,), vector=(1 if kind == "nearest" else 8) * out.size)
    if out.grad:
        t.backward(
            "elementwise",
            vector=(1 if kind == "nearest" else 8) * out.size,
            read=out.bytes,
            written=x.bytes,
            product=x.dtype,
        )
    return out
