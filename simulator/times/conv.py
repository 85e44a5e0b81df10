"""Seconds of convolutions: implicit matrix products, Winograd, grouped and depthwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import summed, systolic, tiled
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.stream import stream

PHASES = ("forward", "input", "weight")
DEPTHWISE = {"forward": "depthwise", "input": "depthwise_input", "weight": "depthwise_weight"}
# edge of a block of outputs -> multiplications saved for a 3x3 filter: 16 for 36, 36 for 144
WINOGRAD = {2.0: 2.25, 4.0: 4.0}
# input channels that a CPU library computes at once, and output channels: a vector of 256 bits, or
# of 512 where a core has two units of that width; read off nets of 1 to 6 channels
CPU_BLOCK = (8.0, 8.0, 16.0)
# input channels of a first layer, whose images oneDNN's AVX-512 kernels read without padding
# (`is_1stconv`: fewer than 16 channels, one group)
CPU_FIRST = 15.0
WIDE = (
    48.0  # fp32 FLOP per clock of a core, from which its vectors are of 512 bits (64), not 256 (32)
)
# channels of an image that TensorRT holds together in int8, padded from 3 (TensorFormat kCHW4,
# TensorRT documentation, Data Format Descriptions); in fp16 it holds 8 (kHWC8)
PACKED = 4.0
TRANSFORMS = 3.0  # kernels beside the product of F(4x4, 3x3): x, w and y are transformed in memory


def conv(
    phase: str,
    batch: ArrayLike,
    c_in: ArrayLike,
    c_out: ArrayLike,
    pixels_in: ArrayLike,
    pixels_out: ArrayLike,
    taps: ArrayLike,
    groups: ArrayLike,
    width_bytes: float,
    rates: Rates,
    c: Kernels,
    unit_stride: ArrayLike = True,
    channels_last: ArrayLike = True,
    traffic: ArrayLike = np.nan,
    stored: ArrayLike | None = None,
) -> np.ndarray:
    """Seconds of one convolution kernel of any dimension. Arguments broadcast.

    phase: "forward", or the gradient of "input" or "weight"; pixels_in, pixels_out: positions of
    one image (height x width); taps: positions of the filter.

        forward  m = batch pixels_out   n = c_out / groups       k = taps c_in / groups
        input    m = batch pixels_in    n = c_in / groups        k = taps c_out / groups
                                                                     x pixels_out / pixels_in
        weight   m = c_out / groups     n = taps c_in / groups   k = batch pixels_out

    It costs as much as that matrix product at a fraction `rate` of its rate, with x, w and y moved
    once, or `traffic` bytes where an epilogue moves others; stored: as in `tiled`. 16-bit NCHW ones
    copy x and y to channels-last and back. fp32 3x3 ones at unit stride run as Winograd [lavin2016]
    where that is faster. With groups: `_grouped`, or a depthwise kernel.
    """
    batch, c_in, c_out, taps = (np.asarray(v, dtype=float) for v in (batch, c_in, c_out, taps))
    pixels_in, pixels_out, groups = (np.asarray(v) for v in (pixels_in, pixels_out, groups))
    images = batch * (pixels_in * c_in + pixels_out * c_out)
    own = width_bytes * (images + taps * c_in * c_out / groups)
    moved = np.where(np.isnan(traffic), own, traffic)
    gi, go = _padded(phase, c_in / groups, c_out / groups, width_bytes, rates)
    m, n, k = batch * pixels_out, go, taps * gi  # forward
    if phase == "input":
        m, n, k = batch * pixels_in, gi, taps * go * pixels_out / pixels_in
    elif phase == "weight":
        m, n, k = go, taps * gi, batch * pixels_out
    share, tf32 = _shares(phase, rates, c)
    dense = _product(m, n, k, moved, taps, width_bytes, share, rates, c, stored=stored)
    if rates.kind == "gpu" and not rates.tensor and np.any(taps == 9.0):
        pixels = pixels_in if phase == "input" else pixels_out
        fast = _winograd(phase, batch, c_in, c_out, pixels, moved, width_bytes, share, rates, c)
        dense = np.where((taps == 9.0) & np.asarray(unit_stride), np.minimum(dense, fast), dense)
    per_group = c_in / groups
    flops = 2.0 * batch * pixels_out * taps * per_group * c_out
    group = _grouped(flops, moved, per_group, tf32, rates, c)
    depth = stream(DEPTHWISE[phase], _widened(width_bytes, rates) * moved, flops, 0.0, rates, c)
    seconds = np.where(groups == 1.0, dense, np.where(per_group == 1.0, depth, group))
    if rates.kind != "gpu" or not rates.tensor or width_bytes != 2.0:
        return seconds
    copies = 2.0 * width_bytes * images / (rates.stream * rates.bandwidth)
    factor = c.conv.transpose if phase == "forward" else c.conv.transpose_backward
    copied = (per_group > 1.0) & ~np.asarray(channels_last)
    return seconds + np.where(copied, factor * copies, 0.0)


def _padded(
    phase: str, c_in: np.ndarray, c_out: np.ndarray, width_bytes: float, rates: Rates
) -> tuple[np.ndarray, np.ndarray]:
    """Input and output channels as they are padded: to 8 in 16-bit formats, to 16 in 8-bit ones of
    GPUs, but for the 4 that hold the channels of an image in int8, on CPUs to whole vectors, but
    for the input channels of a first layer on a measured CPU with vectors of 512 bits.
    """
    pad_in: ArrayLike = 16.0 if width_bytes == 1.0 and rates.kind == "gpu" else 8.0
    pad_out = pad_in
    if rates.kind == "gpu" and rates.format == "int8" and phase == "forward":
        pad_in = np.where(c_in <= PACKED, PACKED, pad_in)
    if not rates.tensor:
        pad_in = pad_out = 1.0
        if rates.kind == "cpu":
            per_clock = rates.matrix * (rates.width / 4.0) / (rates.cores * rates.clock)
            block, narrow, wide = CPU_BLOCK
            plain = (per_clock >= WIDE) & (c_in <= CPU_FIRST) & (phase != "input")
            plain &= bool(rates.measured)  # known to have AVX-512 by its own rate
            pad_in = np.where(plain, 1.0, block)
            pad_out = np.where(per_clock < WIDE, narrow, wide)
    return np.ceil(c_in / pad_in) * pad_in, np.ceil(c_out / pad_out) * pad_out


def _widened(width_bytes: float, rates: Rates) -> float:
    """Bytes on chip per byte of a depthwise convolution: those of CPUs widen 8-bit elements to 32
    bits and then cost per element.
    """
    return 4.0 / width_bytes if rates.kind == "cpu" and width_bytes < 2.0 else 1.0


def _shares(phase: str, rates: Rates, c: Kernels) -> tuple[float, float]:
    """Rate of the implicit product as a fraction of a matrix product's, and what of it is due to
    TF32.
    """
    w = c.conv
    if rates.kind != "gpu":  # fitted with their products; on CPUs in inference
        return (w.vector_backward if rates.kind == "cpu" and phase != "forward" else 1.0), 1.0
    if not rates.tensor:
        return w.rate * w.vector * (1.0 if phase == "forward" else w.vector_backward), 1.0
    tf32 = np.minimum(w.tf32 * rates.fed, 1.0) if rates.width > 2.0 else 1.0
    return w.rate * tf32, tf32


def _grouped(
    flops: np.ndarray,
    moved: np.ndarray,
    per_group: np.ndarray,
    tf32: float,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of a grouped convolution of `per_group` input channels per group: its rate is
    grouped_rate x per_group / (per_group + grouped), in quadrature with its bytes.
    """
    w = c.conv
    rate = tf32 * w.grouped_rate * per_group / (per_group + w.grouped)
    compute = flops / (rate * rates.sustained * rates.matrix)
    return np.hypot(compute, stream("elementwise", moved, 0.0, 0.0, rates, c))


