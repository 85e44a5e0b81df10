"""Seconds of convolutions: implicit matrix products, Winograd, grouped and depthwise."""

from __future__ import annotations

import numpy as np

from hwdb.constants import Kernels
from simulator.times.matmul import summed, systolic, tiled
from simulator.times.rates import Rates
from simulator.times.stream import stream

PHASES = ("forward", "input", "weight")
WINOGRAD = 2.25  # products saved by F(2x2, 3x3): 16 instead of 36 for four outputs


def conv(phase, batch, c_in, c_out, pixels_in, pixels_out, taps, groups, width_bytes, rates: Rates, c: Kernels,
         unit_stride=True, channels_last=True):  # fmt: skip
    """Seconds of one convolution kernel of any dimension. phase: "forward", or the gradient of "input" or "weight".

    pixels_in, pixels_out: positions of one image (height x width); taps: positions of the filter. Arguments broadcast.

        forward  m = batch pixels_out   n = c_out / groups          k = taps c_in / groups
        input    m = batch pixels_in    n = c_in / groups           k = taps c_out / groups x pixels_out / pixels_in
        weight   m = c_out / groups     n = taps c_in / groups      k = batch pixels_out

    is costed as that matrix product, at `forward` or `backward` of its rate, with x, w and y read or written once.
    16-bit formats pad channels to 8. A 16-bit NCHW convolution copies x and y to channels-last and back. fp32 3x3 at
    unit stride runs as Winograd. Grouped: rate c_g / (c_g + 27); one channel a group: bytes of a depthwise kernel.
    """
    batch, c_in, c_out, pixels_in, pixels_out, taps, groups = (
        np.asarray(v, dtype=float) for v in (batch, c_in, c_out, pixels_in, pixels_out, taps, groups)
    )
    w = c.conv
    moved = width_bytes * (batch * (pixels_in * c_in + pixels_out * c_out) + taps * c_in * c_out / groups)
    pad = 8.0 if rates.tensor else 1.0
    gi, go = np.ceil(c_in / groups / pad) * pad, np.ceil(c_out / groups / pad) * pad
    if phase == "forward":
        m, n, k = batch * pixels_out, go, taps * gi
    elif phase == "input":
        m, n, k = batch * pixels_in, gi, taps * go * pixels_out / pixels_in
    else:
        m, n, k = go, taps * gi, batch * pixels_out
    share = w.forward if phase == "forward" else w.backward
    if not rates.tensor:
        share = w.forward * w.vector * (1.0 if phase == "forward" else w.vector_backward)
    elif rates.width > 2.0:
        share *= w.tf32
    dense = _product(m, n, k, moved, taps, width_bytes, share, rates, c)
    if rates.kind == "gpu" and not rates.tensor and np.any(taps == 9.0):
        pixels = pixels_in if phase == "input" else pixels_out
        blocks = np.square(np.ceil(np.sqrt(pixels) / 2.0) * 2.0) / pixels  # outputs come in 2 x 2 blocks
        grown = 3.0 * moved + width_bytes * c_in * c_out * 2.0 * 16.0  # transformed x and y cross memory once more, 4x4 filters twice
        fast = _product(m * (blocks if phase != "weight" else 1.0), n, k * (blocks if phase == "weight" else 1.0), grown, taps,
                        width_bytes, share * WINOGRAD, rates, c)  # fmt: skip
        dense = np.where((taps == 9.0) & np.asarray(unit_stride), np.minimum(dense, fast), dense)
    flops = 2.0 * batch * pixels_out * taps * c_in * c_out / groups
    wide = c_in / groups
    rate = w.grouped_rate * (w.grouped_backward if phase != "forward" else 1.0) * wide / (wide + w.grouped)
    group = np.hypot(flops / (rate * rates.sustained * rates.matrix), stream("elementwise", moved, 0.0, 0.0, rates, c))
    kind = {"forward": "depthwise", "input": "depthwise_input", "weight": "depthwise_weight"}[phase]
    depth = stream(kind, moved, flops, 0.0, rates, c)
    seconds = np.where(groups == 1.0, dense, np.where(wide == 1.0, depth, group))
    copies = 2.0 * width_bytes * batch * (pixels_in * c_in + pixels_out * c_out) / (rates.stream * rates.bandwidth)
    swap = (rates.kind == "gpu") & rates.tensor & (width_bytes <= 2.0) & (wide > 1.0) & ~np.asarray(channels_last)
    return seconds + np.where(swap, (w.transpose if phase == "forward" else w.transpose_backward) * copies, 0.0)


def least_flops(flops, taps, groups, rates: Rates, unit_stride=True):
    """FLOPs of a convolution by the thriftiest method known here, for its lower bound: Winograd where `conv` may use it."""
    fast = (np.asarray(taps) == 9.0) & np.asarray(unit_stride) & (np.asarray(groups) == 1.0) & (rates.kind == "gpu") & (not rates.tensor)
    return flops / np.where(fast, WINOGRAD, 1.0)


def _product(m, n, k, moved, taps, width, share, rates: Rates, c: Kernels):
    """The implicit product, its main loop at `share` of a matrix product's rate."""
    slower = rates._replace(matrix=rates.matrix * share)
    if rates.kind == "gpu":
        reread = 2.0 * width * m * n * k / (rates.footprint * taps)
        return tiled(m, n, k, np.asarray(1.0), width, moved, reread, slower, c)
    if rates.kind == "cpu":
        return summed(2.0 * m * n * k, moved, slower, c)
    return systolic(m, n, k, 1.0, moved, slower, c)
