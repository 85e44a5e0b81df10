"""KERNELS: every kernel by name, with arguments and work for a size.

    kernel = KERNELS["softmax"]
    args = kernel.make((512, 1024))
    kernel.run.one(*args)                     # on this thread; run.all(*args): on all threads
    kernel.work((512, 1024))                  # Work(flops, read, fresh, special, ..)

`make(size, threads)` also takes the number of threads, for kernels that split their work by it.
`Kernel.size` says what the numbers of a size are.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from roofcast.simulator.machine.kernels import ceilings, conv, elementwise, gemm, rows, sequence
from roofcast.simulator.machine.kernels.arguments import ARGUMENTS
from roofcast.simulator.machine.kernels.compiled import VECTOR_BYTES, Pair
from roofcast.simulator.machine.kernels.work import (
    Size,
    Work,
    attention_work,
    channel_work,
    column_work,
    conv_work,
    element_work,
    embedding_work,
    gemm_work,
    im2col_work,
    pool_backward_work,
    pool_work,
    row_work,
)


class Kernel(NamedTuple):
    """One kernel."""

    name: str
    op: str  # class of ops
    size: str  # what the numbers of a size are
    run: Pair
    make: Callable[..., tuple]  # (size, threads=1) -> arguments
    work: Callable[[Size], Work]
    sizes: tuple[Size, ...]  # sizes to measure, from small to larger than the caches


class Sizes(NamedTuple):
    """What the numbers of a size are, and the sizes to measure."""

    numbers: str
    measured: tuple[Size, ...]


# fmt: off
FLAT = Sizes("elements", (
    (4_096,), (16_384,), (65_536,), (262_144,), (1_048_576,), (8_388_608,),
))
CHAIN = Sizes("repeats", ((10_000,), (1_000_000,)))
GRID = Sizes("rows, width", (
    (64, 256), (128, 512), (256, 1000), (512, 1024), (2048, 1500), (4096, 2048),
))
CHANNELS = Sizes("images, channels, pixels", (
    (4, 16, 196), (8, 16, 1024), (8, 64, 256), (16, 64, 784), (32, 128, 784), (32, 512, 49),
))
PRODUCT = Sizes("m, n, k", (
    (64, 64, 64), (100, 300, 50), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
    (32, 1024, 1024), (2048, 256, 256), (197, 768, 768),
))
EMBEDDING = Sizes("rows, width, rows of the table", (
    (256, 64, 1000), (512, 128, 2000), (2048, 128, 4000), (4096, 256, 10_000), (8192, 768, 50_000),
))
CONV = Sizes(
    "images, channels in, channels out, edge of image, edge of filter, stride, padding", (
    (4, 3, 16, 32, 3, 1, 1), (16, 1, 6, 28, 5, 1, 2), (8, 16, 32, 28, 3, 1, 1),
    (2, 3, 64, 112, 7, 2, 3), (8, 64, 64, 14, 3, 1, 1), (4, 64, 64, 56, 3, 1, 1),
    (8, 128, 256, 28, 3, 2, 1), (8, 256, 64, 28, 1, 1, 0),
))
POOL = Sizes("images, channels, edge of image, edge of window, stride", (
    (8, 16, 28, 2, 2), (4, 32, 56, 2, 2), (4, 16, 56, 3, 2), (16, 64, 56, 2, 2), (8, 64, 55, 3, 2),
))
ATTENTION = Sizes("heads, tokens, width", (
    (4, 64, 32), (4, 96, 64), (12, 128, 64), (4, 256, 64), (8, 512, 64),
))
# fmt: on
SCATTER = embedding_work(2.0, 0.0, elementwise.SCATTER_PIECE)


def _kernel(
    module: ModuleType, name: str, op: str, sizes: Sizes, work: Callable[[Size], Work]
) -> Kernel:
    run = getattr(module, name)
    return Kernel(name, op, sizes.numbers, run, ARGUMENTS[name], work, sizes.measured)


def _flat(
    module: ModuleType,
    name: str,
    op: str,
    flops: float,
    read: float,
    fresh: float,
    special: float = 0.0,
) -> Kernel:
    """A kernel on n elements: FLOPs, arrays read and written, special functions per element."""
    return _kernel(module, name, op, FLAT, element_work(flops, read, fresh, special))


def _rows(
    module: ModuleType,
    name: str,
    op: str,
    flops: float,
    read: float,
    fresh: float,
    special: float = 0.0,
    passes: int = 1,
) -> Kernel:
    """A kernel on x [rows, n]: the same per element of x, and passes over each row."""
    return _kernel(module, name, op, GRID, row_work(flops, read, fresh, special, passes))


def _chain(name: str, width: int) -> Kernel:
    """Chains of multiply-adds of one format, `width` bytes per number."""
    flops = 2.0 * ceilings.CHAINS * (VECTOR_BYTES // width)
    return _kernel(ceilings, name, "fma", CHAIN, lambda size: Work(flops * size[0], 0.0, 0.0))


def _conv(name: str, op: str, read: str, written: str) -> Kernel:
    """A convolution: which of x, w and y are read and written."""
    return _kernel(conv, name, op, CONV, conv_work(name, read, written))


ALL = (
    # per element: FLOPs, arrays read, arrays written, special functions
    _flat(ceilings, "read", "stream", 1, 1, 0),
    _flat(ceilings, "fill", "stream", 0, 0, 1),
    _flat(ceilings, "copy", "stream", 0, 1, 1),
    _flat(ceilings, "scale", "stream", 1, 1, 1),
    _flat(ceilings, "triad", "stream", 2, 2, 1),
    _chain("fma32", 4),
    _chain("fma64", 8),
    _flat(ceilings, "exp", "special", 0, 1, 1, 1),
    _flat(ceilings, "erf", "special", 0, 1, 1, 1),
    _flat(ceilings, "tanh", "special", 0, 1, 1, 1),
    _flat(ceilings, "div", "stream", 1, 1, 1),
    _kernel(gemm, "gemm", "gemm", PRODUCT, gemm_work),
    _flat(elementwise, "add", "elementwise", 1, 2, 1),
    _flat(elementwise, "relu", "elementwise", 1, 1, 1),
    _flat(elementwise, "relu_backward", "elementwise", 1, 2, 1),
    _flat(elementwise, "gelu", "gelu", 3, 1, 1, 1),
    _flat(elementwise, "gelu_backward", "gelu", 7, 2, 1, 2),
    _flat(elementwise, "sgd", "optimizer", 4, 3, 0),
    _flat(elementwise, "adam", "optimizer", 14, 4, 0),
    # the same, then passes over each row
    _rows(elementwise, "add_bias", "elementwise", 1, 1, 1),
    _kernel(elementwise, "sum_rows", "reduce", GRID, column_work(1, 1, elementwise.PIECE)),
    _kernel(elementwise, "transpose", "transpose", GRID, row_work(0, 1, 1, high=elementwise.BLOCK)),
    _rows(rows, "softmax", "softmax", 4, 1, 1, 1, 3),
    _rows(rows, "softmax_backward", "softmax", 4, 2, 1, 0, 2),
    _rows(rows, "cross_entropy", "softmax", 4, 1, 1, 1, 3),
    _rows(rows, "layer_norm", "norm", 8, 1, 1, 0, 3),
    _rows(rows, "layer_norm_backward", "norm", 12, 2, 1, 0, 2),
    _kernel(rows, "norm_weight_backward", "norm", GRID, column_work(5, 2, rows.PIECE)),
    _rows(rows, "rms_norm", "norm", 4, 1, 1, 0, 2),
    _rows(rows, "rms_norm_backward", "norm", 8, 2, 1, 0, 2),
    _kernel(rows, "batch_norm", "batch_norm", CHANNELS, channel_work(7, 1, 1, 3)),
    _kernel(rows, "batch_norm_backward", "batch_norm", CHANNELS, channel_work(9, 2, 1, 2)),
    _kernel(elementwise, "gather", "gather", EMBEDDING, embedding_work(1.0, 1.0)),
    _kernel(elementwise, "scatter", "gather", EMBEDDING, SCATTER),
    _kernel(conv, "im2col", "im2col", CONV, im2col_work),
    _conv("conv", "conv", "xw", "y"),
    _conv("conv_direct", "conv_direct", "xw", "y"),
    _conv("conv_input_backward", "conv", "wy", "x"),
    _conv("conv_weight_backward", "conv", "xy", "w"),
    _kernel(conv, "max_pool", "pool", POOL, pool_work),
    _kernel(conv, "max_pool_backward", "pool", POOL, pool_backward_work),
    _rows(sequence, "lstm_cell", "lstm", 9, 5, 7, 5),
    _rows(sequence, "lstm_cell_backward", "lstm", 26, 8, 5),
    _kernel(sequence, "attention", "attention", ATTENTION, attention_work(2, 3, 1, False)),
    _kernel(sequence, "attention_backward", "attention", ATTENTION, attention_work(4, 4, 3, True)),
)
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in ALL}
