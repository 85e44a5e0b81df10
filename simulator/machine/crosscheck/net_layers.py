"""Layers of the numba training nets.

y, back = layer(state, name, x)
dx = back(dy)                       # stores the weights' gradients in state.gradients
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from roofcast.simulator.machine.crosscheck import net_kernels as kernels

Back: TypeAlias = Callable[[np.ndarray], np.ndarray]  # dy -> dx


class State(NamedTuple):
    """Weights by name, gradients of the last step, and the optimizer's state."""

    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    moments: dict[str, tuple[np.ndarray, np.ndarray]]


def linear(state: State, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
    """x[.., I] -> x W^T + b."""
    w, b = state.weights[f"{name}.w"], state.weights[f"{name}.b"]
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ w.T
    y += b

    def back(dy: np.ndarray) -> np.ndarray:
        dy = dy.reshape(-1, w.shape[0])
        state.gradients[f"{name}.w"] = dy.T @ rows
        state.gradients[f"{name}.b"] = dy.sum(0)
        return (dy @ w).reshape(x.shape)

    return y.reshape(*x.shape[:-1], w.shape[0]), back


def relu(x: np.ndarray) -> tuple[np.ndarray, Back]:
    """max(x, 0) of an array of any shape; backward reads the result."""
    y = np.empty_like(x)
    kernels.relu(x.reshape(-1), y.reshape(-1))

    def back(dy: np.ndarray) -> np.ndarray:
        dx = np.empty_like(y)
        kernels.relu_backward(y.reshape(-1), dy.reshape(-1), dx.reshape(-1))
        return dx

    return y, back


def gelu(x: np.ndarray) -> tuple[np.ndarray, Back]:
    """GELU of an array of any shape; backward reads x."""
    y = np.empty_like(x)
    kernels.gelu(x.reshape(-1), y.reshape(-1))

    def back(dy: np.ndarray) -> np.ndarray:
        dx = np.empty_like(x)
        kernels.gelu_backward(x.reshape(-1), dy.reshape(-1), dx.reshape(-1))
        return dx

    return y, back


def conv(state: State, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
    """x[C, B, H, W] -> [O, B, H', W'], unit stride, no padding: im2col and one product.

    Channels come first, so that the product's result has the layout of the next layer's input. The
    gradient of the images, which conv1 reads, is not computed: backward returns an empty array.
    """
    w, b = state.weights[f"{name}.w"], state.weights[f"{name}.b"]
    out, channels, kernel, _ = w.shape
    space = (x.shape[1], x.shape[2] - kernel + 1, x.shape[3] - kernel + 1)
    columns = np.empty((channels * kernel * kernel, *space), x.dtype)
    kernels.im2col(x, kernel, columns)
    flat, matrix = columns.reshape(len(columns), -1), w.reshape(out, -1)
    y = matrix @ flat
    y += b[:, None]

    def back(dy: np.ndarray) -> np.ndarray:
        dy = dy.reshape(out, -1)
        state.gradients[f"{name}.w"] = (dy @ flat.T).reshape(w.shape)
        state.gradients[f"{name}.b"] = dy.sum(1)
        if name == "conv1":
            return x[:0]
        dx = np.empty_like(x)
        kernels.col2im((matrix.T @ dy).reshape(columns.shape), kernel, dx)
        return dx

    return y.reshape(out, *space), back


def max_pool(x: np.ndarray) -> tuple[np.ndarray, Back]:
    """The maximum of each 2x2 window of the last two axes."""
    flat = x.reshape(-1, *x.shape[2:])
    y = np.empty((flat.shape[0], flat.shape[1] // 2, flat.shape[2] // 2), x.dtype)
    where = np.empty(y.shape, np.int8)
    kernels.max_pool(flat, y, where)

    def back(dy: np.ndarray) -> np.ndarray:
        dx = np.empty_like(flat)
        kernels.max_pool_backward(dy.reshape(y.shape), where, dx)
        return dx.reshape(x.shape)

    return y.reshape(*x.shape[:2], *y.shape[1:]), back


def flatten(x: np.ndarray) -> tuple[np.ndarray, Back]:
    """[C, B, H, W] -> [B, C H W], copied."""
    channels, batch, *space = x.shape
    y = np.ascontiguousarray(x.transpose(1, 0, 2, 3)).reshape(batch, -1)

    def back(dy: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(dy.reshape(batch, channels, *space).transpose(1, 0, 2, 3))

    return y, back


def layer_norm(state: State, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
    """x[.., W] normalized over its last axis (epsilon 1e-5), with scale and shift [ba2016]."""
    scale, shift = state.weights[f"{name}.w"], state.weights[f"{name}.b"]
    rows = x.reshape(-1, x.shape[-1])
    y = np.empty_like(rows)
    mean, inverse = (np.empty(len(rows), x.dtype) for _ in range(2))
    kernels.layer_norm(rows, scale, shift, y, mean, inverse, 1e-5)

    def back(dy: np.ndarray) -> np.ndarray:
        dx, d_scale, d_shift = np.empty_like(rows), np.zeros_like(scale), np.zeros_like(shift)
        kernels.layer_norm_backward(
            rows, scale, mean, inverse, dy.reshape(rows.shape), dx, d_scale, d_shift
        )
        state.gradients[f"{name}.w"], state.gradients[f"{name}.b"] = d_scale, d_shift
        return dx.reshape(x.shape)

    return y.reshape(x.shape), back


def embedding(
    state: State, name: str, ids: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
    """Rows of a table; the gradient has the size of the table."""
    table = state.weights[name]
    y = np.empty((*ids.shape, table.shape[1]), table.dtype)
    kernels.gather(table, ids.reshape(-1), y.reshape(-1, table.shape[1]))

    def back(dy: np.ndarray) -> None:
        state.gradients[name] = gradient = np.empty_like(table)
        kernels.scatter(dy.reshape(-1, table.shape[1]), ids.reshape(-1), gradient)

    return y, back


def attention(state: State, name: str, x: np.ndarray, heads: int) -> tuple[np.ndarray, Back]:
    """Causal self-attention over x[B, S, W] that stores its scores."""
    batch, length, width = x.shape
    dim, scale = width // heads, x.dtype.type((width // heads) ** -0.5)
    by_token, by_head = (batch, length, heads, dim), (batch, heads, length, dim)

    def split(y: np.ndarray) -> np.ndarray:
        """[B, S, W] -> [B heads, S, dim]."""
        moved = y.reshape(by_token).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(moved).reshape(-1, length, dim)

    def merge(y: np.ndarray) -> np.ndarray:
        """[B heads, S, dim] -> [B, S, W]."""
        moved = y.reshape(by_head).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(moved).reshape(x.shape)

    parts = [linear(state, f"{name}.{n}", x) for n in ("q", "k", "v")]
    q, k, v = (split(y) for y, _ in parts)
    p = q @ k.transpose(0, 2, 1)
    kernels.causal_softmax(p, scale)
    y, back_out = linear(state, f"{name}.proj", merge(p @ v))

    def back(dy: np.ndarray) -> np.ndarray:
        do = split(back_out(dy))
        dv, ds = p.transpose(0, 2, 1) @ do, do @ v.transpose(0, 2, 1)
        kernels.softmax_backward(p, ds, scale)
        gradients = (ds @ k, ds.transpose(0, 2, 1) @ q, dv)
        dq, dk, dv = (back_in(merge(d)) for d, (_, back_in) in zip(gradients, parts, strict=True))
        return dq + dk + dv

    return y, back


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, Callable[[], np.ndarray]]:
    """Mean loss over all rows, and a function that returns the gradient of the logits."""
    rows = logits.reshape(-1, logits.shape[-1])
    gradient = np.empty_like(rows)
    loss = kernels.cross_entropy(rows, labels.reshape(-1), gradient)
    return loss, lambda: gradient.reshape(logits.shape)


def update(state: State, optimizer: str, rate: float, step: int) -> None:
    """Update every weight by "sgd" or "adam"; `step` counts from 1."""
    for name, p in state.weights.items():
        g = state.gradients[name].reshape(-1)
        if optimizer == "sgd":
            kernels.sgd(p.reshape(-1), g, p.dtype.type(rate))
            continue
        if name not in state.moments:
            state.moments[name] = (np.zeros(p.size, p.dtype), np.zeros(p.size, p.dtype))
        kernels.adam(p.reshape(-1), g, *state.moments[name], rate, step)
