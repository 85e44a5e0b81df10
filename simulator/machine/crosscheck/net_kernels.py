"""Numba kernels of the training nets: forward, backward and update, any float format.

Threads share the outer loops, except where several rows are added to one result. Rows are the last
axis. Matrix products are numpy's (BLAS); everything else of a step is here. Loops read and write
each element once where possible. The caller allocates the outputs.
"""

from __future__ import annotations

import math

import numpy as np

from roofcast.simulator.machine.kernels.compiled import any_float, in_turn, prange

SQRT_HALF = 0.7071067811865476
NORMAL = 0.3989422804014327  # 1 / sqrt(2 pi)


@any_float
def relu(x: np.ndarray, y: np.ndarray) -> None:
    """y = max(x, 0); both flat."""
    for i in prange(x.size):
        y[i] = x[i] if x[i] > 0 else x.dtype.type(0)


@any_float
def relu_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy where y > 0; all flat."""
    for i in prange(y.size):
        dx[i] = dy[i] if y[i] > 0 else dy.dtype.type(0)


@any_float
def gelu(x: np.ndarray, y: np.ndarray) -> None:
    """y = x Phi(x); both flat."""
    half, one, root = x.dtype.type(0.5), x.dtype.type(1.0), x.dtype.type(SQRT_HALF)
    for i in prange(x.size):
        y[i] = half * x[i] * (one + math.erf(x[i] * root))


@any_float
def gelu_backward(x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy (Phi(x) + x phi(x)); all flat."""
    half, one = x.dtype.type(0.5), x.dtype.type(1.0)
    root, normal = x.dtype.type(SQRT_HALF), x.dtype.type(NORMAL)
    for i in prange(x.size):
        v = x[i]
        dx[i] = dy[i] * (half * (one + math.erf(v * root)) + v * normal * math.exp(-half * v * v))


@any_float
def im2col(x: np.ndarray, kernel: int, columns: np.ndarray) -> None:
    """x[C, B, H, W] -> columns[C kernel kernel, B, H', W'], no padding, unit stride."""
    channels, batch, height, width = x.shape
    out_h, out_w = height - kernel + 1, width - kernel + 1
    for c in prange(channels):
        for i in range(kernel):
            for j in range(kernel):
                to = columns[(c * kernel + i) * kernel + j]
                for b in range(batch):
                    for h in range(out_h):
                        row, out = x[c, b, h + i], to[b, h]
                        for w in range(out_w):
                            out[w] = row[w + j]


@any_float
def col2im(columns: np.ndarray, kernel: int, dx: np.ndarray) -> None:
    """The gradient of im2col: sums columns[C kernel kernel, B, H', W'] into dx[C, B, H, W]."""
    channels, batch, height, width = dx.shape
    out_h, out_w = height - kernel + 1, width - kernel + 1
    dx[:] = 0
    for c in prange(channels):
        for i in range(kernel):
            for j in range(kernel):
                grad = columns[(c * kernel + i) * kernel + j]
                for b in range(batch):
                    for h in range(out_h):
                        row, source = dx[c, b, h + i], grad[b, h]
                        for w in range(out_w):
                            row[w + j] += source[w]


