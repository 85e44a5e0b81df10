"""Convolution and max-pool of images [n, channels, height, width], fp32, square filters, one stride
and padding both ways.

Two methods: im2col and a matrix product, image by image (`columns`, `conv`, and both gradients),
and direct, a row at a time.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.compiled import both, exact, inner, prange
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


@exact
def _bounds(offset, stride, size, out):
    """Output positions whose input position o * stride + offset lies inside 0 .. size: first, and
    one past the last.
    """
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = min(out, (size - 1 - offset) // stride + 1) if size - 1 - offset >= 0 else 0
    return first, max(first, last)


@inner
def _phases(image, edge, stride, padding):
    """phases[c, ph, pw, i, j] = image[c, i stride + ph - padding, j stride + pw - padding], flat,
    zero outside the image.

    In it the taps of any stride are steps of one. Room is left behind it for tiles that reach past
    its end.
    """
    channels, height, width = image.shape
    rows, across = _plane(height, stride, padding), _plane(width, stride, padding)
    phases = np.zeros(
        channels * stride * stride * rows * across + (edge + 1) * across + WIDE, np.float32
    )
    source = image.reshape(image.size)
    for plane in range(channels * stride * stride):
        c, ph, pw = plane // (stride * stride), plane // stride % stride, plane % stride
        top, bottom = _bounds(ph - padding, stride, height, rows)
        first, last = _bounds(pw - padding, stride, width, across)
        for i in range(top, bottom):
            to, come = (
                (plane * rows + i) * across,
                (c * height + i * stride + ph - padding) * width + pw - padding,
            )
            if stride == 1:
                for j in range(first, last, LANES):
                    move(last - j, source, come + j, phases, to + j)
            elif stride == 2:
                for j in range(first, last, LANES):
                    move_of_two(min(LANES, last - j), source, come + 2 * j, phases, to + j)
            else:
                for j in range(first, last):
                    phases[to + j] = source[come + j * stride]
    return phases


@exact
def _plane(size, stride, padding):
    """Rows, or columns, of one phase."""
    return (size + 2 * padding + stride - 1) // stride


@inner
def _table(channels, height, width, edge, stride, padding):
    """Where each tap (c, kh, kw) of the first output lies in `_phases`."""
    rows, across = _plane(height, stride, padding), _plane(width, stride, padding)
    table, tap = np.empty(channels * edge * edge, np.int64), 0
    for c in range(channels):
        for kh in range(edge):
            for kw in range(edge):
                plane = (c * stride + kh % stride) * stride + kw % stride
                table[tap] = (plane * rows + kh // stride) * across + kw // stride
                tap += 1
    return table


@inner
def _columns(image, edge, stride, padding, out_height, out_width, columns):
    """columns[(c, kh, kw), (oh, ow)] of one image."""
    channels, height, width = image.shape
    across, target = _plane(width, stride, padding), columns.reshape(columns.size)
    phases, table = (
        _phases(image, edge, stride, padding),
        _table(channels, height, width, edge, stride, padding),
    )
    for tap in range(table.size):
        for oh in range(out_height):
            to, come = (tap * out_height + oh) * out_width, table[tap] + oh * across
            for i in range(0, out_width, LANES):
                move(out_width - i, phases, come + i, target, to + i)


@inner
def _back(columns, edge, stride, padding, out_height, out_width, image):
    """The gradient of `_columns`: every entry added to the pixel it came from."""
    channels, height, width = image.shape
    rows, across = _plane(height, stride, padding), _plane(width, stride, padding)
    source, target = columns.reshape(columns.size), image.reshape(image.size)
    phases, table = (
        np.zeros(channels * stride * stride * rows * across, np.float32),
        _table(channels, height, width, edge, stride, padding),
    )
    for tap in range(table.size):
        for oh in range(out_height):
            come, to = (tap * out_height + oh) * out_width, table[tap] + oh * across
            for i in range(0, out_width, LANES):
                move_add(out_width - i, source, come + i, phases, to + i)
    for plane in range(channels * stride * stride):
        c, ph, pw = plane // (stride * stride), plane // stride % stride, plane % stride
        top, bottom = _bounds(ph - padding, stride, height, rows)
        first, last = _bounds(pw - padding, stride, width, across)
        for i in range(top, bottom):
            come, to = (
                (plane * rows + i) * across,
                (c * height + i * stride + ph - padding) * width + pw - padding,
            )
            for j in range(first, last):
                target[to + j * stride] = phases[come + j]


@both
def im2col(x, edge, stride, padding, out_height, out_width, columns):
    """columns [n, c edge edge, out pixels] of the images x."""
    for n in prange(x.shape[0]):
        _columns(x[n], edge, stride, padding, out_height, out_width, columns[n])


@both
def conv(x, w, y, stride, padding):
    """y = x * w by im2col and a matrix product; w [out, in, edge, edge]. Threads take images."""
    images, out, out_height, out_width = y.shape
    edge = w.shape[2]
    taps = w.shape[1] * edge * edge
    weight = w.reshape(out, taps)
    for n in prange(images):
        columns = np.empty((taps, out_height * out_width), np.float32)
        _columns(x[n], edge, stride, padding, out_height, out_width, columns)
        multiply(weight, columns, y[n].reshape(out, out_height * out_width), False, False, False)


@both
def conv_input_backward(w, dy, dx, stride, padding):
    """dx of a convolution: W^T dy, every column back to its pixels."""
    images, out, out_height, out_width = dy.shape
    edge = w.shape[2]
    taps = w.shape[1] * edge * edge
    weight = w.reshape(out, taps)
    for n in prange(images):
        columns = np.empty((taps, out_height * out_width), np.float32)
        multiply(weight, dy[n].reshape(out, out_height * out_width), columns, True, False, False)
        _back(columns, edge, stride, padding, out_height, out_width, dx[n])


@both
def conv_weight_backward(x, dy, dw, stride, padding, teams):
    """dw of a convolution: sum over images of dy columns^T. Each of `teams` sums its own images,
    then all are added.
    """
    images, out, out_height, out_width = dy.shape
    edge = dw.shape[2]
    taps = dw.shape[1] * edge * edge
    parts = np.zeros((teams, out, taps), np.float32)
    for team in prange(teams):
        columns = np.empty((taps, out_height * out_width), np.float32)
        for n in range(team, images, teams):
            _columns(x[n], edge, stride, padding, out_height, out_width, columns)
            multiply(
                dy[n].reshape(out, out_height * out_width), columns, parts[team], False, True, True
            )
    total = dw.reshape(out, taps)
    for o in range(out):
        for t in range(taps):
            total[o, t] = ZERO
            for team in range(teams):
                total[o, t] += parts[team, o, t]


@both
def conv_direct(x, w, y, stride, padding):
    """The same convolution without im2col: tiles of a product that read the rows of a padded image
    where they lie.

    Outputs are taken along whole padded rows, so that a tile may span several; what falls on the
    padding is left out of y.
    """
    images, out, out_height, out_width = y.shape
    edge, across = w.shape[2], _plane(x.shape[3], stride, padding)
    table = _table(x.shape[1], x.shape[2], x.shape[3], edge, stride, padding)
    taps, places = table.size, (out_height - 1) * across + out_width
    tall, wide = (out + TALL - 1) // TALL * TALL, (places + WIDE - 1) // WIDE * WIDE
    packed, weight = np.empty(taps * tall + LANES, np.float32), w.reshape(out, taps)
    for d0 in range(0, taps, DEPTH):
        pack_rows(weight, False, 0, out, d0, min(DEPTH, taps - d0), packed[d0 * tall :])
    for n in prange(images):
        phases = _phases(x[n], edge, stride, padding)
        sums, target = np.empty(tall * wide, np.float32), y[n].reshape(out * out_height * out_width)
        for d0 in range(0, taps, DEPTH):
            depth = min(DEPTH, taps - d0)
            for f in range(0, wide, WIDE):
                for o in range(0, tall, TALL):
                    spread_tile(
                        depth,
                        packed,
                        d0 * tall + o * depth,
                        phases,
                        f,
                        sums,
                        o * wide + f,
                        wide,
                        d0,
                        table[d0:],
                    )
        for o in range(out):
            for oh in range(out_height):
                to, come = (o * out_height + oh) * out_width, o * wide + oh * across
                for i in range(0, out_width, LANES):
                    move(out_width - i, sums, come + i, target, to + i)


@both
def max_pool(x, edge, stride, y, where):
    """y = the greatest of each window, without padding; `where` (int32) keeps its place in the
    plane for backward.

    Tap by tap along rows of outputs, a vector of them at once; windows one by one would be scalar.
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
def max_pool_backward(dy, where, dx):
    """dx = dy at the place that won, zero elsewhere."""
    channels = dy.shape[1]
    for job in prange(dy.shape[0] * channels):
        n, c = job // channels, job % channels
        flat = dx[n, c].reshape(dx.shape[2] * dx.shape[3])
        flat[:] = ZERO
        for oh in range(dy.shape[2]):
            for ow in range(dy.shape[3]):
                flat[where[n, c, oh, ow]] += dy[n, c, oh, ow]
