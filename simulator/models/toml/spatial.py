"""Kinds of layer for images and signals: convolutions, pooling, interpolation."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.simulator.models.toml.keys import (
    AdaptivePool,
    Conv,
    ConvTranspose,
    Depthwise,
    Keys,
    Pool,
    Sizes,
    Upsample,
)
from roofcast.simulator.models.toml.kind import Run, register, shape_text
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value

Lengths = tuple[int, ...]


def _each(value: Sizes, x: Value, key: str) -> Lengths:
    """The size `value` in every spatial dimension of x; `key` is for the message."""
    dims = len(x.shape) - 2
    if isinstance(value, tuple) and len(value) != dims:
        raise BadInput(
            f"{key} has {number_of(len(value), 'number')}, but the input is {shape_text(x.shape)};"
            f" wanted one number or {dims}"
        )
    return conv.spread(value, dims)


def _padded(
    t: Tape, x: Value, padding: Sizes | str, kernel: Lengths, stride: Lengths, dilation: Lengths
) -> tuple[Value, Lengths]:
    """x and the padding at each end.

    "same" keeps ceil(length / stride) positions. Where that takes an odd number of zeros, the extra
    one is added by a copy, as in PyTorch and TensorFlow.
    """
    if padding == "valid":
        return x, (0,) * len(kernel)
    if not isinstance(padding, str):
        return x, _each(padding, x, "padding")
    zeros = [conv.same_padding(*a) for a in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    if any(n % 2 for n in zeros):
        lengths = (n + z % 2 for n, z in zip(x.shape[2:], zeros, strict=True))
        x = pointwise.copy(t, x, *x.shape[:2], *lengths)
    return x, tuple(z // 2 for z in zeros)


@register("conv", Conv, "Convolution in one, two or three dimensions.", "space")
def _conv(t: Tape, x: Value, o: Conv) -> Value:
    kernel, stride = _each(o.kernel, x, "kernel"), _each(o.stride, x, "stride")
    dilation = _each(o.dilation, x, "dilation")
    x, padding = _padded(t, x, o.padding, kernel, stride, dilation)
    return conv.conv(
        t,
        x,
        o.channels,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=o.groups,
        bias=o.bias,
        dims=len(kernel),
    )


def _conv_in(dims: int) -> Run:
    """A convolution that takes exactly `dims` spatial dimensions."""

    def run(t: Tape, x: Value, o: Conv) -> Value:
        if len(x.shape) != dims + 2:
            raise BadInput(
                f"conv{dims}d takes channels and {dims} lengths, but the input is"
                f" {shape_text(x.shape)}; use conv{len(x.shape) - 2}d, or conv for any"
            )
        return _conv(t, x, o)

    return run


for _dims in (1, 2, 3):
    register(f"conv{_dims}d", Conv, f"Convolution in {_dims}-D.", "space", op="conv")(
        _conv_in(_dims)
    )


@register("depthwise", Depthwise, "Convolution of each channel separately.", "space", op="conv")
def _depthwise(t: Tape, x: Value, o: Depthwise) -> Value:
    groups = x.shape[1]
    return _conv(
        t,
        x,
        Conv(
            channels=groups * o.multiplier,
            kernel=o.kernel,
            stride=o.stride,
            padding=o.padding,
            dilation=o.dilation,
            groups=groups,
            bias=o.bias,
        ),
    )


@register("conv_transpose", ConvTranspose, "Transposed convolution.", "space")
def _conv_transpose(t: Tape, x: Value, o: ConvTranspose) -> Value:
    kernel, stride = _each(o.kernel, x, "kernel"), _each(o.stride, x, "stride")
    padding, extra = _each(o.padding, x, "padding"), _each(o.output_padding, x, "output_padding")
    if any(e and e >= s for e, s in zip(extra, stride, strict=True)):
        raise BadInput(
            f"output_padding {list(extra)} must be smaller than the stride {list(stride)}"
        )
    return conv.conv_transpose(
        t,
        x,
        o.channels,
        kernel,
        stride=stride,
        padding=padding,
        output_padding=extra,
        groups=o.groups,
        bias=o.bias,
        dims=len(kernel),
    )


def _pool(which: str) -> Run:
    """Pooling by "max" or "avg"."""

    def run(t: Tape, x: Value, o: Pool) -> Value:
        kernel = _each(o.kernel, x, "kernel")
        stride = kernel if o.stride is None else _each(o.stride, x, "stride")
        dims = len(kernel)
        x, padding = _padded(t, x, o.padding, kernel, stride, (1,) * dims)
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise BadInput(f"padding {list(padding)} exceeds half of the window {list(kernel)}")
        return conv.pool(
            t, x, which, kernel, stride=stride, padding=padding, ceil=o.ceil, dims=dims
        )

    return run


def _adaptive_pool(which: str) -> Run:
    def run(t: Tape, x: Value, o: AdaptivePool) -> Value:
        return conv.adaptive_pool(t, x, which, _each(o.size, x, "size"))

    return run


def _global_pool(which: str) -> Run:
    def run(t: Tape, x: Value, o: Keys) -> Value:
        return t.view(conv.adaptive_pool(t, x, which, 1), *x.shape[:2])

    return run


for _which, _word in (("max", "Maximum"), ("avg", "Mean")):
    register(f"{_which}_pool", Pool, f"{_word} of each window.", "space")(_pool(_which))
    register(
        f"adaptive_{_which}_pool", AdaptivePool, f"{_word}, to an output of given size.", "space"
    )(_adaptive_pool(_which))
    register(f"global_{_which}_pool", Keys, f"{_word} of each channel.", "space", gives="features")(
        _global_pool(_which)
    )


@register("upsample", Upsample, "Interpolation to larger lengths.", "space")
def _upsample(t: Tape, x: Value, o: Upsample) -> Value:
    if o.scale is not None and o.size is None:
        lengths = tuple(n * o.scale for n in x.shape[2:])
    elif o.size is not None and o.scale is None:
        lengths = _each(o.size, x, "size")
    else:
        raise BadInput("give either scale or size")
    return conv.resize(t, x, lengths, kind=o.mode)
