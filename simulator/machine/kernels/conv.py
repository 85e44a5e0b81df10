"""Convolution and max-pool of images [n, channels, height, width], fp32, square filters, one stride and padding both ways.

Two methods: im2col and a matrix product, image by image (`columns`, `conv`, and both gradients), and direct, a row at a time.
"""

from __future__ import annotations

import numpy as np

from simulator.machine.kernels.compiled import both, exact, inner, prange
from simulator.machine.kernels.gemm import gemm

ZERO, LEAST = np.float32(0.0), np.float32(-3.0e38)
multiply = gemm.one


@exact
def _bounds(offset, stride, size, out):
    """Output positions whose input position o * stride + offset lies inside 0 .. size: first, and one past the last."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = min(out, (size - 1 - offset) // stride + 1) if size - 1 - offset >= 0 else 0
    return first, max(first, last)


@inner
def _columns(image, edge, stride, padding, out_height, out_width, columns):
    """columns[(c, kh, kw), (oh, ow)] of one image."""
    channels, height, width = image.shape
    for tap in range(channels * edge * edge):
        c, kh, kw = tap // (edge * edge), tap // edge % edge, tap % edge
        row = columns[tap]
        first, last = _bounds(kw - padding, stride, width, out_width)
        for oh in range(out_height):
            h = oh * stride + kh - padding
            there = row[oh * out_width : (oh + 1) * out_width]
            if h < 0 or h >= height:
                there[:] = ZERO
                continue
            here = image[c, h]
            there[:first] = ZERO
            inside, shifted = there[first:last], here[first * stride + kw - padding :]
            if stride == 1:
                for i in range(inside.size):
                    inside[i] = shifted[i]
            else:
                for i in range(inside.size):
                    inside[i] = shifted[i * stride]
            there[last:] = ZERO


@inner
def _back(columns, edge, stride, padding, out_height, out_width, image):
    """The gradient of `_columns`: every entry added to the pixel it came from."""
    channels, height, width = image.shape
    image[:] = ZERO
    for tap in range(channels * edge * edge):
        c, kh, kw = tap // (edge * edge), tap // edge % edge, tap % edge
        row = columns[tap]
        first, last = _bounds(kw - padding, stride, width, out_width)
        for oh in range(out_height):
            h = oh * stride + kh - padding
            if 0 <= h < height:
                here, there = row[oh * out_width + first : oh * out_width + last], image[c, h, first * stride + kw - padding :]
                if stride == 1:
                    for i in range(here.size):
                        there[i] += here[i]
                else:
                    for i in range(here.size):
                        there[i * stride] += here[i]


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
    """dw of a convolution: sum over images of dy columns^T. Each of `teams` sums its own images, then all are added."""
    images, out, out_height, out_width = dy.shape
    edge = dw.shape[2]
    taps = dw.shape[1] * edge * edge
    parts = np.zeros((teams, out, taps), np.float32)
    for team in prange(teams):
        columns = np.empty((taps, out_height * out_width), np.float32)
        for n in range(team, images, teams):
            _columns(x[n], edge, stride, padding, out_height, out_width, columns)
            multiply(dy[n].reshape(out, out_height * out_width), columns, parts[team], False, True, True)
    total = dw.reshape(out, taps)
    for o in range(out):
        for t in range(taps):
            total[o, t] = ZERO
            for team in range(teams):
                total[o, t] += parts[team, o, t]


@both
def conv_direct(x, w, y, stride, padding):
    """The same convolution a row of outputs at a time, nothing copied."""
    images, out, out_height, out_width = y.shape
    channels, edge, height, width = x.shape[1], w.shape[2], x.shape[2], x.shape[3]
    for job in prange(images * out):
        n, o = job // out, job % out
        for oh in range(out_height):
            there = y[n, o, oh]
            there[:] = ZERO
            for c in range(channels):
                for kh in range(edge):
                    h = oh * stride + kh - padding
                    if h < 0 or h >= height:
                        continue
                    here = x[n, c, h]
                    for kw in range(edge):
                        first, last = _bounds(kw - padding, stride, width, out_width)
                        tap = w[o, c, kh, kw]
                        inside, shifted = there[first:last], here[first * stride + kw - padding :]
                        if stride == 1:
                            for i in range(inside.size):
                                inside[i] += tap * shifted[i]
                        else:
                            for i in range(inside.size):
                                inside[i] += tap * shifted[i * stride]


@both
def max_pool(x, edge, stride, y, where):
    """y = the greatest of each window, without padding; `where` keeps its place in the plane for backward."""
    channels, width = x.shape[1], x.shape[3]
    for job in prange(x.shape[0] * channels):
        plane, out, kept = x[job // channels, job % channels], y[job // channels, job % channels], where[job // channels, job % channels]
        for oh in range(out.shape[0]):
            for ow in range(out.shape[1]):
                most, place = LEAST, 0
                for kh in range(edge):
                    for kw in range(edge):
                        v = plane[oh * stride + kh, ow * stride + kw]
                        if v > most:
                            most, place = v, (oh * stride + kh) * width + ow * stride + kw
                out[oh, ow] = most
                kept[oh, ow] = place


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
