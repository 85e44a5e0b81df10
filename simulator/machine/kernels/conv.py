"""Convolution and max-pool of fp32 images [n, channels, height, width].

Filters are square; stride and padding are the same in both directions. Two methods: im2col and a
matrix product per image (`im2col`, `conv` and both gradients), and direct (`conv_direct`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roofcast.simulator.machine.kernels.arrays import Array
from roofcast.simulator.machine.kernels.compiled import both, inlined, inner, prange
from roofcast.simulator.machine.kernels.gemm import DEPTH, gemm, pack_rows
from roofcast.simulator.machine.kernels.vectors import (
    LANES,
    TALL,
    WIDE,
    greatest,
    greatest_of_two,
    move,
    move_add,
    move_of_two,
    spread_tile,
)

ZERO, LEAST = np.float32(0.0), np.float32(-3.0e38)
multiply = gemm.one


@inlined
def _bounds(offset, stride, size, out):
    """First and one past the last output o for which 0 <= o * stride + offset < size."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = min(out, (size - 1 - offset) // stride + 1) if size - 1 - offset >= 0 else 0
    return first, max(first, last)


@inlined
def _phase_size(size, stride, padding):
    """Rows, or columns, of one phase."""
    return (size + 2 * padding + stride - 1) // stride


@inner
def _phases(image, edge, stride, padding):
    """The image split by the remainders of its rows and columns, flat, zero outside the image.

    phases[c, ph, pw, i, j] = image[c, i stride + ph - padding, j stride + pw - padding]: with any
    stride, neighbouring outputs read neighbouring elements. Extra room at the end is for tiles
    that read past it.
    """
    channels, height, width = image.shape
    rows, across = _phase_size(height, stride, padding), _phase_size(width, stride, padding)
    size = channels * stride * stride * rows * across + (edge + 1) * across + WIDE
    phases = np.zeros(size, np.float32)
    source = image.reshape(image.size)
    for plane in range(channels * stride * stride):
        c, ph, pw = plane // (stride * stride), plane // stride % stride, plane % stride
        top, bottom = _bounds(ph - padding, stride, height, rows)
        first, last = _bounds(pw - padding, stride, width, across)
        for i in range(top, bottom):
            to = (plane * rows + i) * across
            at = (c * height + i * stride + ph - padding) * width + pw - padding
            if stride == 1:
                for j in range(first, last, LANES):
                    move(last - j, source, at + j, phases, to + j)
            elif stride == 2:
                for j in range(first, last, LANES):
                    move_of_two(min(LANES, last - j), source, at + 2 * j, phases, to + j)
            else:
                for j in range(first, last):
                    phases[to + j] = source[at + j * stride]
    return phases


