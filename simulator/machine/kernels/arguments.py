"""Arguments for every kernel: ARGUMENTS[name](size, threads) makes the arrays of that size.

`threads` is the number of threads for kernels that split their work by it. Sizes are those of the
registry.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from roofcast.simulator.machine.kernels import conv, sequence
from roofcast.simulator.machine.kernels.arrays import aligned
from roofcast.simulator.machine.kernels.work import Size, conv_shapes

Make = Callable[..., tuple]  # (size, threads=1) -> arguments
Fill = Callable[..., np.ndarray]  # (*shape) -> array

RATE, BETA, BETA1, BETA2, EPSILON = (np.float32(value) for value in (1e-3, 0.9, 0.9, 0.999, 1e-8))

# numbers after which random arguments repeat: to draw 8 million takes longer than to measure. A
# prime, so that no two rows are equal
PERIOD = 65_537


# ------------------------------------------------------------------ arrays
@functools.cache
def _period(dimensions: int) -> np.ndarray:
    """PERIOD normally distributed numbers, the same for the same number of dimensions."""
    return np.random.default_rng(dimensions).standard_normal(PERIOD, dtype=np.float32)


def normal(*shape: int) -> np.ndarray:
    """Normally distributed numbers, the same for the same shape; they repeat after PERIOD."""
    array, numbers = aligned(shape), _period(len(shape))
    flat = array.reshape(-1)
    whole = flat.size // PERIOD * PERIOD
    flat[:whole].reshape(-1, PERIOD)[:] = numbers
    flat[whole:] = numbers[: flat.size - whole]
    return array


def blank(*shape: int) -> np.ndarray:
    """Zeros."""
    return aligned(shape)


def positive(*shape: int) -> np.ndarray:
    """Absolute values of normally distributed numbers, plus 0.5."""
    array = normal(*shape)
    np.abs(array, out=array)
    array += np.float32(0.5)
    return array


def indices(count: int, below: int) -> np.ndarray:
    """`count` random indices from 0 to below - 1."""
    return np.random.default_rng(7).integers(0, below, count)


# ------------------------------------------------------------------ families of arguments
def _arrays(letters: str, *wanted: tuple[Fill, str], more: tuple = ()) -> Make:
    """Arrays whose shapes are given by the letters of the size's numbers, then `more` arguments."""

    def make(size: Size, threads: int = 1) -> tuple:
        edges = dict(zip(letters, size, strict=True))
        arrays = (fill(*(edges[letter] for letter in shape)) for fill, shape in wanted)
        return (*arrays, *more)

    return make


def _team(inputs: int, outputs: int, fill: Fill = normal) -> Make:
    """Arguments of a kernel of ceilings.py: arrays, teams, repeats."""

    def make(size: Size, threads: int = 1) -> tuple:
        arrays = [fill(*size) for _ in range(inputs)] + [blank(*size) for _ in range(outputs)]
        return (*arrays, threads, 1)

    return make


def _chain(dtype: type) -> Make:
    def make(size: Size, threads: int = 1) -> tuple:
        return np.zeros(threads, dtype), threads, size[0]

    return make


def _conv(arguments: Callable[..., tuple]) -> Make:
    """Arguments of a convolution, from (x, w, y, stride, padding, threads)."""

    def make(size: Size, threads: int = 1) -> tuple:
        x, w, y = (normal(*shape) for shape in conv_shapes(size))
        return arguments(x, w / np.float32(np.sqrt(w[0].size)), y, size[5], size[6], threads)

    return make


# ------------------------------------------------------------------ single kernels
def _read(size: Size, threads: int = 1) -> tuple:
    return normal(*size), blank(threads), threads, 1


def _gather(size: Size, threads: int = 1) -> tuple:
    rows, width, table_rows = size
    return normal(table_rows, width), indices(rows, table_rows), blank(rows, width)


def _scatter(size: Size, threads: int = 1) -> tuple:
    rows, width, table_rows = size
    return normal(rows, width), indices(rows, table_rows), blank(table_rows, width)


def _cross_entropy(size: Size, threads: int = 1) -> tuple:
    rows, width = size
    return normal(rows, width), indices(rows, width), blank(rows), blank(rows, width)


def _im2col(x: Any, w: Any, y: Any, stride: int, padding: int, threads: int) -> tuple:
    columns = blank(x.shape[0], w[0].size, y.shape[2] * y.shape[3])
    return x, w.shape[2], stride, padding, *y.shape[2:], columns


def _max_pool(size: Size, threads: int = 1) -> tuple:
    images, channels, image, edge, stride = size
    after = (image - edge) // stride + 1
    y = blank(images, channels, after, after)
    return normal(images, channels, image, image), edge, stride, y, np.zeros(y.shape, np.int32)


def _max_pool_backward(size: Size, threads: int = 1) -> tuple:
    x, edge, stride, y, where = _max_pool(size)
    conv.max_pool.one(x, edge, stride, y, where)
    return normal(*y.shape), where, blank(*x.shape)


def _attention(size: Size, threads: int = 1) -> tuple:
    heads, tokens, _ = size
    q, k, v = (normal(*size) * np.float32(0.5) for _ in range(3))
    return q, k, v, True, blank(*size), blank(heads, tokens, tokens)


