"""KERNELS: every kernel by name, with arguments for a size, and the work that size is.

    kernel = KERNELS["softmax"]
    args = kernel.make((512, 1024))
    kernel.run.one(*args)                     # on this thread; run.all(*args): on all of them
    kernel.work((512, 1024))                  # Work(flops, read, fresh, special)

`make(size, threads)` also takes the number of threads, where a kernel splits its work by it. Shapes
are in the order of `Kernel.size`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from roofcast.simulator.machine.kernels import ceilings, conv, elementwise, rows, sequence
from roofcast.simulator.machine.kernels.arrays import aligned
from roofcast.simulator.machine.kernels.compiled import VECTOR_BYTES, Pair
from roofcast.simulator.machine.kernels.gemm import gemm
from roofcast.simulator.machine.kernels.work import (  # fmt: skip
    CONV_WORK,
    F4,
    Size,
    Work,
    attention_work,
    conv_shapes,
    moves,
    pool_backward_work,
    pool_work,
    product,
)


class Kernel(NamedTuple):
    """One kernel. `op` is the class it is calibrated with."""

    name: str
    op: str
    size: str  # what the numbers of a size are
    run: Pair
    make: Callable[..., tuple]  # (size, threads=1) -> arguments
    work: Callable[[Size], Work]
    sizes: tuple[Size, ...]  # some to measure: small, and past the caches


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(
        shape, dtype=np.float32, out=aligned(shape)
    )


def _blank(*shape: int) -> np.ndarray:
    return aligned(shape)


def _positive(*shape: int) -> np.ndarray:
    array = _normal(*shape)
    np.abs(array, out=array)
    array += np.float32(0.5)
    return array


def _index(count: int, below: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, below, count)


FLAT = ((4_096,), (16_384,), (65_536,), (262_144,), (1_048_576,), (8_388_608,))
GRID = ((64, 256), (128, 512), (256, 1000), (512, 1024), (2048, 1500), (4096, 2048))


def _team(
    name: str,
    inputs: int,
    outputs: int,
    flops: float = 0.0,
    special: float = 0.0,
    positive: bool = False,
) -> Kernel:
    """A kernel of ceilings.py that takes arrays, teams, repeats."""
    fill = _positive if positive else _normal

    def make(size: Size, threads: int = 1) -> tuple:
        return (
            *(fill(*size) for _ in range(inputs)),
            *(_blank(*size) for _ in range(outputs)),
            threads,
            1,
        )

    def work(size: Size) -> Work:
        n = float(size[0])
        return Work(flops * n, F4 * inputs * n, F4 * outputs * n, special * n)

    op = "special" if special else "stream"
    return Kernel(name, op, "elements", getattr(ceilings, name), make, work, FLAT)


def _read(size: Size, threads: int = 1) -> tuple:
    return _normal(*size), _blank(threads), threads, 1


def _flat(
    name: str,
    op: str,
    make: Callable,
    flops: float,
    read: float,
    fresh: float,
    special: float = 0.0,
) -> Kernel:
    """A kernel of elementwise.py on n elements: arrays read and written, FLOPs and special
    functions an element.
    """

    def work(size: Size) -> Work:
        n = float(size[0])
        return Work(flops * n, F4 * read * n, F4 * fresh * n, special * n)

    return Kernel(
        name,
        op,
        "elements",
        getattr(elementwise, name),
        lambda size, threads=1: make(size[0]),
        work,
        FLAT,
    )


def _rows(
    name: str,
    op: str,
    make: Callable,
    flops: float,
    read: float,
    fresh: float,
    special: float = 0.0,
    passes: int = 1,
    module=rows,
) -> Kernel:
    """A kernel on x [rows, n]: the same, an element of x; `passes`: times it goes over a row."""

    def work(size: Size) -> Work:
        n = float(size[0] * size[1])
        return Work(
            flops * n,
            F4 * read * n,
            F4 * fresh * n,
            special * n,
            loops=float(passes * size[0]),
            passes=float(passes),
        )

    return Kernel(
        name,
        op,
        "rows, width",
        getattr(module, name),
        lambda size, threads=1: make(*size),
        work,
        GRID,
    )


def _images(
    name: str, op: str, make: Callable, flops: float, read: float, fresh: float, passes: int
) -> Kernel:
    """Batch norm: x [images, channels, pixels]. Passes but the first find a channel of all images
    nearby.
    """

    def work(size: Size) -> Work:
        n, near = float(np.prod(size)), F4 * read * size[0] * size[2]
        inner = (passes - 1.0) * F4 * read * n
        loops = float(passes * size[0] * size[1])
        return Work(
            flops * n,
            F4 * read * n,
            F4 * fresh * n,
            0.0,
            inner,
            near,
            loops=loops,
            passes=float(passes),
        )

    sizes = (
        (4, 16, 196),
        (8, 16, 1024),
        (8, 64, 256),
        (16, 64, 784),
        (32, 128, 784),
        (32, 512, 49),
    )
    return Kernel(
        name,
        op,
        "images, channels, pixels",
        getattr(rows, name),
        lambda size, threads=1: make(*size),
        work,
        sizes,
    )


CONV_SIZE = "images, channels in, channels out, edge of image, edge of filter, stride, padding"
CONV_SIZES = (
    (4, 3, 16, 32, 3, 1, 1),
    (16, 1, 6, 28, 5, 1, 2),
    (8, 16, 32, 28, 3, 1, 1),
    (2, 3, 64, 112, 7, 2, 3),
    (8, 64, 64, 14, 3, 1, 1),
    (4, 64, 64, 56, 3, 1, 1),
    (8, 128, 256, 28, 3, 2, 1),
    (8, 256, 64, 28, 1, 1, 0),
)


def _conv(name: str, op: str, arguments: Callable, read: str, written: str) -> Kernel:
    """A convolution kernel: reads and writes of x, w, y named by letter."""

    def make(size: Size, threads: int = 1) -> tuple:
        x, w, y = (_normal(*shape) for shape in conv_shapes(size))
        return arguments(x, w / np.float32(np.sqrt(w[0].size)), y, size[5], size[6], threads)

    def work(size: Size) -> Work:
        bytes_ = {
            letter: F4 * float(np.prod(shape))
            for letter, shape in zip("xwy", conv_shapes(size), strict=True)
        }
        return CONV_WORK[name](size)._replace(
            read=sum(bytes_[c] for c in read), fresh=sum(bytes_[c] for c in written)
        )

    return Kernel(name, op, CONV_SIZE, getattr(conv, name), make, work, CONV_SIZES)


def _im2col() -> Kernel:
    def arguments(x, w, y, stride, padding, threads):
        return x, w.shape[2], stride, padding, *y.shape[2:], _columns(x, w, y)

    made = _conv("im2col", "im2col", arguments, "x", "")

    def work(size: Size) -> Work:
        x, w, y = conv_shapes(size)
        return Work(
            0.0,
            F4 * float(np.prod(x)),
            F4 * float(x[0] * np.prod(w[1:]) * np.prod(y[2:])),
            loops=moves(size),
        )

    return made._replace(work=work)


def _columns(x: np.ndarray, w: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _blank(x.shape[0], w[0].size, y.shape[2] * y.shape[3])


def _pool(size: Size, threads: int = 1) -> tuple:
    images, channels, image, edge, stride = size
    after = (image - edge) // stride + 1
    y = _blank(images, channels, after, after)
    return _normal(images, channels, image, image), edge, stride, y, np.zeros(y.shape, np.int32)


def _pool_backward(size: Size, threads: int = 1) -> tuple:
    x, edge, stride, y, where = _pool(size)
    conv.max_pool.one(x, edge, stride, y, where)
    return _normal(*y.shape), where, _blank(*x.shape)


def _gemm(size: Size, threads: int = 1) -> tuple:
    m, n, k = size
    return _normal(m, k), _normal(k, n), _blank(m, n), False, False, False


def _attention(size: Size, threads: int = 1) -> tuple:
    heads, tokens, depth = size
    q, k, v = (_normal(*size) * np.float32(0.5) for _ in range(3))
    return q, k, v, True, _blank(*size), _blank(heads, tokens, tokens)


def _attention_backward(size: Size, threads: int = 1) -> tuple:
    q, k, v, causal, out, weights = _attention(size)
    sequence.attention.one(q, k, v, causal, out, weights)
    return q, k, v, weights, _normal(*size), _blank(*size), _blank(*size), _blank(*size)


def _lstm(batch: int, n: int) -> tuple:
    return (
        _normal(batch, 4 * n),
        _normal(batch, n),
        _blank(batch, n),
        _blank(batch, n),
        _blank(batch, 5 * n),
    )


def _lstm_backward(batch: int, n: int) -> tuple:
    args = _lstm(batch, n)
    sequence.lstm_cell.one(*args)
    return (
        args[4],
        args[1],
        _normal(batch, n),
        _normal(batch, n),
        _blank(batch, 4 * n),
        _blank(batch, n),
    )


def _embedding_work(read: float, fresh: float) -> Callable[[Size], Work]:
    def work(size: Size) -> Work:
        n = float(size[0] * size[1])
        return Work(
            (read - 1.0) * n, F4 * read * n + 8.0 * size[0], F4 * fresh * n, loops=float(size[0])
        )

    return work


def _layer_norm_backward(r: int, n: int) -> tuple:
    return _normal(r, n), _normal(n), _blank(r), _positive(r), _normal(r, n), _blank(r, n)


def _norm_weight_backward(r: int, n: int) -> tuple:
    return _normal(r, n), _blank(r), _positive(r), _normal(r, n), _blank(n), _blank(n)


def _batch_norm(i: int, c: int, p: int) -> tuple:
    return _normal(i, c, p), _normal(c), _normal(c), _blank(i, c, p), _blank(c), _blank(c)


def _batch_norm_backward(i: int, c: int, p: int) -> tuple:
    return (
        _normal(i, c, p),
        _normal(c),
        _blank(c),
        _positive(c),
        _normal(i, c, p),
        _blank(i, c, p),
        _blank(c),
        _blank(c),
    )


RATE, BETA, BETA1, BETA2, EPSILON = (np.float32(value) for value in (1e-3, 0.9, 0.9, 0.999, 1e-8))
EMBEDDING = (
    (256, 64, 1000),
    (512, 128, 2000),
    (2048, 128, 4000),
    (4096, 256, 10_000),
    (8192, 768, 50_000),
)
ATTENTION = ((4, 64, 32), (4, 96, 64), (12, 128, 64), (4, 256, 64), (8, 512, 64))
POOL = (
    (8, 16, 28, 2, 2),
    (4, 32, 56, 2, 2),
    (4, 16, 56, 3, 2),
    (16, 64, 56, 2, 2),
    (8, 64, 55, 3, 2),
)
CHAIN = ((10_000,), (1_000_000,))


def _chain(name: str, kind: type) -> Kernel:
    """A chain of multiply-adds of one format."""
    lanes = VECTOR_BYTES // kind().itemsize

    def make(size: Size, threads: int = 1) -> tuple:
        return np.zeros(threads, kind), threads, size[0]

    def work(size: Size) -> Work:
        return Work(2.0 * ceilings.CHAINS * lanes * size[0], 0.0, 0.0)

    return Kernel(name, "fma", "repeats", getattr(ceilings, name), make, work, CHAIN)


ALL = (
    Kernel(
        "read",
        "stream",
        "elements",
        ceilings.read,
        _read,
        lambda size: Work(float(size[0]), F4 * size[0], 0.0),
        FLAT,
    ),
    _team("fill", 0, 1),
    _team("copy", 1, 1),
    _team("scale", 1, 1, flops=1.0),
    _team("triad", 2, 1, flops=2.0),
    _chain("fma32", np.float32),
    _chain("fma64", np.float64),
    _team("exp", 1, 1, special=1.0),
    _team("erf", 1, 1, special=1.0),
    _team("tanh", 1, 1, special=1.0),
    _team("div", 1, 1, flops=1.0, positive=True),
    Kernel(
        "gemm",
        "gemm",
        "m, n, k",
        gemm,
        _gemm,
        lambda s: product(*map(float, s))._replace(
            read=F4 * (s[0] * s[2] + s[2] * s[1]), fresh=F4 * s[0] * s[1]
        ),
        (
            (64, 64, 64),
            (100, 300, 50),
            (256, 256, 256),
            (512, 512, 512),
            (1024, 1024, 1024),
            (32, 1024, 1024),
            (2048, 256, 256),
            (197, 768, 768),
        ),
    ),
    _flat("add", "elementwise", lambda n: (_normal(n), _normal(n), _blank(n)), 1, 2, 1),
    _flat("relu", "elementwise", lambda n: (_normal(n), _blank(n)), 1, 1, 1),
    _flat("relu_backward", "elementwise", lambda n: (_normal(n), _normal(n), _blank(n)), 1, 2, 1),
    _flat("gelu", "gelu", lambda n: (_normal(n), _blank(n)), 3, 1, 1, 1),
    _flat("gelu_backward", "gelu", lambda n: (_normal(n), _normal(n), _blank(n)), 7, 2, 1, 2),
    _flat("sgd", "optimizer", lambda n: (_normal(n), _normal(n), _blank(n), RATE, BETA), 4, 3, 0),
    _flat(
        "adam",
        "optimizer",
        lambda n: (
            _normal(n),
            _normal(n),
            _blank(n),
            _blank(n),
            RATE,
            BETA1,
            BETA2,
            EPSILON,
            np.float32(1.0),
        ),
        14,
        4,
        0,
    ),
    _rows(
        "add_bias",
        "elementwise",
        lambda r, n: (_normal(r, n), _normal(n), _blank(r, n)),
        1,
        1,
        1,
        module=elementwise,
    ),
    _rows(
        "sum_rows", "reduce", lambda r, n: (_normal(r, n), _blank(n)), 1, 1, 0, module=elementwise
    ),
    _rows(
        "transpose",
        "transpose",
        lambda r, n: (_normal(r, n), _blank(n, r)),
        0,
        1,
        1,
        module=elementwise,
    ),
    _rows("softmax", "softmax", lambda r, n: (_normal(r, n), _blank(r, n)), 4, 1, 1, 1, 3),
    _rows(
        "softmax_backward",
        "softmax",
        lambda r, n: (_positive(r, n), _normal(r, n), _blank(r, n)),
        4,
        2,
        1,
        0,
        2,
    ),
    _rows(
        "cross_entropy",
        "softmax",
        lambda r, n: (_normal(r, n), _index(r, n), _blank(r), _blank(r, n)),
        4,
        1,
        1,
        1,
        3,
    ),
    _rows(
        "layer_norm",
        "norm",
        lambda r, n: (_normal(r, n), _normal(n), _normal(n), _blank(r, n), _blank(r), _blank(r)),
        8,
        1,
        1,
        0,
        3,
    ),
    _rows("layer_norm_backward", "norm", _layer_norm_backward, 12, 2, 1, 0, 2),
    _rows("norm_weight_backward", "norm", _norm_weight_backward, 5, 2, 0),
    _rows(
        "rms_norm",
        "norm",
        lambda r, n: (_normal(r, n), _normal(n), _blank(r, n), _blank(r)),
        4,
        1,
        1,
        0,
        2,
    ),
    _rows(
        "rms_norm_backward",
        "norm",
        lambda r, n: (_normal(r, n), _normal(n), _positive(r), _normal(r, n), _blank(r, n)),
        8,
        2,
        1,
        0,
        2,
    ),
    _images("batch_norm", "batch_norm", _batch_norm, 7, 1, 1, 3),
    _images("batch_norm_backward", "batch_norm", _batch_norm_backward, 9, 2, 1, 2),
    Kernel(
        "gather",
        "gather",
        "rows, width, rows of the table",
        elementwise.gather,
        lambda s, threads=1: (_normal(s[2], s[1]), _index(s[0], s[2]), _blank(s[0], s[1])),
        _embedding_work(1.0, 1.0),
        EMBEDDING,
    ),
    Kernel(
        "scatter",
        "gather",
        "rows, width, rows of the table",
        elementwise.scatter,
        lambda s, threads=1: (_normal(s[0], s[1]), _index(s[0], s[2]), _blank(s[2], s[1])),
        _embedding_work(2.0, 0.0),
        EMBEDDING,
    ),
    _im2col(),
    _conv(
        "conv",
        "conv",
        lambda x, w, y, stride, padding, threads: (x, w, y, stride, padding),
        "xw",
        "y",
    ),
    _conv(
        "conv_direct",
        "conv_direct",
        lambda x, w, y, stride, padding, threads: (x, w, y, stride, padding),
        "xw",
        "y",
    ),
    _conv(
        "conv_input_backward",
        "conv",
        lambda x, w, y, stride, padding, threads: (w, y, x, stride, padding),
        "wy",
        "x",
    ),
    _conv(
        "conv_weight_backward",
        "conv",
        lambda x, w, y, stride, padding, threads: (x, y, w, stride, padding, threads),
        "xy",
        "w",
    ),
    Kernel(
        "max_pool",
        "pool",
        "images, channels, edge of image, edge of window, stride",
        conv.max_pool,
        _pool,
        pool_work,
        POOL,
    ),
    Kernel(
        "max_pool_backward",
        "pool",
        "images, channels, edge of image, edge of window, stride",
        conv.max_pool_backward,
        _pool_backward,
        pool_backward_work,
        POOL,
    ),
    _rows("lstm_cell", "lstm", _lstm, 9, 5, 7, 5, module=sequence),
    _rows("lstm_cell_backward", "lstm", _lstm_backward, 26, 8, 5, module=sequence),
    Kernel(
        "attention",
        "attention",
        "heads, tokens, width",
        sequence.attention,
        _attention,
        attention_work(2, 3, 1, False),
        ATTENTION,
    ),
    Kernel(
        "attention_backward",
        "attention",
        "heads, tokens, width",
        sequence.attention_backward,
        _attention_backward,
        attention_work(4, 4, 3, True),
        ATTENTION,
    ),
)
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in ALL}
