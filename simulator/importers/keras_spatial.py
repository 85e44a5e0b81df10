"""Keras's layers over positions, convolutions and pools, as torch modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from roofcast.simulator.importers.keras_plain import Plain
from roofcast.simulator.importers.torch_extra import F, torch

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _first(x: torch.Tensor) -> torch.Tensor:
    """Channels from the last place to the second: a view."""
    return x.movedim(-1, 1)


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


def same(length: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after [positions] that keep ceil(length / stride) positions.

    >>> same(28, 3, 1, 1), same(28, 3, 2, 1), same(28, 2, 2, 1)
    ((1, 1), (0, 1), (0, 0))
    """
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(length / stride) - 1) * stride + reach - length, 0)
    return total // 2, total - total // 2


def _padded(layer: Any, x: torch.Tensor, dilation: Sequence[int]) -> tuple[Any, Sequence[int]]:
    """x [B, C, ...] with the zeros that a convolution cannot add by itself, and those it can."""
    rank = x.dim() - 2
    if layer.padding == "valid":
        return x, [0] * rank
    sizes = zip(x.shape[2:], layer.kernel_size, layer.strides, dilation, strict=True)
    ends = [same(*each) for each in sizes]
    if layer.padding == "causal":
        ends = [((k - 1) * d, 0) for k, d in zip(layer.kernel_size, dilation, strict=True)]
    if all(before == after for before, after in ends):
        return x, [before for before, _ in ends]
    return F.pad(x, [n for pair in reversed(ends) for n in pair]), [0] * rank


class _Spatial(Plain):
    """A layer over positions, in either order of the axes."""

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """x and the result in Keras's order of the axes."""
        last = self.layer.data_format == "channels_last"
        out = self.over(_first(x) if last else x)
        return _last(out) if last else out

    def over(self, x: torch.Tensor) -> torch.Tensor:
        """The layer on [B, C, ...]."""
        raise NotImplementedError


class Conv(_Spatial):
    """Conv1D, Conv2D, Conv3D."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        *window, c_in, c_out = layer.kernel.shape
        self.weight("kernel", c_out, c_in, *window)
        if layer.use_bias:
            self.weight("bias", c_out)

    def over(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] convolved."""
        k, dilation = self.layer, self.layer.dilation_rate
        x, zeros = _padded(k, x, dilation)
        bias = getattr(self, "bias", None)
        return CONV[len(zeros)](x, self.kernel, bias, k.strides, zeros, dilation, k.groups)


class DepthwiseConv(_Spatial):
    """DepthwiseConv1D, DepthwiseConv2D: each channel by itself."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        *window, channels, multiplier = layer.kernel.shape
        self.channels = channels
        self.weight("kernel", channels * multiplier, 1, *window)
        if layer.use_bias:
            self.weight("bias", channels * multiplier)

    def over(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] convolved."""
        k, dilation = self.layer, self.layer.dilation_rate
        x, zeros = _padded(k, x, dilation)
        bias = getattr(self, "bias", None)
        return CONV[len(zeros)](x, self.kernel, bias, k.strides, zeros, dilation, self.channels)


class SeparableConv(_Spatial):
    """SeparableConv1D, SeparableConv2D: depthwise, then a product over the channels."""

    depthwise: torch.Tensor
    pointwise: torch.Tensor

    def __init__(self, layer: Any):
        super().__init__(layer)
        *window, channels, multiplier = layer.depthwise_kernel.shape
        c_out = layer.pointwise_kernel.shape[-1]
        self.channels = channels
        self.weight("depthwise", channels * multiplier, 1, *window)
        self.weight("pointwise", c_out, channels * multiplier, *[1] * len(window))
        if layer.use_bias:
            self.weight("bias", c_out)

    def over(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] convolved twice."""
        k, dilation = self.layer, self.layer.dilation_rate
        x, zeros = _padded(k, x, dilation)
        conv = CONV[len(zeros)]
        x = conv(x, self.depthwise, None, k.strides, zeros, dilation, self.channels)
        return conv(x, self.pointwise, getattr(self, "bias", None))


class ConvTranspose(_Spatial):
    """Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        *window, c_out, c_in = layer.kernel.shape
        self.weight("kernel", c_in, c_out, *window)
        if layer.use_bias:
            self.weight("bias", c_out)

    def over(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] to as many positions as Keras gives."""
        k = self.layer
        shape = k.compute_output_shape(self._outer(x.shape))
        wanted = shape[2:] if k.data_format == "channels_first" else shape[1:-1]
        rank = x.dim() - 2
        sizes = zip(wanted, x.shape[2:], k.kernel_size, k.strides, k.dilation_rate, strict=True)
        zeros, more = [], []
        for out, n, kernel, stride, dilation in sizes:
            excess = (n - 1) * stride + (kernel - 1) * dilation + 1 - out
            zeros.append(max(-(-excess // 2), 0))
            more.append(2 * zeros[-1] - excess)
        bias = getattr(self, "bias", None)
        call = CONV_TRANSPOSE[rank]
        return call(x, self.kernel, bias, k.strides, zeros, more, 1, k.dilation_rate)

    def _outer(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape [B, C, ...] in Keras's order."""
        batch, channels, *space = shape
        if self.layer.data_format == "channels_first":
            return (batch, channels, *space)
        return (batch, *space, channels)


POOL: dict[tuple[str, int], Callable[..., Any]] = {
    ("Max", 1): F.max_pool1d, ("Max", 2): F.max_pool2d, ("Max", 3): F.max_pool3d,
    ("Average", 1): F.avg_pool1d, ("Average", 2): F.avg_pool2d, ("Average", 3): F.avg_pool3d,
}  # fmt: skip


class Pool(_Spatial):
    """MaxPooling and AveragePooling over one to three axes."""

    def over(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] with fewer positions."""
        k, rank = self.layer, x.dim() - 2
        kind = "Max" if type(k).__name__.startswith("Max") else "Average"
        zeros: Sequence[int] = [0] * rank
        if k.padding == "same":
            sizes = zip(x.shape[2:], k.pool_size, k.strides, strict=True)
            ends = [same(n, window, stride, 1) for n, window, stride in sizes]
            zeros = [before for before, _ in ends]
            if any(before != after for before, after in ends):
                x, zeros = F.pad(x, [n for pair in reversed(ends) for n in pair]), [0] * rank
        return POOL[kind, rank](x, k.pool_size, k.strides, zeros)


class GlobalPool(_Spatial):
    """GlobalMaxPooling and GlobalAveragePooling."""

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """[B, C], or with axes of length 1 kept."""
        last = self.layer.data_format == "channels_last"
        axes = tuple(range(1, x.dim() - 1)) if last else tuple(range(2, x.dim()))
        kept = self.layer.keepdims
        if type(self.layer).__name__.startswith("GlobalMax"):
            return x.amax(axes, keepdim=kept)
        return x.mean(axes, keepdim=kept)