@any_float
def max_pool(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> None:
    """x[N, H, W] -> the maximum of each 2x2 window y[N, H/2, W/2], and its position (0 to 3)."""
    for n in prange(y.shape[0]):
        for h in range(y.shape[1]):
            above, below, out, best = x[n, 2 * h], x[n, 2 * h + 1], y[n, h], where[n, h]
            for w in range(y.shape[2]):
                a, b, c, d = above[2 * w], above[2 * w + 1], below[2 * w], below[2 * w + 1]
                top, bottom = max(a, b), max(c, d)
                out[w] = max(top, bottom)
                best[w] = (0 if a >= b else 1) if top >= bottom else (2 if c >= d else 3)


@any_float
def max_pool_backward(dy: np.ndarray, where: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy at the position of each maximum, zero elsewhere."""
    dx[:] = 0
    for n in prange(dy.shape[0]):
        for h in range(dy.shape[1]):
            for w in range(dy.shape[2]):
                k = where[n, h, w]
                dx[n, 2 * h + k // 2, 2 * w + k % 2] = dy[n, h, w]


@any_float
def layer_norm(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    y: np.ndarray,
    mean: np.ndarray,
    inverse: np.ndarray,
    eps: float,
) -> None:
    """y = (x - mean) / sqrt(variance + eps) scale + shift for each row of x[N, W] [ba2016]."""
    rows, width = x.shape
    for n in prange(rows):
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


@in_turn
def layer_norm_backward(
    x: np.ndarray,
    scale: np.ndarray,
    mean: np.ndarray,
    inverse: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    d_scale: np.ndarray,
    d_shift: np.ndarray,
) -> None:
    """Gradients of x[N, W], scale and shift; the last two are added to d_scale and d_shift."""
    rows, width = x.shape
    for n in range(rows):
        row, grad, out = x[n], dy[n], dx[n]
        m, r = mean[n], inverse[n]
        first, second = x.dtype.type(0), x.dtype.type(0)
        for w in range(width):
            g, z = grad[w] * scale[w], (row[w] - m) * r
            first += g
            second += g * z
            d_scale[w] += grad[w] * z
            d_shift[w] += grad[w]
        first, second = x.dtype.type(first / width), x.dtype.type(second / width)
        for w in range(width):
            out[w] = r * (grad[w] * scale[w] - first - (row[w] - m) * r * second)


@any_float
def causal_softmax(scores: np.ndarray, scale: np.floating) -> None:
    """In place: softmax of scale times each row of scores[N, S, S], later columns masked."""
    for n in prange(scores.shape[0]):
        for s in range(scores.shape[1]):
            row = scores[n, s]
            largest = row[0]
            for k in range(1, s + 1):
                largest = row[k] if row[k] > largest else largest
            total = scores.dtype.type(0)
            for k in range(s + 1):
                row[k] = math.exp((row[k] - largest) * scale)
                total += row[k]
            for k in range(s + 1):
                row[k] /= total
            for k in range(s + 1, row.size):
                row[k] = 0


@any_float
def softmax_backward(p: np.ndarray, dp: np.ndarray, scale: np.floating) -> None:
    """In place: dp[N, S, S] becomes the gradient of the scores, scale p (dp - sum(p dp))."""
    for n in prange(p.shape[0]):
        for s in range(p.shape[1]):
            row, grad = p[n, s], dp[n, s]
            total = p.dtype.type(0)
            for k in range(row.size):
                total += row[k] * grad[k]
            for k in range(row.size):
                grad[k] = scale * row[k] * (grad[k] - total)


@any_float
def cross_entropy(logits: np.ndarray, labels: np.ndarray, gradient: np.ndarray) -> float:
    """Mean of -log softmax(logits[N, C])[label]; also writes the gradient of the logits."""
    rows = logits.shape[0]
    total = 0.0
    share = logits.dtype.type(1.0 / rows)
    for n in prange(rows):
        total += _row_loss(logits[n], labels[n], gradient[n], share)
    return total / rows


@in_turn
def _row_loss(row: np.ndarray, label: int, out: np.ndarray, share: np.floating) -> float:
    """-log softmax(row)[label]; also writes `share` of its gradient."""
    largest = row[0]
    for c in range(1, row.size):
        largest = row[c] if row[c] > largest else largest
    s = row.dtype.type(0)
    for c in range(row.size):
        out[c] = math.exp(row[c] - largest)
        s += out[c]
    for c in range(row.size):
        out[c] *= share / s
    out[label] -= share
    return math.log(s) - (row[label] - largest)


@any_float
def gather(table: np.ndarray, ids: np.ndarray, y: np.ndarray) -> None:
    """y[N, W] = the rows ids of the table."""
    for n in prange(ids.size):
        row, out = table[ids[n]], y[n]
        for w in range(out.size):
            out[w] = row[w]


@in_turn
def scatter(dy: np.ndarray, ids: np.ndarray, d_table: np.ndarray) -> None:
    """d_table = the sum of the rows of dy[N, W] by their ids; zero for other rows."""
    d_table[:] = 0
    for n in range(ids.size):
        row, grad = d_table[ids[n]], dy[n]
        for w in range(grad.size):
            row[w] += grad[w]


@any_float
def dot_sigmoid(
    u: np.ndarray,
    v: np.ndarray,
    bu: np.ndarray,
    bv: np.ndarray,
    labels: np.ndarray,
    du: np.ndarray,
    dv: np.ndarray,
    db: np.ndarray,
) -> float:
    """Mean binary cross-entropy of sigmoid(mean(u v) + bu + bv), and its gradients.

    Both biases have the same gradient, db.
    """
    rows, width = u.shape
    total = 0.0
    for n in prange(rows):
        a, b, da, dd = u[n], v[n], du[n], dv[n]
        s = u.dtype.type(0)
        for w in range(width):
            s += a[w] * b[w]
        p = 1.0 / (1.0 + math.exp(-(s / width + bu[n, 0] + bv[n, 0])))
        y = labels[n]
        total -= y * math.log(max(p, 1e-12)) + (1.0 - y) * math.log(max(1.0 - p, 1e-12))
        g = u.dtype.type((p - y) / rows)
        db[n, 0] = g
        g = u.dtype.type(g / width)
        for w in range(width):
            da[w] = g * b[w]
            dd[w] = g * a[w]
    return total / rows


@any_float
def sgd(p: np.ndarray, g: np.ndarray, rate: float) -> None:
    """p -= rate g; both flat."""
    for i in prange(p.size):
        p[i] -= rate * g[i]


@any_float
def adam(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, rate: float, step: int
) -> None:
    """Adam [kingma2014, Algorithm 1], betas 0.9 and 0.999; all flat; `step` counts from 1."""
    kind = p.dtype.type
    one, b1, b2, eps = kind(1.0), kind(0.9), kind(0.999), kind(1e-8)
    size = kind(rate / (1.0 - 0.9**step))
    correct = kind(1.0 / (1.0 - 0.999**step))
    for i in prange(p.size):
        m[i] = b1 * m[i] + (one - b1) * g[i]
        v[i] = b2 * v[i] + (one - b2) * g[i] * g[i]
        p[i] -= size * m[i] / (np.sqrt(v[i] * correct) + eps)
