"""Numba kernels of the training nets: forward, backward and update, one thread, any float format.
Rows are the last axis.

Products are numpy's (BLAS); everything else of a step is here. A loop reads and writes each element
once where it can.
"""

from __future__ import annotations

import math

import numpy as np

from roofcast.simulator.machine.kernels.compiled import outer

SQRT_HALF = 0.7071067811865476
NORMAL = 0.3989422804014327  # 1 / sqrt(2 pi)


@outer
def relu(x, y):
    """y = max(x, 0), both flat."""
    for i in range(x.size):
        y[i] = x[i] if x[i] > 0 else x.dtype.type(0)


@outer
def relu_backward(y, dy, dx):
    """dx = dy where y > 0, all flat."""
    for i in range(y.size):
        dx[i] = dy[i] if y[i] > 0 else dy.dtype.type(0)


@outer
def gelu(x, y):
    """y = x Phi(x), both flat."""
    half, one, root = x.dtype.type(0.5), x.dtype.type(1.0), x.dtype.type(SQRT_HALF)
    for i in range(x.size):
        y[i] = half * x[i] * (one + math.erf(x[i] * root))


@outer
def gelu_backward(x, dy, dx):
    """dx = dy (Phi(x) + x phi(x)), all flat."""
    half, one, root, normal = (
        x.dtype.type(0.5),
        x.dtype.type(1.0),
        x.dtype.type(SQRT_HALF),
        x.dtype.type(NORMAL),
    )
    for i in range(x.size):
        v = x[i]
        dx[i] = dy[i] * (half * (one + math.erf(v * root)) + v * normal * math.exp(-half * v * v))


@outer
def im2col(x, kernel, columns):
    """x[C, B, H, W] -> columns[C kernel kernel, B, H', W'], no padding, unit stride."""
    channels, batch, height, width = x.shape
    out_h, out_w = height - kernel + 1, width - kernel + 1
    for c in range(channels):
        for i in range(kernel):
            for j in range(kernel):
                to = columns[(c * kernel + i) * kernel + j]
                for b in range(batch):
                    for h in range(out_h):
                        row, out = x[c, b, h + i], to[b, h]
                        for w in range(out_w):
                            out[w] = row[w + j]


@outer
def col2im(columns, kernel, dx):
    """The gradient of im2col: sums columns[C kernel kernel, B, H', W'] into dx[C, B, H, W]."""
    channels, batch, height, width = dx.shape
    out_h, out_w = height - kernel + 1, width - kernel + 1
    dx[:] = 0
    for c in range(channels):
        for i in range(kernel):
            for j in range(kernel):
                come = columns[(c * kernel + i) * kernel + j]
                for b in range(batch):
                    for h in range(out_h):
                        row, back = dx[c, b, h + i], come[b, h]
                        for w in range(out_w):
                            row[w + j] += back[w]


@outer
def max_pool(x, y, where):
    """x[N, H, W] -> the largest of each 2x2 window y[N, H/2, W/2], and which of the four it was."""
    for n in range(y.shape[0]):
        for h in range(y.shape[1]):
            above, below, out, best = x[n, 2 * h], x[n, 2 * h + 1], y[n, h], where[n, h]
            for w in range(y.shape[2]):
                a, b, c, d = above[2 * w], above[2 * w + 1], below[2 * w], below[2 * w + 1]
                top, bottom = max(a, b), max(c, d)
                out[w] = max(top, bottom)
                best[w] = (0 if a >= b else 1) if top >= bottom else (2 if c >= d else 3)