def least_flops(
    flops: ArrayLike,
    taps: ArrayLike,
    groups: ArrayLike,
    rates: Rates,
    unit_stride: ArrayLike = True,
) -> np.ndarray:
    """FLOPs of a convolution by the cheapest method a library may choose, for its lower bound: a
    dense 3x3 filter at unit stride on vector units may run as Winograd.
    """
    fast = (np.asarray(taps) == 9.0) & np.asarray(unit_stride) & (np.asarray(groups) == 1.0)
    return flops / np.where(fast & (not rates.tensor), max(WINOGRAD.values()), 1.0)


def _winograd(
    phase: str,
    batch: np.ndarray,
    c_in: np.ndarray,
    c_out: np.ndarray,
    pixels: np.ndarray,
    moved: np.ndarray,
    width: float,
    share: float,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of a 3x3 convolution at unit stride by the faster of two Winograd kernels
    [lavin2016], images cut into whole blocks.

    F(2x2): one kernel with k / 2.25 multiplications, and `channels` more to transform a block of
    outputs; it runs on the vector units, also where products of the format have matrix units.
    F(4x4): 36 products of blocks x channels at the rate of any product, between transformed x, w
    and y that pass through memory.
    """
    side, w = np.sqrt(pixels), c.conv
    small, large = (batch * np.square(np.ceil(side / edge)) for edge in WINOGRAD)
    filters = width * c_in * c_out
    m, n, k = _product_shape(phase, 4.0 * small, c_in, c_out)
    transformed = w.channels / (batch * pixels if phase == "weight" else k)
    k = (9.0 / WINOGRAD[2.0]) * k * (1.0 + transformed)
    rate = share * w.winograd * np.minimum(rates.vector / rates.matrix, 1.0)
    fused = _product(m, n, k, moved + 16.0 * filters, 9.0, width, rate, rates, c)
    m, n, k = _product_shape(phase, large, c_in, c_out)
    inside = 36.0 * (width * large * (c_in + c_out) + filters)
    rate = share / (w.rate * w.vector)
    parts = _product(m, n, k, inside, np.inf, width, rate, rates, c, batch=36.0)
    copies = (moved + inside) / (c.stream.rows * rates.stream * rates.bandwidth)
    return np.minimum(fused, parts + copies + TRANSFORMS * c.stream.start_rows / rates.clock)


def _product_shape(
    phase: str, spots: np.ndarray, c_in: np.ndarray, c_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m, n, k of the product over channels at so many positions."""
    if phase == "weight":
        return c_out, c_in, spots
    return (spots, c_out, c_in) if phase == "forward" else (spots, c_in, c_out)


def _product(
    m: np.ndarray,
    n: np.ndarray,
    k: np.ndarray,
    moved: np.ndarray,
    taps: ArrayLike,
    width: float,
    share: float,
    rates: Rates,
    c: Kernels,
    batch: float = 1.0,
    stored: ArrayLike | None = None,
) -> np.ndarray:
    """The implicit product, with its main loop at `share` of a matrix product's rate."""
    at = rates._replace(matrix=rates.matrix * share)
    if rates.kind == "gpu":
        reread = 2.0 * width * m * n * k / (rates.footprint * np.asarray(taps))
        return tiled(m, n, k, batch, width, moved, reread, at, c, stored=stored)
    if rates.kind == "cpu":
        return summed(2.0 * m * n * k, moved, at, c, blocked=True)
    return systolic(m, n, k, 1.0, moved, at, c)
