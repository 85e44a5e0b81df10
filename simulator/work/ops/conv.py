"""Convolutions in one to three dimensions, grouped, depthwise, transposed; pooling and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops.linear import narrowed, product_format
from roofcast.simulator.work.tape import Tape, Value

INDEX = 8  # bytes per position that max pooling keeps

Extent = int | Sequence[int]  # one number for every dimension of space, or one per dimension


def spread(value: Extent, dims: int) -> tuple[int, ...]:
    """One number per dimension of space: 3 -> (3, 3)."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * dims


def out_length(
    n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> int:
    """Number of positions of a window of `kernel` on a padded line of length n [dumoulin2016].

        floor((n + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

    >>> out_length(224, kernel=7, stride=2, padding=3)
    112
    """
    room = n + 2 * padding - dilation * (kernel - 1) - 1
    steps = -(-room // stride) if ceil else room // stride
    if ceil and steps * stride >= n + padding:  # no window starts in the padding at the end
        steps -= 1
    return steps + 1


def same_padding(n: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Total zeros to add for ceil(n / stride) positions, as TensorFlow pads.

    >>> same_padding(224, 3, 2)
    1
    """
    return max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)


def _check_space(x: Value, space: tuple[int, ...], dims: int, what: str) -> None:
    if len(x.shape) != dims + 2:
        axes = ", ".join(["batch", "channels", *["length"] * dims])
        raise BadInput(f"{what}: input must be [{axes}], got {list(x.shape)}")
    if min(space) < 1:
        raise BadInput(
            f"{what}: output of input {list(x.shape[2:])} is empty; use a smaller window or more"
            " padding"
        )


def _check_groups(c_in: int, c_out: int, groups: int) -> None:
    if c_in % groups or c_out % groups:
        raise BadInput(
            f"convolution from {c_in} to {c_out} channels: both must be divisible by groups"
            f" ({groups})"
        )


def conv(
    t: Tape,
    x: Value,
    channels: int,
    kernel: Extent,
    *,
    stride: Extent = 1,
    padding: Extent = 0,
    dilation: Extent = 1,
    groups: int = 1,
    bias: bool | Value = True,
    dims: int = 2,
    weight: Value | None = None,
) -> Value:
    """y[B, out, ...] = x[B, in, ...] * w[out, in / groups, kernel ...] + b.

    forward   2 B |y space| out (in / groups) |kernel| FLOPs; keeps x
    backward  dx and dw, the same FLOPs each; dx only if x needs a gradient

    `weight` and `bias` may be values that several layers share. Raises BadInput if the shapes do
    not fit.
    """
    kernel, stride, padding, dilation = (
        spread(v, dims) for v in (kernel, stride, padding, dilation)
    )
    batch, c_in = x.shape[:2]
    _check_groups(c_in, channels, groups)
    space = tuple(
        out_length(*a) for a in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    _check_space(x, space, dims, "convolution")
    w = weight
    if w is None:
        w = t.parameter(channels, c_in // groups, *kernel, dtype=t.filters)
    b = bias if isinstance(bias, Value) else t.parameter(channels) if bias else None
    sizes = prod(x.shape[2:]), prod(space), prod(kernel), prod(stride)
    shape = batch, c_in, channels, *sizes, groups
    flops = 2 * batch * prod(space) * channels * (c_in // groups) * prod(kernel)
    return _conv_kernels(t, x, w, b, (batch, channels, *space), flops, shape)


IMAGES = 4  # dimensions of a batch of images


def _conv_kernels(
    t: Tape,
    x: Value,
    w: Value,
    b: Value | None,
    out_shape: tuple[int, ...],
    flops: float,
    shape: tuple[int, ...],
) -> Value:
    """Kernels of a convolution or its adjoint; `shape` as the time formula takes it.

    A quantized convolution reads and writes activations in the format of its product.
    """
    x_low, w_low = t.low(x), t.low(w)
    b_low = None if b is None else t.low(b)
    product = product_format(t, t.wide(x_low.dtype), w)
    out = t.new(out_shape, product if t.quantized(w) else t.wide(x_low.dtype), x.grad or w.grad)
    if t.inputs_need_grad and x.kind == "input" and len(x.shape) == IMAGES:
        out.grad = True  # as that of embedded tokens, for checkpoints
    operand = narrowed(t, x_low, out, product)
    ins = (operand, w_low) if b_low is None else (operand, w_low, b_low)
    _, c_in, *_, groups = shape
    kind = "depthwise" if groups > 1 and groups == c_in else "conv"

    def back(which: str, read: Value, gradient: Value) -> None:
        """The convolution of dy and `read`, which is kept; writes the gradient of `gradient`."""
        t.save(read)
        t.backward(
            kind,
            matrix=flops,
            read=out.bytes + read.bytes,
            written=gradient.bytes,
            product=product,
            shape=(which, *shape),
        )

    t.emit(kind, ins, (out,), matrix=flops, product=product, shape=("forward", *shape))
    if not (x.grad or w.grad):
        return out
    t.save(x_low)
    if x.grad:
        back("dgrad", w_low, x_low)
    if w.grad:
        t.save(w_low)  # PyTorch keeps both operands
        back("wgrad", x_low, w_low)
        if b_low is not None:
            reduced, dtype = b_low.bytes, out.dtype
            t.backward("reduce", vector=out.size, read=out.bytes, written=reduced, product=dtype)
    return out


def conv_transpose(
    t: Tape,
    x: Value,
    channels: int,
    kernel: Extent,
    *,
    stride: Extent = 1,
    padding: Extent = 0,
    output_padding: Extent = 0,
    groups: int = 1,
    bias: bool = True,
    dims: int = 2,
) -> Value:
    """The adjoint of a convolution: each position of x[B, in, ...] contributes to |kernel| outputs.

    space     (n - 1) stride - 2 padding + kernel + output_padding
    FLOPs     2 B |x space| in (out / groups) |kernel| for each of forward, dx and dw

    Raises BadInput if the shapes do not fit.
    """
    kernel, stride, padding, extra = (
        spread(v, dims) for v in (kernel, stride, padding, output_padding)
    )
    batch, c_in = x.shape[:2]
    _check_groups(c_in, channels, groups)
    space = tuple(
        (n - 1) * s - 2 * p + k + e
        for n, k, s, p, e in zip(x.shape[2:], kernel, stride, padding, extra, strict=True)
    )
    _check_space(x, space, dims, "transposed convolution")
    w = t.parameter(c_in, channels // groups, *kernel, dtype=t.filters)
    b = t.parameter(channels) if bias else None
    sizes = prod(space), prod(x.shape[2:]), prod(kernel), prod(stride)
    shape = batch, channels, c_in, *sizes, groups
    flops = 2 * batch * prod(x.shape[2:]) * c_in * (channels // groups) * prod(kernel)
    return _conv_kernels(t, x, w, b, (batch, channels, *space), flops, shape)


def pool(
    t: Tape,
    x: Value,
    kind: str,
    kernel: Extent,
    *,
    stride: Extent | None = None,
    padding: Extent = 0,
    ceil: bool = False,
    dims: int = 2,
) -> Value:
    """Max or average (`kind` "max" or "avg") of x[B, C, ...] over windows.

    Keeps its input, which backward does not read; "max" also keeps the position of each maximum.
    PyTorch writes the positions in inference too (aten/src/ATen/native/Pooling.cpp); compilers do
    not. Raises BadInput if the shapes do not fit.
    """
    kernel = spread(kernel, dims)
    stride, padding = spread(kernel if stride is None else stride, dims), spread(padding, dims)
    space = tuple(
        out_length(n, k, s, p, 1, ceil)
        for n, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True)
    )
    _check_space(x, space, dims, f"{kind} pooling")
    return _pooled(t, x, kind, (*x.shape[:2], *space), prod(kernel))


def adaptive_pool(t: Tape, x: Value, kind: str, space: Extent) -> Value:
    """Pool x[B, C, ...] to the size `space`. An average to size 1 is a mean and keeps nothing."""
    space = spread(space, len(x.shape) - 2)
    if kind == "avg" and prod(space) == 1:
        out = t.new((*x.shape[:2], *space), x.dtype, x.grad)
        t.emit("reduce", (x,), (out,), vector=x.size)
        if out.grad:
            read, written = out.bytes, x.bytes
            t.backward("elementwise", vector=x.size, read=read, written=written, product=x.dtype)
        return out
    return _pooled(t, x, kind, (*x.shape[:2], *space), -(-prod(x.shape[2:]) // prod(space)))


def _pooled(t: Tape, x: Value, kind: str, shape: tuple[int, ...], window: int) -> Value:
    out = t.new(shape, x.dtype, x.grad)
    work = window * out.size
    indices = INDEX * out.size if kind == "max" else 0
    outs = (out, t.new(shape, "int64")) if indices else (out,)
    t.emit("pool", (x,), outs, vector=work)
    if out.grad:
        t.save(x)
        t.keep(indices)
        read = out.bytes + indices
        t.backward("pool", vector=work, read=read, written=x.bytes, product=x.dtype)
    return out


def resize(t: Tape, x: Value, space: Extent, *, kind: str = "nearest") -> Value:
    """Interpolate x[B, C, ...] to another size: "nearest", else linear per axis. Keeps nothing."""
    out = t.new((*x.shape[:2], *spread(space, len(x.shape) - 2)), x.dtype, x.grad)
    work = (1 if kind == "nearest" else 8) * out.size
    t.emit("elementwise", (x,), (out,), vector=work)
    if out.grad:
        t.backward("elementwise", vector=work, read=out.bytes, written=x.bytes, product=x.dtype)
    return out
