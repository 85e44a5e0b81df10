"""Seconds of convolutions: implicit matrix products, Winograd, grouped and depthwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import summed, systolic, tiled
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.stream import stream

PHASES = ("forward", "input", "weight")
# edge of a block of outputs -> products saved for a 3x3 filter: 16 for 36, 36 for 144
WINOGRAD = {2.0: 2.25, 4.0: 4.0}
# channels in and out that a CPU's library computes at once: vectors of outputs, read off nets of 1
# to 6 channels
CPU_BLOCK = (8.0, 16.0)
TRANSFORMS = 3.0  # kernels beside the product of F(4x4, 3x3): x, w and y are transformed in memory


def conv(
    phase,
    batch,
    c_in,
    c_out,
    pixels_in,
    pixels_out,
    taps,
    groups,
    width_bytes,
    rates: Rates,
    c: Kernels,
    unit_stride=True,
    channels_last=True,
):
    """Seconds of one convolution kernel of any dimension. phase: "forward", or the gradient of
    "input" or "weight".

    pixels_in, pixels_out: positions of one image (height x width); taps: positions of the filter.
    Arguments broadcast.

        forward  m = batch pixels_out   n = c_out / groups          k = taps c_in / groups
        input    m = batch pixels_in    n = c_in / groups           k = taps c_out / groups x
                 pixels_out / pixels_in
        weight   m = c_out / groups     n = taps c_in / groups      k = batch pixels_out

    is costed as that matrix product, at `rate` of its rate, with x, w and y read or written once.
    16-bit formats pad channels to 8, CPUs to whole vectors. A 16-bit NCHW convolution copies x and
    y to channels-last and back. fp32 3x3 at unit stride runs as Winograd [lavin2016] where that is
    faster. Grouped: rate c_g / (c_g + grouped); one channel a group: bytes of a depthwise kernel.
    """
    batch, c_in, c_out, pixels_in, pixels_out, taps, groups = (
        np.asarray(v, dtype=float)
        for v in (batch, c_in, c_out, pixels_in, pixels_out, taps, groups)
    )
    w = c.conv
    moved = width_bytes * (
        batch * (pixels_in * c_in + pixels_out * c_out) + taps * c_in * c_out / groups
    )
    pad_in, pad_out = (
        (8.0, 8.0) if rates.tensor else CPU_BLOCK if rates.kind == "cpu" else (1.0, 1.0)
    )
    gi, go = np.ceil(c_in / groups / pad_in) * pad_in, np.ceil(c_out / groups / pad_out) * pad_out
    if phase == "forward":
        m, n, k = batch * pixels_out, go, taps * gi
    elif phase == "input":
        m, n, k = batch * pixels_in, gi, taps * go * pixels_out / pixels_in
    else:
        m, n, k = go, taps * gi, batch * pixels_out
    share, tf32 = w.rate, 1.0
    if rates.kind != "gpu":
        # fitted with their products; on CPUs in inference
        share = w.vector_backward if rates.kind == "cpu" and phase != "forward" else 1.0
    elif not rates.tensor:
        share = w.rate * w.vector * (1.0 if phase == "forward" else w.vector_backward)
    elif rates.width > 2.0:
        tf32 = np.minimum(w.tf32 * rates.fed, 1.0)
        share = share * tf32
    dense = _product(m, n, k, moved, taps, width_bytes, share, rates, c)
    if rates.kind == "gpu" and not rates.tensor and np.any(taps == 9.0):
        fast = _winograd(
            phase,
            batch,
            c_in,
            c_out,
            pixels_in if phase == "input" else pixels_out,
            moved,
            width_bytes,
            share,
            rates,
            c,
        )
        dense = np.where((taps == 9.0) & np.asarray(unit_stride), np.minimum(dense, fast), dense)
    flops = 2.0 * batch * pixels_out * taps * c_in * c_out / groups
    wide = c_in / groups
    rate = tf32 * w.grouped_rate * wide / (wide + w.grouped)
    group = np.hypot(
        flops / (rate * rates.sustained * rates.matrix),
        stream("elementwise", moved, 0.0, 0.0, rates, c),
    )
    kind = {"forward": "depthwise", "input": "depthwise_input", "weight": "depthwise_weight"}[phase]
    depth = stream(kind, moved, flops, 0.0, rates, c)
    seconds = np.where(groups == 1.0, dense, np.where(wide == 1.0, depth, group))
    copies = (
        2.0
        * width_bytes
        * batch
        * (pixels_in * c_in + pixels_out * c_out)
        / (rates.stream * rates.bandwidth)
    )
    swap = (
        (rates.kind == "gpu")
        & rates.tensor
        & (width_bytes <= 2.0)
        & (wide > 1.0)
        & ~np.asarray(channels_last)
    )
    return seconds + np.where(
        swap, (w.transpose if phase == "forward" else w.transpose_backward) * copies, 0.0
    )


def least_flops(
    flops: ArrayLike,
    taps: ArrayLike,
    groups: ArrayLike,
    rates: Rates,
    unit_stride: ArrayLike = True,
) -> np.ndarray:
    """FLOPs of a convolution by the thriftiest method a library may choose, for its lower bound: a
    dense 3x3 filter at unit stride on vector units may run as Winograd.
    """
    fast = (np.asarray(taps) == 9.0) & np.asarray(unit_stride) & (np.asarray(groups) == 1.0)
    return flops / np.where(fast & (not rates.tensor), max(WINOGRAD.values()), 1.0)


def _winograd(phase, batch, c_in, c_out, pixels, moved, width, share, rates: Rates, c: Kernels):
    """Seconds of a 3x3 convolution at unit stride by the faster of two Winograd kernels
    [lavin2016], images cut into whole blocks.

    F(2x2)  one kernel: k / 2.25 multiplications, and `channels` more to transform a block of
    outputs; on vector units, also where
            products have matrix units of the format
    F(4x4)  36 products of blocks x channels, at the rate of any product, between transformed x, w
    and y that pass through memory
    """
    side, w = np.sqrt(pixels), c.conv
    small, large = (batch * np.square(np.ceil(side / edge)) for edge in WINOGRAD)
    spots = 4.0 * small
    m, n, k = {
        "forward": (spots, c_out, c_in),
        "input": (spots, c_in, c_out),
        "weight": (c_out, c_in, spots),
    }[phase]
    k = (
        (9.0 / WINOGRAD[2.0])
        * k
        * (1.0 + w.channels / (batch * pixels if phase == "weight" else k))
    )
    filters = width * c_in * c_out
    on_vectors = np.minimum(rates.vector / rates.matrix, 1.0)
    fused = _product(
        m, n, k, moved + 16.0 * filters, 9.0, width, share * w.winograd * on_vectors, rates, c
    )
    m, n, k = {
        "forward": (large, c_out, c_in),
        "input": (large, c_in, c_out),
        "weight": (c_out, c_in, large),
    }[phase]
    inside = 36.0 * (width * large * (c_in + c_out) + filters)
    parts = _product(
        m, n, k, inside, np.inf, width, share / (w.rate * w.vector), rates, c, batch=36.0
    )
    transforms = (moved + inside) / (
        c.stream.rows * rates.stream * rates.bandwidth
    ) + TRANSFORMS * c.stream.start_rows / rates.clock
    return np.minimum(fused, parts + transforms)


def _product(m, n, k, moved, taps, width, share, rates: Rates, c: Kernels, batch=1.0):
    """The implicit product, its main loop at `share` of a matrix product's rate; less costs nothing
    where power is what limits.
    """
    slower = rates._replace(
        matrix=rates.matrix * np.minimum(share * rates.headroom, np.maximum(share, 1.0))
    )
    if rates.kind == "gpu":
        reread = 2.0 * width * m * n * k / (rates.footprint * taps)
        return tiled(m, n, k, np.asarray(batch), width, moved, reread, slower, c)
    if rates.kind == "cpu":
        return summed(2.0 * m * n * k, moved, slower, c)
    return systolic(m, n, k, 1.0, moved, slower, c)
