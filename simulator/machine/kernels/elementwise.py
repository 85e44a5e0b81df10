"""Pointwise kernels, data movement and optimizer updates.

Arrays are fp32, contiguous and, unless stated otherwise, flat. The caller allocates the outputs.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.arrays import Array, Index
from roofcast.simulator.machine.kernels.compiled import both, inner, prange
from roofcast.simulator.machine.kernels.functions import erf, exp
from roofcast.simulator.machine.kernels.vectors import LANES, turn

HALF, ONE, ZERO = np.float32(0.5), np.float32(1.0), np.float32(0.0)
ROOT_HALF, GAUSS = np.float32(0.5**0.5), np.float32((2 * np.pi) ** -0.5)
PIECE = 512  # columns that one thread sums: long enough for hardware prefetching
SCATTER_PIECE = 64  # columns that one thread scatters
BLOCK = 64  # edge of a block of a transpose


@both
def add(a: Array, b: Array, y: Array) -> None:
    """y = a + b."""
    for i in prange(y.size):
        y[i] = a[i] + b[i]


@both
def relu(x: Array, y: Array) -> None:
    """y = max(x, 0)."""
    for i in prange(y.size):
        y[i] = x[i] if x[i] > ZERO else ZERO


@both
def relu_backward(y: Array, dy: Array, dx: Array) -> None:
    """dx = dy where y > 0."""
    for i in prange(y.size):
        dx[i] = dy[i] if y[i] > ZERO else ZERO


@both
def gelu(x: Array, y: Array) -> None:
    """y = x Phi(x), exact (erf)."""
    for i in prange(y.size):
        y[i] = HALF * x[i] * (ONE + erf(x[i] * ROOT_HALF))


@both
def gelu_backward(x: Array, dy: Array, dx: Array) -> None:
    """dx = dy (Phi(x) + x phi(x))."""
    for i in prange(dx.size):
        v = x[i]
        dx[i] = dy[i] * (HALF * (ONE + erf(v * ROOT_HALF)) + v * GAUSS * exp(-HALF * v * v))


@both
def add_bias(x: Array, bias: Array, y: Array) -> None:
    """y[row] = x[row] + bias; x [rows, n]."""
    for r in prange(x.shape[0]):
        row, out = x[r], y[r]
        for j in range(row.size):
            out[j] = row[j] + bias[j]


@both
def sum_rows(dy: Array, dbias: Array) -> None:
    """dbias = sum of the rows of dy [rows, n], the gradient of a bias; threads split n."""
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
def _transpose_block(source, target, m, n, i0, i1, j0, j1):
    """target[n, m] = source[m, n]^T for rows i0 .. i1 and columns j0 .. j1 of the source.

    Whole squares of LANES first, then the remaining columns and rows.
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
def transpose(x: Array, y: Array) -> None:
    """y[n, m] = x[m, n]^T.

    Squares of a vector's width are transposed in registers, in blocks that span few pages.
    """
    m, n = x.shape
    source, target = x.reshape(m * n), y.reshape(m * n)
    for strip in prange((m + BLOCK - 1) // BLOCK):
        i0 = strip * BLOCK
        i1 = min(m, i0 + BLOCK)
        for j0 in range(0, n, BLOCK):
            _transpose_block(source, target, m, n, i0, i1, j0, min(n, j0 + BLOCK))


@both
def gather(table: Array, index: Index, y: Array) -> None:
    """y[r] = table[index[r]]: an embedding."""
    for r in prange(index.size):
        row, out = table[index[r]], y[r]
        for j in range(out.size):
            out[j] = row[j]


@both
def scatter(dy: Array, index: Index, dtable: Array) -> None:
    """dtable[index[r]] += dy[r]; threads split the width, so that no two add to one element."""
    n = dtable.shape[1]
    for block in prange((n + SCATTER_PIECE - 1) // SCATTER_PIECE):
        lo, hi = block * SCATTER_PIECE, min(n, block * SCATTER_PIECE + SCATTER_PIECE)
        for r in range(index.size):
            row, out = dy[r, lo:hi], dtable[index[r], lo:hi]
            for j in range(hi - lo):
                out[j] += row[j]


@both
def sgd(w: Array, g: Array, momentum: Array, rate: np.float32, beta: np.float32) -> None:
    """momentum = beta momentum + g; w -= rate momentum."""
    for i in prange(w.size):
        momentum[i] = beta * momentum[i] + g[i]
        w[i] -= rate * momentum[i]


@both
def adam(
    w: Array,
    g: Array,
    first: Array,
    second: Array,
    rate: np.float32,
    beta1: np.float32,
    beta2: np.float32,
    epsilon: np.float32,
    step: np.float32,
) -> None:
    """Adam with bias correction of both moments [kingma2014]; `step` counts from 1."""
    corrected_rate = rate / (ONE - beta1**step)
    correction = ONE / (ONE - beta2**step)
    for i in prange(w.size):
        first[i] = beta1 * first[i] + (ONE - beta1) * g[i]
        second[i] = beta2 * second[i] + (ONE - beta2) * g[i] * g[i]
        w[i] -= corrected_rate * first[i] / (np.sqrt(second[i] * correction) + epsilon)