@outer
def max_pool_backward(dy, where, dx):
    """dy goes to the place that was largest; the other three get nothing."""
    dx[:] = 0
    for n in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            for w in range(dy.shape[2]):
                k = where[n, h, w]
                dx[n, 2 * h + k // 2, 2 * w + k % 2] = dy[n, h, w]


@outer
def layer_norm(x, scale, shift, y, mean, inverse, eps):
    """y = (x - mean) / sqrt(variance + eps) scale + shift, a row of x[N, W] at a time [ba2016]."""
    rows, width = x.shape
    for n in range(rows):
        row, out = x[n], y[n]
        total = x.dtype.type(0)
        for w in range(width):
            total += row[w]
        m = total / width
        square = x.dtype.type(0)
        for w in range(width):
            square += (row[w] - m) * (row[w] - m)
        r = x.dtype.type(1.0 / math.sqrt(square / width + eps))
        mean[n], inverse[n] = m, r
        for w in range(width):
            out[w] = (row[w] - m) * r * scale[w] + shift[w]


@outer
def layer_norm_backward(x, scale, mean, inverse, dy, dx, d_scale, d_shift):
    """Gradients of x[N, W], scale and shift (the last two summed into)."""
    rows, width = x.shape
    for n in range(rows):
        row, come, out = x[n], dy[n], dx[n]
        m, r = mean[n], inverse[n]
        first, second = x.dtype.type(0), x.dtype.type(0)
        for w in range(width):
            g, z = come[w] * scale[w], (row[w] - m) * r
            first += g
            second += g * z
            d_scale[w] += come[w] * z
            d_shift[w] += come[w]
        first, second = x.dtype.type(first / width), x.dtype.type(second / width)
        for w in range(width):
            out[w] = r * (come[w] * scale[w] - first - (row[w] - m) * r * second)


@outer
def causal_softmax(scores, scale):
    """In place: each row of scores[N, S, S] times scale, columns after its own left out, as
    probabilities.
    """
    for n in range(scores.shape[0]):
        for s in range(scores.shape[1]):
            row = scores[n, s]
            most = row[0]
            for k in range(1, s + 1):
                most = row[k] if row[k] > most else most
            total = scores.dtype.type(0)
            for k in range(s + 1):
                row[k] = math.exp((row[k] - most) * scale)
                total += row[k]
            for k in range(s + 1):
                row[k] /= total
            for k in range(s + 1, row.size):
                row[k] = 0


@outer
def softmax_backward(p, dp, scale):
    """dp[N, S, S] becomes the gradient of the scores: scale p (dp - sum(p dp))."""
    for n in range(p.shape[0]):
        for s in range(p.shape[1]):
            row, come = p[n, s], dp[n, s]
            total = p.dtype.type(0)
            for k in range(row.size):
                total += row[k] * come[k]
            for k in range(row.size):
                come[k] = scale * row[k] * (come[k] - total)


@outer
def cross_entropy(logits, labels, gradient):
    """Mean of -log softmax(logits[N, C])[label]; the gradient comes with it."""
    rows, classes = logits.shape
    total = 0.0
    share = logits.dtype.type(1.0 / rows)
    for n in range(rows):
        row, out = logits[n], gradient[n]
        most = row[0]
        for c in range(1, classes):
            most = row[c] if row[c] > most else most
        s = logits.dtype.type(0)
        for c in range(classes):
            out[c] = math.exp(row[c] - most)
            s += out[c]
        total += math.log(s) - (row[labels[n]] - most)
        for c in range(classes):
            out[c] *= share / s
        out[labels[n]] -= share
    return total / rows


@outer
def gather(table, ids, y):
    """y[N, W] = rows of the table."""
    for n in range(ids.size):
        row, out = table[ids[n]], y[n]
        for w in range(out.size):
            out[w] = row[w]


@outer
def scatter(dy, ids, d_table):
    """Sums dy[N, W] into the rows of d_table, which is emptied first."""
    d_table[:] = 0
    for n in range(ids.size):
        row, come = d_table[ids[n]], dy[n]
        for w in range(come.size):
            row[w] += come[w]


@outer
def dot_sigmoid(u, v, bu, bv, wanted, du, dv, db):
    """Mean binary cross-entropy of sigmoid(mean(u v) + bu + bv) against `wanted`, and the
    gradients: db of either bias.
    """
    rows, width = u.shape
    total = 0.0
    for n in range(rows):
        a, b, da, dd = u[n], v[n], du[n], dv[n]
        s = u.dtype.type(0)
        for w in range(width):
            s += a[w] * b[w]
        p = 1.0 / (1.0 + math.exp(-(s / width + bu[n, 0] + bv[n, 0])))
        y = wanted[n]
        total -= y * math.log(max(p, 1e-12)) + (1.0 - y) * math.log(max(1.0 - p, 1e-12))
        g = u.dtype.type((p - y) / rows)
        db[n, 0] = g
        g = u.dtype.type(g / width)
        for w in range(width):
            da[w] = g * b[w]
            dd[w] = g * a[w]
    return total / rows


@outer
def sgd(p, g, rate):
    """p -= rate g, both flat."""
    for i in range(p.size):
        p[i] -= rate * g[i]


@outer
def adam(p, g, m, v, rate, step):
    """Adam [kingma2014, Algorithm 1], beta 0.9 and 0.999, all flat; `step` counts from 1."""
    kind = p.dtype.type
    one, b1, b2, eps = kind(1.0), kind(0.9), kind(0.999), kind(1e-8)
    size = kind(rate / (1.0 - 0.9**step))
    correct = kind(1.0 / (1.0 - 0.999**step))
    for i in range(p.size):
        m[i] = b1 * m[i] + (one - b1) * g[i]
        v[i] = b2 * v[i] + (one - b2) * g[i] * g[i]
        p[i] -= size * m[i] / (np.sqrt(v[i] * correct) + eps)
