"""The work of kernels, by the algebra and by how they are written: what a forecast of their time
rests on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from roofcast.simulator.machine.kernels.gemm import COLUMNS, DEPTH
from roofcast.simulator.machine.kernels.vectors import LANES, TALL, WIDE

F4 = 4.0  # bytes of fp32
Size = tuple[int, ...]


class Work(NamedTuple):
    """What a kernel does, by the algebra: nothing is counted twice, and a cache is taken to hold
    what is used again at once.
    """

    flops: float  # multiply-add = 2
    read: float  # bytes read, those of arrays updated in place among them
    fresh: float  # bytes written that were not read: a cache fetches their lines first
    special: float = 0.0  # exponentials, and what is built on one: erf, tanh, sigmoid
    # bytes that go through buffers of the kernel's own: packed panels, columns of one image, scores
    # of one head
    inner: float = 0.0
    near: float = 0.0  # bytes that such a buffer holds: how near it lies
    issued: float = 0.0  # FLOPs of whole tiles, which an edge or few channels do not fill
    loops: float = 0.0  # inner loops entered: rows, pieces of rows, tiles
    passes: float = 1.0  # that follow on each other, so that only one overlaps with memory


MANY = 100.0  # passes: nothing overlaps, as packing, tiles and what follows them


def product(m: float, n: float, k: float, times: float = 1.0, add: bool = False) -> Work:
    """What `gemm` does beside reading A and B and writing C: whole tiles, both operands packed, C
    gone over again every DEPTH of k.
    """
    tiles = float(np.ceil(m / TALL) * TALL * np.ceil(n / WIDE) * WIDE)
    packed = 2.0 * F4 * (m * k * np.ceil(n / COLUMNS) + k * n)
    again = 2.0 * F4 * m * n * (np.ceil(k / DEPTH) - (0 if add else 1))
    near = F4 * float(min(k, DEPTH) * min(n, COLUMNS))
    loops = tiles / (TALL * WIDE) * np.ceil(k / DEPTH) * times
    return Work(
        2.0 * m * n * k * times,
        0.0,
        0.0,
        0.0,
        float(packed + again) * times,
        near,
        2.0 * tiles * k * times,
        float(loops),
        MANY,
    )


def conv_shapes(size: Size) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of x, w and y of a convolution."""
    images, into, out, image, edge, stride, padding = size
    after = (image + 2 * padding - edge) // stride + 1
    return (images, into, image, image), (out, into, edge, edge), (images, out, after, after)


def moves(size: Size) -> float:
    """Vectors of im2col: pieces of rows of outputs, once a tap."""
    (images, *_), (_, *filter_), (*_, height, width) = conv_shapes(size)
    return float(images * np.prod(filter_) * height * np.ceil(width / LANES))


def by_columns(size: Size, m: str, n: str, k: str, add: bool = False) -> Work:
    """A convolution as im2col and a product of each image: sizes of the product named `out`, `taps`
    and `pixels`.
    """
    (images, *_), (out, *filter_), (*_, height, width) = conv_shapes(size)
    named = {"out": float(out), "taps": float(np.prod(filter_)), "pixels": float(height * width)}
    done, matrix = (
        product(*(named[each] for each in (m, n, k)), images, add),
        F4 * named["taps"] * named["pixels"],
    )
    return done._replace(
        inner=done.inner + 2.0 * images * matrix,
        near=max(done.near, matrix),
        loops=done.loops + moves(size),
    )


def directly(size: Size) -> Work:
    """`conv_direct`: tiles along padded rows; the image goes through its padded copy, the outputs
    through their sums.
    """
    (images, into, *_), (out, *filter_), (*_, height, width) = conv_shapes(size)
    across = -(-(size[3] + 2 * size[6]) // size[5])
    tall, wide, taps = (
        np.ceil(out / TALL) * TALL,
        np.ceil(((height - 1) * across + width) / WIDE) * WIDE,
        float(np.prod(filter_)),
    )
    sums, padded = F4 * tall * wide, F4 * into * float(size[3] + 2 * size[6]) ** 2
    passes = 2.0 * np.ceil(taps / DEPTH)
    inner, pixels = float(images * (2.0 * padded + passes * sums)), float(height * width)
    issued, tiles = 2.0 * images * tall * wide * taps, tall / TALL * wide / WIDE * passes / 2.0
    loops = images * (tiles + out * height * np.ceil(width / LANES))
    return Work(
        2.0 * images * out * pixels * taps,
        0.0,
        0.0,
        0.0,
        inner,
        float(sums + padded),
        float(issued),
        float(loops),
        MANY,
    )


CONV_WORK = {
    "im2col": lambda size: Work(0.0, 0.0, 0.0),
    "conv": lambda size: by_columns(size, "out", "pixels", "taps"),
    "conv_direct": directly,
    "conv_input_backward": lambda size: by_columns(size, "taps", "pixels", "out"),
    "conv_weight_backward": lambda size: by_columns(size, "out", "taps", "pixels", add=True),
}


def pooled(size: Size) -> tuple[float, float, float]:
    """Pixels before and after, and vectors of outputs that are compared, once a tap."""
    images, channels, image, edge, stride = size
    planes, after = images * channels, (image - edge) // stride + 1
    return (
        float(planes * image**2),
        float(planes * after**2),
        float(planes * edge**2 * after * np.ceil(after / LANES)),
    )


def pool_work(size: Size) -> Work:
    """Max-pool forward over sizes (images, channels, edge of image, edge of window, stride): a
    comparison a tap; reads x, writes y and, as large, where each maximum stood.
    """
    x, y, moves = pooled(size)
    return Work(float(y * size[3] ** 2), F4 * x, 2.0 * F4 * y, loops=moves)


def pool_backward_work(size: Size) -> Work:
    """Max-pool backward: one addition an output; reads dy and where each maximum stood, writes
    dx.
    """
    x, y, _ = pooled(size)
    return Work(y, 2.0 * F4 * y, F4 * x)


def attention_work(
    products: int, arrays_read: int, arrays_written: int, backward: bool
) -> Callable[[Size], Work]:
    """size (heads, tokens, width) -> Work of attention with its scores written out: `products` of 2
    tokens^2 width FLOPs a head, and 4 FLOPs a score for its softmax. The forward writes scores and
    takes an exponential for the causal half of them; the backward reads them. `arrays_read`,
    `arrays_written`: arrays [heads, tokens, width] beside them.
    """

    def work(size: Size) -> Work:
        heads, tokens, depth = (float(each) for each in size)
        scores, small = heads * tokens * tokens, heads * tokens * depth
        read = F4 * (arrays_read * small + (scores if backward else 0.0))
        fresh = F4 * (arrays_written * small + (0.0 if backward else scores))
        one, others = (
            product(tokens, tokens, depth, heads),
            product(tokens, depth, tokens, (products - 1) * heads),
        )
        flops, issued = (
            4.0 * scores + a + b
            for a, b in ((one.flops, others.flops), (one.issued, others.issued))
        )
        inner = one.inner + others.inner + 4.0 * F4 * scores
        loops = one.loops + others.loops + (2.0 if backward else 3.0) * heads * tokens
        return Work(
            flops,
            read,
            fresh,
            0.0 if backward else 0.5 * scores,
            inner,
            F4 * tokens * tokens,
            issued,
            loops,
            MANY,
        )

    return work
