"""Layers of the numba training nets. Each takes what comes in and gives what goes out, with a
function for the way back.

y, back = layer(state, name, x)        dx = back(dy), and the gradients of the layer's weights stand
                                       in state.gradients
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.simulator.machine.crosscheck import net_kernels as kernels


class State(NamedTuple):
    """Weights by name, the gradients of the last step, and what an optimizer keeps."""

    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    moments: dict[str, tuple[np.ndarray, np.ndarray]]


def linear(state: State, name: str, x):
    """x[.., I] -> x W^T + b."""
    w, b = state.weights[f"{name}.w"], state.weights[f"{name}.b"]
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ w.T
    y += b

    def back(dy):
        dy = dy.reshape(-1, w.shape[0])
        state.gradients[f"{name}.w"] = dy.T @ rows
        state.gradients[f"{name}.b"] = dy.sum(0)
        return (dy @ w).reshape(x.shape)

    return y.reshape(*x.shape[:-1], w.shape[0]), back


def relu(x):
    """max(x, 0) of an array of any shape; the way back reads the result."""
    y = np.empty_like(x)
    kernels.relu(x.reshape(-1), y.reshape(-1))

    def back(dy):
        dx = np.empty_like(y)
        kernels.relu_backward(y.reshape(-1), dy.reshape(-1), dx.reshape(-1))
        return dx

    return y, back


def gelu(x):
    """GELU of an array of any shape; the way back reads x."""
    y = np.empty_like(x)
    kernels.gelu(x.reshape(-1), y.reshape(-1))

    def back(dy):
        dx = np.empty_like(x)
        kernels.gelu_backward(x.reshape(-1), dy.reshape(-1), dx.reshape(-1))
        return dx

    return y, back


def conv(state: State, name: str, x):
    """x[C, B, H, W] -> [O, B, H', W'], unit stride, no padding: one product with the windows as
    columns. Channels come first, so that the product's result lies as the next layer wants it.
    """
    w, b = state.weights[f"{name}.w"], state.weights[f"{name}.b"]
    out, channels, kernel, _ = w.shape
    space = (x.shape[1], x.shape[2] - kernel + 1, x.shape[3] - kernel + 1)
    columns = np.empty((channels * kernel * kernel, *space), x.dtype)
    kernels.im2col(x, kernel, columns)
    flat, matrix = columns.reshape(len(columns), -1), w.reshape(out, -1)
    y = matrix @ flat
    y += b[:, None]

    def back(dy):
        dy = dy.reshape(out, -1)
        state.gradients[f"{name}.w"] = (dy @ flat.T).reshape(w.shape)
        state.gradients[f"{name}.b"] = dy.sum(1)
        if name == "conv1":  # nobody asks for the gradient of the pictures
            return None
        dx = np.empty_like(x)
        kernels.col2im((matrix.T @ dy).reshape(columns.shape), kernel, dx)
        return dx

    return y.reshape(out, *space), back


def max_pool(x):
    """The largest of each 2x2 window of the last two axes."""
    flat = x.reshape(-1, *x.shape[2:])
    y = np.empty((flat.shape[0], flat.shape[1] // 2, flat.shape[2] // 2), x.dtype)
    where = np.empty(y.shape, np.int8)
    kernels.max_pool(flat, y, where)

    def back(dy):
        dx = np.empty_like(flat)
        kernels.max_pool_backward(dy.reshape(y.shape), where, dx)
        return dx.reshape(x.shape)

    return y.reshape(*x.shape[:2], *y.shape[1:]), back


def flatten(x):
    """[C, B, H, W] -> [B, C H W], copied."""
    channels, batch, *space = x.shape
    y = np.ascontiguousarray(x.transpose(1, 0, 2, 3)).reshape(batch, -1)
    return y, lambda dy: np.ascontiguousarray(
        dy.reshape(batch, channels, *space).transpose(1, 0, 2, 3)
    )


def layer_norm(state: State, name: str, x):
    """x[.., W] normalised over its last axis (epsilon 1e-5), times a scale and plus a shift, both
    [W] [ba2016].
    """
    scale, shift = state.weights[f"{name}.w"], state.weights[f"{name}.b"]
    rows = x.reshape(-1, x.shape[-1])
    y, mean, inverse = (
        np.empty_like(rows),
        np.empty(len(rows), x.dtype),
        np.empty(len(rows), x.dtype),
    )
    kernels.layer_norm(rows, scale, shift, y, mean, inverse, 1e-5)

    def back(dy):
        dx, d_scale, d_shift = np.empty_like(rows), np.zeros_like(scale), np.zeros_like(shift)
        kernels.layer_norm_backward(
            rows, scale, mean, inverse, dy.reshape(rows.shape), dx, d_scale, d_shift
        )
        state.gradients[f"{name}.w"], state.gradients[f"{name}.b"] = d_scale, d_shift
        return dx.reshape(x.shape)

    return y.reshape(x.shape), back


def embedding(state: State, name: str, ids):
    """Rows of a table; its gradient is as large as the table."""
    table = state.weights[name]
    y = np.empty((*ids.shape, table.shape[1]), table.dtype)
    kernels.gather(table, ids.reshape(-1), y.reshape(-1, table.shape[1]))

    def back(dy):
        state.gradients[name] = gradient = np.empty_like(table)
        kernels.scatter(dy.reshape(-1, table.shape[1]), ids.reshape(-1), gradient)

    return y, back


def attention(state: State, name: str, x, heads: int):
    """Causal self-attention over x[B, S, W], scores written out."""
    batch, length, width = x.shape
    dim, scale = width // heads, x.dtype.type((width // heads) ** -0.5)
    shape = (batch, length, heads, dim)
    parts = [linear(state, f"{name}.{n}", x) for n in ("q", "k", "v")]
    q, k, v = (
        np.ascontiguousarray(y.reshape(shape).transpose(0, 2, 1, 3)).reshape(-1, length, dim)
        for y, _ in parts
    )
    p = q @ k.transpose(0, 2, 1)
    kernels.causal_softmax(p, scale)
    joined = np.ascontiguousarray(
        (p @ v).reshape(batch, heads, length, dim).transpose(0, 2, 1, 3)
    ).reshape(x.shape)
    y, back_out = linear(state, f"{name}.proj", joined)

    def back(dy):
        do = np.ascontiguousarray(back_out(dy).reshape(shape).transpose(0, 2, 1, 3)).reshape(
            q.shape
        )
        dv, ds = p.transpose(0, 2, 1) @ do, do @ v.transpose(0, 2, 1)
        kernels.softmax_backward(p, ds, scale)
        dx = 0
        for d, (_, back_in) in zip((ds @ k, ds.transpose(0, 2, 1) @ q, dv), parts, strict=True):
            dx = dx + back_in(
                np.ascontiguousarray(
                    d.reshape(batch, heads, length, dim).transpose(0, 2, 1, 3)
                ).reshape(x.shape)
            )
        return dx

    return y, back


def cross_entropy(logits, labels):
    """Mean loss over all rows."""
    rows = logits.reshape(-1, logits.shape[-1])
    gradient = np.empty_like(rows)
    loss = kernels.cross_entropy(rows, labels.reshape(-1), gradient)
    return loss, lambda: gradient.reshape(logits.shape)


def update(state: State, optimizer: str, rate: float, step: int):
    """Every weight moved by its gradient; `step` counts from 1."""
    for name, p in state.weights.items():
        g = state.gradients[name].reshape(-1)
        if optimizer == "sgd":
            kernels.sgd(p.reshape(-1), g, p.dtype.type(rate))
            continue
        if name not in state.moments:
            state.moments[name] = (np.zeros(p.size, p.dtype), np.zeros(p.size, p.dtype))
        kernels.adam(p.reshape(-1), g, *state.moments[name], rate, step)