@inner
def _tap_offsets(channels, height, width, edge, stride, padding):
    """Position in `_phases` of each tap (c, kh, kw) of the first output."""
    rows, across = _phase_size(height, stride, padding), _phase_size(width, stride, padding)
    offsets, tap = np.empty(channels * edge * edge, np.int64), 0
    for c in range(channels):
        for kh in range(edge):
            for kw in range(edge):
                plane = (c * stride + kh % stride) * stride + kw % stride
                offsets[tap] = (plane * rows + kh // stride) * across + kw // stride
                tap += 1
    return offsets


@inner
def _columns(image, edge, stride, padding, out_height, out_width, columns):
    """columns[(c, kh, kw), (oh, ow)] of one image."""
    channels, height, width = image.shape
    across, target = _phase_size(width, stride, padding), columns.reshape(columns.size)
    phases = _phases(image, edge, stride, padding)
    offsets = _tap_offsets(channels, height, width, edge, stride, padding)
    for tap in range(offsets.size):
        for oh in range(out_height):
            to, at = (tap * out_height + oh) * out_width, offsets[tap] + oh * across
            for i in range(0, out_width, LANES):
                move(out_width - i, phases, at + i, target, to + i)


@inner
def _columns_backward(columns, edge, stride, padding, out_height, out_width, image):
    """The gradient of `_columns`: every entry is added to the pixel that it was read from."""
    channels, height, width = image.shape
    rows, across = _phase_size(height, stride, padding), _phase_size(width, stride, padding)
    source, target = columns.reshape(columns.size), image.reshape(image.size)
    phases = np.zeros(channels * stride * stride * rows * across, np.float32)
    offsets = _tap_offsets(channels, height, width, edge, stride, padding)
    for tap in range(offsets.size):
        for oh in range(out_height):
            at, to = (tap * out_height + oh) * out_width, offsets[tap] + oh * across
            for i in range(0, out_width, LANES):
                move_add(out_width - i, source, at + i, phases, to + i)
    for plane in range(channels * stride * stride):
        c, ph, pw = plane // (stride * stride), plane // stride % stride, plane % stride
        top, bottom = _bounds(ph - padding, stride, height, rows)
        first, last = _bounds(pw - padding, stride, width, across)
        for i in range(top, bottom):
            at = (plane * rows + i) * across
            to = (c * height + i * stride + ph - padding) * width + pw - padding
            for j in range(first, last):
                target[to + j * stride] = phases[at + j]


@both
def im2col(
    x: Array, edge: int, stride: int, padding: int, out_height: int, out_width: int, columns: Array
) -> None:
    """columns [n, c edge edge, output pixels] of the images x."""
    for n in prange(x.shape[0]):
        _columns(x[n], edge, stride, padding, out_height, out_width, columns[n])


@both
def conv(x: Array, w: Array, y: Array, stride: int, padding: int) -> None:
    """y = x * w by im2col and a matrix product; w [out, in, edge, edge]. Threads split images."""
    images, out, out_height, out_width = y.shape
    edge = w.shape[2]
    taps = w.shape[1] * edge * edge
    weight = w.reshape(out, taps)
    for n in prange(images):
        columns = np.empty((taps, out_height * out_width), np.float32)
        _columns(x[n], edge, stride, padding, out_height, out_width, columns)
        multiply(weight, columns, y[n].reshape(out, out_height * out_width), False, False, False)


@both
def conv_input_backward(w: Array, dy: Array, dx: Array, stride: int, padding: int) -> None:
    """dx of a convolution: W^T dy, with every column added back to its pixels."""
    images, out, out_height, out_width = dy.shape
    edge = w.shape[2]
    taps = w.shape[1] * edge * edge
    weight = w.reshape(out, taps)
    for n in prange(images):
        columns = np.empty((taps, out_height * out_width), np.float32)
        multiply(weight, dy[n].reshape(out, out_height * out_width), columns, True, False, False)
        _columns_backward(columns, edge, stride, padding, out_height, out_width, dx[n])


@both
def conv_weight_backward(
    x: Array, dy: Array, dw: Array, stride: int, padding: int, teams: int
) -> None:
    """dw of a convolution: the sum over images of dy columns^T.

    Each of the `teams` sums its own images, then the sums are added.
    """
    images, out, out_height, out_width = dy.shape
    edge = dw.shape[2]
    taps = dw.shape[1] * edge * edge
    parts = np.zeros((teams, out, taps), np.float32)
    for team in prange(teams):
        columns = np.empty((taps, out_height * out_width), np.float32)
        for n in range(team, images, teams):
            _columns(x[n], edge, stride, padding, out_height, out_width, columns)
            grad = dy[n].reshape(out, out_height * out_width)
            multiply(grad, columns, parts[team], False, True, True)
    total = dw.reshape(out, taps)
    for o in range(out):
        for t in range(taps):
            total[o, t] = ZERO
            for team in range(teams):
                total[o, t] += parts[team, o, t]


@both
def conv_direct(x: Array, w: Array, y: Array, stride: int, padding: int) -> None:
    """The same as `conv` without im2col: tiles of a product that read rows of a padded image.

    Outputs are computed along whole padded rows, so that a tile may span several rows; those that
    fall on the padding are not copied to y.
    """
    images, out, out_height, out_width = y.shape
    edge, across = w.shape[2], _phase_size(x.shape[3], stride, padding)
    offsets = _tap_offsets(x.shape[1], x.shape[2], x.shape[3], edge, stride, padding)
    taps, places = offsets.size, (out_height - 1) * across + out_width
    tall, wide = (out + TALL - 1) // TALL * TALL, (places + WIDE - 1) // WIDE * WIDE
    packed, weight = np.empty(taps * tall + LANES, np.float32), w.reshape(out, taps)
    for d0 in range(0, taps, DEPTH):
        pack_rows(weight, False, 0, out, d0, min(DEPTH, taps - d0), packed[d0 * tall :])
    for n in prange(images):
        phases = _phases(x[n], edge, stride, padding)
        sums, target = np.empty(tall * wide, np.float32), y[n].reshape(out * out_height * out_width)
        for d0 in range(0, taps, DEPTH):
            depth, rows = min(DEPTH, taps - d0), offsets[d0:]
            for f in range(0, wide, WIDE):
                for o in range(0, tall, TALL):
                    a0, c0 = d0 * tall + o * depth, o * wide + f
                    spread_tile(depth, packed, a0, phases, f, sums, c0, wide, d0, rows)
        for o in range(out):
            for oh in range(out_height):
                to, at = (o * out_height + oh) * out_width, o * wide + oh * across
                for i in range(0, out_width, LANES):
                    move(out_width - i, sums, at + i, target, to + i)


@both
def max_pool(x: Array, edge: int, stride: int, y: Array, where: NDArray[np.int32]) -> None:
    """y = the maximum of each window, without padding; `where` keeps its position in the plane.

    The loops go tap by tap along rows of outputs, a vector at a time; window by window, they would
    be scalar.
    """
    channels, height, width = x.shape[1], x.shape[2], x.shape[3]
    out_height, out_width = y.shape[2], y.shape[3]
    source, best, kept = x.reshape(x.size), y.reshape(y.size), where.reshape(where.size)
    for plane in prange(x.shape[0] * channels):
        begin = plane * height * width
        for oh in range(out_height):
            to = (plane * out_height + oh) * out_width
            best[to : to + out_width] = LEAST
            for tap in range(edge * edge):
                step = (oh * stride + tap // edge) * width + tap % edge
                for i in range(0, out_width, LANES):
                    n, at = min(LANES, out_width - i), step + i * stride
                    if stride == 2:
                        greatest_of_two(n, source, begin + at, best, kept, to + i, at)
                    elif stride == 1:
                        greatest(n, source, begin + at, best, kept, to + i, at)
                    else:
                        for j in range(n):
                            if source[begin + at + j * stride] > best[to + i + j]:
                                best[to + i + j] = source[begin + at + j * stride]
                                kept[to + i + j] = at + j * stride


@both
def max_pool_backward(dy: Array, where: NDArray[np.int32], dx: Array) -> None:
    """dx = dy at the position of each maximum, zero elsewhere."""
    channels = dy.shape[1]
    for job in prange(dy.shape[0] * channels):
        n, c = job // channels, job % channels
        flat = dx[n, c].reshape(dx.shape[2] * dx.shape[3])
        flat[:] = ZERO
        for oh in range(dy.shape[2]):
            for ow in range(dy.shape[3]):
                flat[where[n, c, oh, ow]] += dy[n, c, oh, ow]
