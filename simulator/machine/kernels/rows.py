"""Kernels on the rows of x [rows, n]: softmax, cross-entropy, layer and RMS norm; and batch norm.
fp32; outputs are given.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.compiled import both, prange
from roofcast.simulator.machine.kernels.functions import exp, greater

ZERO, ONE, LEAST = np.float32(0.0), np.float32(1.0), np.float32(-3.0e38)
PIECE = 512  # columns that one thread sums: long enough to be fetched ahead
EPSILON = np.float32(1e-5)  # added to a variance, as PyTorch does


@both
def softmax(x, y):
    """y = softmax of each row: three passes."""
    for r in prange(x.shape[0]):
        here, there = x[r], y[r]
        n = here.size
        most = LEAST
        for j in range(n):
            most = greater(most, here[j])
        total = ZERO
        for j in range(n):
            e = exp(here[j] - most)
            there[j] = e
            total += e
        for j in range(n):
            there[j] = there[j] * (ONE / total)


@both
def softmax_backward(y, dy, dx):
    """dx = y (dy - sum(y dy))."""
    for r in prange(y.shape[0]):
        here, grad, out = y[r], dy[r], dx[r]
        total = ZERO
        for j in range(here.size):
            total += here[j] * grad[j]
        for j in range(here.size):
            out[j] = here[j] * (grad[j] - total)


@both
def cross_entropy(x, label, loss, dx):
    """loss[row] = -log softmax(x)[label], and the gradient of their mean: dx = (softmax(x) -
    onehot) / rows.
    """
    rows = x.shape[0]
    share = ONE / np.float32(rows)
    for r in prange(rows):
        here, out = x[r], dx[r]
        n = here.size
        most = LEAST
        for j in range(n):
            most = greater(most, here[j])
        total = ZERO
        for j in range(n):
            e = exp(here[j] - most)
            out[j] = e
            total += e
        scale = share / total
        for j in range(n):
            out[j] = out[j] * scale
        out[label[r]] -= share
        loss[r] = np.log(total) + most - here[label[r]]


@both
def layer_norm(x, weight, bias, y, mean, inverse):
    """y = (x - mean) inverse weight + bias; mean and inverse deviation of each row are kept for
    backward.
    """
    for r in prange(x.shape[0]):
        here, there = x[r], y[r]
        n = here.size
        total = ZERO
        for j in range(n):
            total += here[j]
        centre = total / np.float32(n)
        spread = ZERO
        for j in range(n):
            spread += (here[j] - centre) * (here[j] - centre)
        scale = ONE / np.sqrt(spread / np.float32(n) + EPSILON)
        for j in range(n):
            there[j] = (here[j] - centre) * scale * weight[j] + bias[j]
        mean[r], inverse[r] = centre, scale


@both
def layer_norm_backward(x, weight, mean, inverse, dy, dx):
    """dx = inverse (g - mean(g) - xhat mean(g xhat)), g = dy weight."""
    for r in prange(x.shape[0]):
        here, grad, out = x[r], dy[r], dx[r]
        n, centre, scale = here.size, mean[r], inverse[r]
        plain, along = ZERO, ZERO
        for j in range(n):
            g = grad[j] * weight[j]
            plain += g
            along += g * (here[j] - centre) * scale
        plain, along = plain / np.float32(n), along / np.float32(n)
        for j in range(n):
            out[j] = scale * (grad[j] * weight[j] - plain - (here[j] - centre) * scale * along)


@both
def norm_weight_backward(x, mean, inverse, dy, dweight, dbias):
    """dweight = sum over rows of dy xhat, dbias = sum of dy; the width split among threads. With
    mean zero: RMS norm's.
    """
    rows, n = x.shape
    for block in prange((n + PIECE - 1) // PIECE):
        lo, hi = block * PIECE, min(n, block * PIECE + PIECE)
        weight, bias = dweight[lo:hi], dbias[lo:hi]
        for j in range(hi - lo):
            weight[j] = ZERO
            bias[j] = ZERO
        for r in range(rows):
            here, grad = x[r, lo:hi], dy[r, lo:hi]
            centre, scale = mean[r], inverse[r]
            for j in range(hi - lo):
                weight[j] += grad[j] * (here[j] - centre) * scale
                bias[j] += grad[j]


@both
def rms_norm(x, weight, y, inverse):
    """y = x / rms(x) weight."""
    for r in prange(x.shape[0]):
        here, there = x[r], y[r]
        total = ZERO
        for j in range(here.size):
            total += here[j] * here[j]
        scale = ONE / np.sqrt(total / np.float32(here.size) + EPSILON)
        for j in range(here.size):
            there[j] = here[j] * scale * weight[j]
        inverse[r] = scale


@both
def rms_norm_backward(x, weight, inverse, dy, dx):
    """dx = inverse (g - xhat mean(g xhat)), g = dy weight."""
    for r in prange(x.shape[0]):
        here, grad, out, scale = x[r], dy[r], dx[r], inverse[r]
        along = ZERO
        for j in range(here.size):
            along += grad[j] * weight[j] * here[j] * scale
        along = along / np.float32(here.size)
        for j in range(here.size):
            out[j] = scale * (grad[j] * weight[j] - here[j] * scale * along)


@both
def batch_norm(x, weight, bias, y, mean, inverse):
    """x [images, channels, pixels]: each channel over images and pixels; its mean and inverse
    deviation are kept.
    """
    images, channels, pixels = x.shape
    count = np.float32(images * pixels)
    for c in prange(channels):
        total = ZERO
        for n in range(images):
            here = x[n, c]
            for j in range(pixels):
                total += here[j]
        centre = total / count
        spread = ZERO
        for n in range(images):
            here = x[n, c]
            for j in range(pixels):
                spread += (here[j] - centre) * (here[j] - centre)
        scale = ONE / np.sqrt(spread / count + EPSILON)
        slope, shift = scale * weight[c], bias[c]
        for n in range(images):
            here, there = x[n, c], y[n, c]
            for j in range(pixels):
                there[j] = (here[j] - centre) * slope + shift
        mean[c], inverse[c] = centre, scale


@both
def batch_norm_backward(x, weight, mean, inverse, dy, dx, dweight, dbias):
    """Gradients of x, weight and bias."""
    images, channels, pixels = x.shape
    count = np.float32(images * pixels)
    for c in prange(channels):
        centre, scale = mean[c], inverse[c]
        plain, along = ZERO, ZERO
        for n in range(images):
            here, grad = x[n, c], dy[n, c]
            for j in range(pixels):
                plain += grad[j]
                along += grad[j] * (here[j] - centre) * scale
        dweight[c], dbias[c] = along, plain
        slope, level, tilt = scale * weight[c], plain / count, along / count * scale
        for n in range(images):
            here, grad, out = x[n, c], dy[n, c], dx[n, c]
            for j in range(pixels):
                out[j] = slope * (grad[j] - level - (here[j] - centre) * tilt)
