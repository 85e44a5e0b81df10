"""Pointwise kernels, moves of data, optimizer updates. fp32, contiguous, flat unless said; outputs
are given.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.compiled import both, inner, prange
from roofcast.simulator.machine.kernels.functions import erf, exp
from roofcast.simulator.machine.kernels.vectors import LANES, turn

HALF, ONE, ZERO = np.float32(0.5), np.float32(1.0), np.float32(0.0)
ROOT_HALF, GAUSS = np.float32(0.5**0.5), np.float32((2 * np.pi) ** -0.5)
PIECE = 512  # columns that one thread sums: long enough to be fetched ahead
BLOCK = 64  # edge of a block of a transpose


@both
def add(a, b, y):
    """y = a + b."""
    for i in prange(y.size):
        y[i] = a[i] + b[i]


@both
def relu(x, y):
    """y = max(x, 0)."""
    for i in prange(y.size):
        y[i] = x[i] if x[i] > ZERO else ZERO


@both
def relu_backward(y, dy, dx):
    """dx = dy where y > 0."""
    for i in prange(y.size):
        dx[i] = dy[i] if y[i] > ZERO else ZERO


@both
def gelu(x, y):
    """y = x Phi(x), exact (erf)."""
    for i in prange(y.size):
        y[i] = HALF * x[i] * (ONE + erf(x[i] * ROOT_HALF))


@both
def gelu_backward(x, dy, dx):
    """dx = dy (Phi(x) + x phi(x))."""
    for i in prange(dx.size):
        v = x[i]
        dx[i] = dy[i] * (HALF * (ONE + erf(v * ROOT_HALF)) + v * GAUSS * exp(-HALF * v * v))


@both
def add_bias(x, bias, y):
    """y[row] = x[row] + bias; x [rows, n]."""
    for r in prange(x.shape[0]):
        here, there = x[r], y[r]
        for j in range(here.size):
            there[j] = here[j] + bias[j]


@both
def sum_rows(dy, dbias):
    """dbias = sum of the rows of dy [rows, n], n split among threads: the gradient of a bias."""
    rows, n = dy.shape
    for block in prange((n + PIECE - 1) // PIECE):
        lo, hi = block * PIECE, min(n, block * PIECE + PIECE)
        total = dbias[lo:hi]
        for j in range(hi - lo):
            total[j] = ZERO
        for r in range(rows):
            row = dy[r, lo:hi]
            for j in range(hi - lo):
                total[j] += row[j]


@inner
def _turned(source, target, m, n, i0, i1, j0, j1):
    """target[n, m] = source[m, n] transposed, rows i0 .. i1 and columns j0 .. j1 of the source:
    whole squares, then what is left.
    """
    last_i, last_j = i0 + (i1 - i0) // LANES * LANES, j0 + (j1 - j0) // LANES * LANES
    for i in range(i0, last_i, LANES):
        for j in range(j0, last_j, LANES):
            turn(source, i * n + j, n, target, j * m + i, m)
    if last_j < j1:
        for i in range(i0, i1):
            for j in range(last_j, j1):
                target[j * m + i] = source[i * n + j]
    if last_i < i1:
        for i in range(last_i, i1):
            for j in range(j0, last_j):
                target[j * m + i] = source[i * n + j]


@both
def transpose(x, y):
    """y[n, m] = x[m, n] transposed: squares of a vector's width turned in registers, in blocks that
    few pages hold.
    """
    m, n = x.shape
    source, target = x.reshape(m * n), y.reshape(m * n)
    for strip in prange((m + BLOCK - 1) // BLOCK):
        i0 = strip * BLOCK
        i1 = min(m, i0 + BLOCK)
        for j0 in range(0, n, BLOCK):
            _turned(source, target, m, n, i0, i1, j0, min(n, j0 + BLOCK))


@both
def gather(table, index, y):
    """y[r] = table[index[r]]: an embedding."""
    for r in prange(index.size):
        here, there = table[index[r]], y[r]
        for j in range(there.size):
            there[j] = here[j]


@both
def scatter(dy, index, dtable):
    """dtable[index[r]] += dy[r], the width split among threads so that no two add to one place."""
    n = dtable.shape[1]
    for block in prange((n + 63) // 64):
        lo, hi = block * 64, min(n, block * 64 + 64)
        for r in range(index.size):
            here, there = dy[r, lo:hi], dtable[index[r], lo:hi]
            for j in range(hi - lo):
                there[j] += here[j]


@both
def sgd(w, g, momentum, rate, beta):
    """momentum = beta momentum + g; w -= rate momentum. rate, beta fp32."""
    for i in prange(w.size):
        momentum[i] = beta * momentum[i] + g[i]
        w[i] -= rate * momentum[i]


@both
def adam(w, g, first, second, rate, beta1, beta2, epsilon, step):
    """Adam with both biases corrected [kingma2014]; all numbers fp32, `step` counts from one."""
    fixed = rate / (ONE - beta1**step)
    widen = ONE / (ONE - beta2**step)
    for i in prange(w.size):
        first[i] = beta1 * first[i] + (ONE - beta1) * g[i]
        second[i] = beta2 * second[i] + (ONE - beta2) * g[i] * g[i]
        w[i] -= fixed * first[i] / (np.sqrt(second[i] * widen) + epsilon)