def _attention_backward(size: Size, threads: int = 1) -> tuple:
    q, k, v, causal, out, weights = _attention(size)
    sequence.attention.one(q, k, v, causal, out, weights)
    return q, k, v, weights, normal(*size), blank(*size), blank(*size), blank(*size)


def _lstm_cell(size: Size, threads: int = 1) -> tuple:
    batch, n = size
    gates, before = normal(batch, 4 * n), normal(batch, n)
    return gates, before, blank(batch, n), blank(batch, n), blank(batch, 5 * n)


def _lstm_cell_backward(size: Size, threads: int = 1) -> tuple:
    batch, n = size
    gates, before, cell, hidden, kept = _lstm_cell(size)
    sequence.lstm_cell.one(gates, before, cell, hidden, kept)
    dhidden, dcell = normal(batch, n), normal(batch, n)
    return kept, before, dhidden, dcell, blank(batch, 4 * n), blank(batch, n)


# ------------------------------------------------------------------ by name
N, RN, ICP = "n", "rn", "icp"  # elements; rows, width; images, channels, pixels
ARGUMENTS: dict[str, Make] = {
    "read": _read,
    "fill": _team(0, 1),
    "copy": _team(1, 1),
    "scale": _team(1, 1),
    "triad": _team(2, 1),
    "fma32": _chain(np.float32),
    "fma64": _chain(np.float64),
    "exp": _team(1, 1),
    "erf": _team(1, 1),
    "tanh": _team(1, 1),
    "div": _team(1, 1, positive),
    "gemm": _arrays("mnk", (normal, "mk"), (normal, "kn"), (blank, "mn"), more=3 * (False,)),
    "add": _arrays(N, (normal, "n"), (normal, "n"), (blank, "n")),
    "relu": _arrays(N, (normal, "n"), (blank, "n")),
    "relu_backward": _arrays(N, (normal, "n"), (normal, "n"), (blank, "n")),
    "gelu": _arrays(N, (normal, "n"), (blank, "n")),
    "gelu_backward": _arrays(N, (normal, "n"), (normal, "n"), (blank, "n")),
    "sgd": _arrays(N, (normal, "n"), (normal, "n"), (blank, "n"), more=(RATE, BETA)),
    "adam": _arrays(
        N,
        *((normal, "n"), (normal, "n"), (blank, "n"), (blank, "n")),
        more=(RATE, BETA1, BETA2, EPSILON, np.float32(1.0)),
    ),
    "add_bias": _arrays(RN, (normal, "rn"), (normal, "n"), (blank, "rn")),
    "sum_rows": _arrays(RN, (normal, "rn"), (blank, "n")),
    "transpose": _arrays(RN, (normal, "rn"), (blank, "nr")),
    "softmax": _arrays(RN, (normal, "rn"), (blank, "rn")),
    "softmax_backward": _arrays(RN, (positive, "rn"), (normal, "rn"), (blank, "rn")),
    "cross_entropy": _cross_entropy,
    "layer_norm": _arrays(
        RN,
        *((normal, "rn"), (normal, "n"), (normal, "n")),  # x, weight, bias
        *((blank, "rn"), (blank, "r"), (blank, "r")),  # y, mean, inverse
    ),
    "layer_norm_backward": _arrays(
        RN,
        *((normal, "rn"), (normal, "n"), (blank, "r"), (positive, "r")),  # x, weight, mean, inverse
        *((normal, "rn"), (blank, "rn")),  # dy, dx
    ),
    "norm_weight_backward": _arrays(
        RN,
        *((normal, "rn"), (blank, "r"), (positive, "r"), (normal, "rn")),  # x, mean, inverse, dy
        *((blank, "n"), (blank, "n")),  # dweight, dbias
    ),
    "rms_norm": _arrays(RN, (normal, "rn"), (normal, "n"), (blank, "rn"), (blank, "r")),
    "rms_norm_backward": _arrays(
        RN, (normal, "rn"), (normal, "n"), (positive, "r"), (normal, "rn"), (blank, "rn")
    ),
    "batch_norm": _arrays(
        ICP,
        *((normal, "icp"), (normal, "c"), (normal, "c")),  # x, weight, bias
        *((blank, "icp"), (blank, "c"), (blank, "c")),  # y, mean, inverse
    ),
    "batch_norm_backward": _arrays(
        ICP,
        *(
            (normal, "icp"),
            (normal, "c"),
            (blank, "c"),
            (positive, "c"),
        ),  # x, weight, mean, inverse
        *((normal, "icp"), (blank, "icp"), (blank, "c"), (blank, "c")),  # dy, dx, dweight, dbias
    ),
    "gather": _gather,
    "scatter": _scatter,
    "im2col": _conv(_im2col),
    "conv": _conv(lambda x, w, y, stride, padding, threads: (x, w, y, stride, padding)),
    "conv_direct": _conv(lambda x, w, y, stride, padding, threads: (x, w, y, stride, padding)),
    "conv_input_backward": _conv(
        lambda x, w, y, stride, padding, threads: (w, y, x, stride, padding)
    ),
    "conv_weight_backward": _conv(
        lambda x, w, y, stride, padding, threads: (x, y, w, stride, padding, threads)
    ),
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "lstm_cell": _lstm_cell,
    "lstm_cell_backward": _lstm_cell_backward,
    "attention": _attention,
    "attention_backward": _attention_backward,
}
