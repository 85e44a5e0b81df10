"""Kernels on the rows of x [rows, n]: softmax, cross-entropy, layer and RMS norm; and batch norm.

Arrays are fp32; the caller allocates the outputs.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.arrays import Array, Index
from roofcast.simulator.machine.kernels.compiled import both, prange
from roofcast.simulator.machine.kernels.functions import exp, greater

ZERO, ONE, LEAST = np.float32(0.0), np.float32(1.0), np.float32(-3.0e38)
PIECE = 512  # columns that one thread sums: long enough for hardware prefetching
EPSILON = np.float32(1e-5)  # added to a variance, PyTorch's default


@both
def softmax(x: Array, y: Array) -> None:
    """y = softmax of each row, in three passes."""
    for r in prange(x.shape[0]):
        row, out = x[r], y[r]
        n = row.size
        largest = LEAST
        for j in range(n):
            largest = greater(largest, row[j])
        total = ZERO
        for j in range(n):
            e = exp(row[j] - largest)
            out[j] = e
            total += e
        for j in range(n):
            out[j] = out[j] * (ONE / total)


@both
def softmax_backward(y: Array, dy: Array, dx: Array) -> None:
    """dx = y (dy - sum(y dy))."""
    for r in prange(y.shape[0]):
        row, grad, out = y[r], dy[r], dx[r]
        total = ZERO
        for j in range(row.size):
            total += row[j] * grad[j]
        for j in range(row.size):
            out[j] = row[j] * (grad[j] - total)


@both
def cross_entropy(x: Array, label: Index, loss: Array, dx: Array) -> None:
    """loss[row] = -log softmax(x)[label], and the gradient of the mean loss.

    dx = (softmax(x) - onehot) / rows.
    """
    rows = x.shape[0]
    share = ONE / np.float32(rows)
    for r in prange(rows):
        row, out = x[r], dx[r]
        n = row.size
        largest = LEAST
        for j in range(n):
            largest = greater(largest, row[j])
        total = ZERO
        for j in range(n):
            e = exp(row[j] - largest)
            out[j] = e
            total += e
        scale = share / total
        for j in range(n):
            out[j] = out[j] * scale
        out[label[r]] -= share
        loss[r] = np.log(total) + largest - row[label[r]]


@both
def layer_norm(x: Array, weight: Array, bias: Array, y: Array, mean: Array, inverse: Array) -> None:
    """y = (x - mean) inverse weight + bias.

    The mean and inverse standard deviation of each row are kept for backward.
    """
    for r in prange(x.shape[0]):
        row, out = x[r], y[r]
        n = row.size
        total = ZERO
        for j in range(n):
            total += row[j]
        centre = total / np.float32(n)
        square = ZERO
        for j in range(n):
            square += (row[j] - centre) * (row[j] - centre)
        scale = ONE / np.sqrt(square / np.float32(n) + EPSILON)
        for j in range(n):
            out[j] = (row[j] - centre) * scale * weight[j] + bias[j]
        mean[r], inverse[r] = centre, scale


@both
def layer_norm_backward(
    x: Array, weight: Array, mean: Array, inverse: Array, dy: Array, dx: Array
) -> None:
    """dx = inverse (g - mean(g) - xhat mean(g xhat)), g = dy weight."""
    for r in prange(x.shape[0]):
        row, grad, out = x[r], dy[r], dx[r]
        n, centre, scale = row.size, mean[r], inverse[r]
        mean_g, mean_gx = ZERO, ZERO
        for j in range(n):
            g = grad[j] * weight[j]
            mean_g += g
            mean_gx += g * (row[j] - centre) * scale
        mean_g, mean_gx = mean_g / np.float32(n), mean_gx / np.float32(n)
        for j in range(n):
            out[j] = scale * (grad[j] * weight[j] - mean_g - (row[j] - centre) * scale * mean_gx)


@both
def norm_weight_backward(
    x: Array, mean: Array, inverse: Array, dy: Array, dweight: Array, dbias: Array
) -> None:
    """dweight = sum over rows of dy xhat, dbias = sum of dy; threads split the width.

    With a mean of zero, the gradients of an RMS norm.
    """
    rows, n = x.shape
    for block in prange((n + PIECE - 1) // PIECE):
        lo, hi = block * PIECE, min(n, block * PIECE + PIECE)
        weight, bias = dweight[lo:hi], dbias[lo:hi]
        for j in range(hi - lo):
            weight[j] = ZERO
            bias[j] = ZERO
        for r in range(rows):
            row, grad = x[r, lo:hi], dy[r, lo:hi]
            centre, scale = mean[r], inverse[r]
            for j in range(hi - lo):
                weight[j] += grad[j] * (row[j] - centre) * scale
                bias[j] += grad[j]


@both
def rms_norm(x: Array, weight: Array, y: Array, inverse: Array) -> None:
    """y = x / rms(x) weight; the inverse of rms(x) of each row is kept for backward."""
    for r in prange(x.shape[0]):
        row, out = x[r], y[r]
        total = ZERO
        for j in range(row.size):
            total += row[j] * row[j]
        scale = ONE / np.sqrt(total / np.float32(row.size) + EPSILON)
        for j in range(row.size):
            out[j] = row[j] * scale * weight[j]
        inverse[r] = scale


@both
def rms_norm_backward(x: Array, weight: Array, inverse: Array, dy: Array, dx: Array) -> None:
    """dx = inverse (g - xhat mean(g xhat)), g = dy weight."""
    for r in prange(x.shape[0]):
        row, grad, out, scale = x[r], dy[r], dx[r], inverse[r]
        mean_gx = ZERO
        for j in range(row.size):
            mean_gx += grad[j] * weight[j] * row[j] * scale
        mean_gx = mean_gx / np.float32(row.size)
        for j in range(row.size):
            out[j] = scale * (grad[j] * weight[j] - row[j] * scale * mean_gx)


@both
def batch_norm(x: Array, weight: Array, bias: Array, y: Array, mean: Array, inverse: Array) -> None:
    """Normalize each channel of x [images, channels, pixels] over images and pixels.

    The mean and inverse standard deviation of each channel are kept for backward.
    """
    images, channels, pixels = x.shape
    count = np.float32(images * pixels)
    for c in prange(channels):
        total = ZERO
        for n in range(images):
            row = x[n, c]
            for j in range(pixels):
                total += row[j]
        centre = total / count
        square = ZERO
        for n in range(images):
            row = x[n, c]
            for j in range(pixels):
                square += (row[j] - centre) * (row[j] - centre)
        scale = ONE / np.sqrt(square / count + EPSILON)
        slope, shift = scale * weight[c], bias[c]
        for n in range(images):
            row, out = x[n, c], y[n, c]
            for j in range(pixels):
                out[j] = (row[j] - centre) * slope + shift
        mean[c], inverse[c] = centre, scale


@both
def batch_norm_backward(
    x: Array,
    weight: Array,
    mean: Array,
    inverse: Array,
    dy: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    """Gradients of x, weight and bias."""
    images, channels, pixels = x.shape
    count = np.float32(images * pixels)
    for c in prange(channels):
        centre, scale = mean[c], inverse[c]
        sum_dy, sum_dyx = ZERO, ZERO
        for n in range(images):
            row, grad = x[n, c], dy[n, c]
            for j in range(pixels):
                sum_dy += grad[j]
                sum_dyx += grad[j] * (row[j] - centre) * scale
        dweight[c], dbias[c] = sum_dyx, sum_dy
        slope, mean_dy, mean_dyx = scale * weight[c], sum_dy / count, sum_dyx / count * scale
        for n in range(images):
            row, grad, out = x[n, c], dy[n, c], dx[n, c]
            for j in range(pixels):
                out[j] = slope * (grad[j] - mean_dy - (row[j] - centre) * mean_dyx)
