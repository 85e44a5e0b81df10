"""The LSTM cell and attention, forward and backward, in fp32; matrix products call `gemm`."""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.arrays import Array
from roofcast.simulator.machine.kernels.compiled import both, prange
from roofcast.simulator.machine.kernels.functions import exp, greater, sigmoid, tanh
from roofcast.simulator.machine.kernels.gemm import gemm

ZERO, ONE, LEAST = np.float32(0.0), np.float32(1.0), np.float32(-3.0e38)
multiply = gemm.one


@both
def lstm_cell(gates: Array, before: Array, cell: Array, hidden: Array, kept: Array) -> None:
    """One time step of an LSTM, after its matrix products.

    gates [batch, 4 n]: input i, forget f, new g, output o, with bias; before: the old cell state.
    cell = f before + i g, hidden = o tanh(cell); kept [batch, 5 n] holds i, f, g, o, tanh(cell)
    for backward.
    """
    n = cell.shape[1]
    for b in prange(cell.shape[0]):
        row, k = gates[b], kept[b]
        # Few arrays per loop: beyond some number LLVM no longer checks that they do not overlap.
        gate = k[: 2 * n]
        for j in range(2 * n):
            gate[j] = sigmoid(row[j])
        new, new_in = k[2 * n : 3 * n], row[2 * n : 3 * n]
        last, last_in = k[3 * n : 4 * n], row[3 * n :]
        for j in range(n):
            new[j] = tanh(new_in[j])
        for j in range(n):
            last[j] = sigmoid(last_in[j])
        first, second, old, c = k[:n], k[n : 2 * n], before[b], cell[b]
        for j in range(n):
            c[j] = second[j] * old[j] + first[j] * new[j]
        tanh_cell, h = k[4 * n :], hidden[b]
        for j in range(n):
            e = tanh(c[j])
            tanh_cell[j] = e
            h[j] = last[j] * e


@both
def lstm_cell_backward(
    kept: Array, before: Array, dhidden: Array, dcell: Array, dgates: Array, dbefore: Array
) -> None:
    """Gradients of the gates (before their activations) and of the old cell state."""
    n = before.shape[1]
    for b in prange(before.shape[0]):
        k, old, dh, dc, out, db = kept[b], before[b], dhidden[b], dcell[b], dgates[b], dbefore[b]
        for j in range(n):
            i, f, g, o, tanh_cell = k[j], k[n + j], k[2 * n + j], k[3 * n + j], k[4 * n + j]
            d = dc[j] + dh[j] * o * (ONE - tanh_cell * tanh_cell)
            out[j] = d * g * i * (ONE - i)
            out[n + j] = d * old[j] * f * (ONE - f)
            out[2 * n + j] = d * i * (ONE - g * g)
            out[3 * n + j] = dh[j] * tanh_cell * o * (ONE - o)
            db[j] = d * f


@both
def attention(q: Array, k: Array, v: Array, causal: bool, out: Array, weights: Array) -> None:
    """out = softmax(q k^T / sqrt(d)) v for each head; q, k, v, out [heads, tokens, d].

    The softmax weights [heads, tokens, tokens] are kept for backward.
    """
    heads, tokens, depth = q.shape
    scale = ONE / np.float32(np.sqrt(depth))
    for head in prange(heads):
        scores = weights[head]
        multiply(q[head], k[head], scores, False, True, False)
        for r in range(tokens):
            row = scores[r]
            visible = r + 1 if causal else tokens
            largest = LEAST
            for j in range(visible):
                largest = greater(largest, row[j])
            total = ZERO
            for j in range(visible):
                e = exp((row[j] - largest) * scale)
                row[j] = e
                total += e
            for j in range(visible):
                row[j] = row[j] * (ONE / total)
            for j in range(visible, tokens):
                row[j] = ZERO
        multiply(scores, v[head], out[head], False, False, False)


@both
def attention_backward(
    q: Array, k: Array, v: Array, weights: Array, dout: Array, dq: Array, dk: Array, dv: Array
) -> None:
    """Gradients of q, k and v; masked weights are zero and so are their gradients."""
    heads, tokens, depth = q.shape
    scale = ONE / np.float32(np.sqrt(depth))
    for head in prange(heads):
        kept = weights[head]
        d = np.empty((tokens, tokens), np.float32)
        multiply(kept, dout[head], dv[head], True, False, False)
        multiply(dout[head], v[head], d, False, True, False)
        for r in range(tokens):
            row, p = d[r], kept[r]
            total = ZERO
            for j in range(tokens):
                total += row[j] * p[j]
            for j in range(tokens):
                row[j] = (row[j] - total) * p[j] * scale
        multiply(d, k[head], dq[head], False, False, False)
        multiply(d, q[head], dk[head], True, False, False)
