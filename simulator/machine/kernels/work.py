"""The work of each kernel for a given size: what the forecast of its time is computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from roofcast.simulator.machine.kernels.gemm import COLUMNS, DEPTH, ROWS
from roofcast.simulator.machine.kernels.vectors import LANES, TALL, WIDE

F4 = 4.0  # bytes of fp32
Size = tuple[int, ...]


class Work(NamedTuple):
    """Algorithmic work of a kernel: each byte counts once, as if caches held all that is reused."""

    flops: float  # multiply-add = 2
    read: float  # bytes read, including those of arrays updated in place
    fresh: float  # bytes written that were not read: a cache fetches their lines first
    special: float = 0.0  # exponentials, and functions built on one: erf, tanh, sigmoid
    # bytes through the kernel's own buffers: packed panels, columns of one image, scores of a head
    inner: float = 0.0
    near: float = 0.0  # bytes that such a buffer holds, which decides the cache it lies in
    issued: float = 0.0  # FLOPs of whole tiles, including those that edges leave unused
    loops: float = 0.0  # inner loops entered: rows, pieces of rows, tiles
    passes: float = 1.0  # consecutive passes over the data, one of which overlaps with memory
    # pieces that threads share, of one size but for the last, which may be a part: rows, images,
    # blocks; 0 where threads share single elements
    pieces: float = 0.0

    def waiting(self, threads: int) -> float:
        """Time of the thread with the most pieces, over that of an equal share of the work.

        >>> Work(1.0, 0.0, 0.0, pieces=2.5).waiting(2)
        1.6
        """
        if not self.pieces:
            return 1.0
        most = min(float(np.ceil(np.ceil(self.pieces) / threads)), self.pieces)
        return most * threads / self.pieces


MANY = 100.0  # passes of kernels that overlap nothing, because packing, tiles and copies alternate


# ------------------------------------------------------------------ per element
def element_work(
    flops: float, read: float, fresh: float, special: float = 0.0
) -> Callable[[Size], Work]:
    """size (elements) -> Work; per element: FLOPs, arrays read and written, special functions."""

    def work(size: Size) -> Work:
        n = float(size[0])
        return Work(flops * n, F4 * read * n, F4 * fresh * n, special * n)

    return work


def row_work(
    flops: float, read: float, fresh: float, special: float = 0.0, passes: int = 1, high: int = 1
) -> Callable[[Size], Work]:
    """size (rows, width) -> Work, from the same per element; `passes` over each row. Threads share
    strips of `high` rows.
    """

    def work(size: Size) -> Work:
        n, loops = float(size[0] * size[1]), float(passes * size[0])
        done = Work(flops * n, F4 * read * n, F4 * fresh * n, special * n)
        return done._replace(loops=loops, passes=float(passes), pieces=size[0] / high)

    return work


def column_work(flops: float, read: float, wide: int) -> Callable[[Size], Work]:
    """size (rows, width) -> Work of sums over the rows, from the same per element. Threads share
    strips of `wide` columns, each of which goes over all rows.
    """

    def work(size: Size) -> Work:
        n, pieces = float(size[0] * size[1]), size[1] / wide
        loops = float(size[0] * np.ceil(pieces))
        return Work(flops * n, F4 * read * n, 0.0, loops=loops, pieces=pieces)

    return work


def channel_work(flops: float, read: float, fresh: float, passes: int) -> Callable[[Size], Work]:
    """size (images, channels, pixels) -> Work of a batch norm.

    All passes but the first find the channel's data of all images in a cache.
    """

    def work(size: Size) -> Work:
        n, loops = float(np.prod(size)), float(passes * size[0] * size[1])
        inner, near = (passes - 1.0) * F4 * read * n, F4 * read * size[0] * size[2]
        done = Work(flops * n, F4 * read * n, F4 * fresh * n, inner=inner, near=near)
        pieces = float(size[1])
        return done._replace(loops=loops, passes=float(passes), pieces=pieces)

    return work


def embedding_work(read: float, fresh: float, wide: int = 0) -> Callable[[Size], Work]:
    """size (rows, width, ..) -> Work of a gather or scatter, with an 8-byte index per row and
    strip. Threads share rows, or strips of `wide` columns, each of which goes over all rows.
    """

    def work(size: Size) -> Work:
        n, rows = float(size[0] * size[1]), float(size[0])
        pieces = size[1] / wide if wide else rows
        loops = rows * float(np.ceil(pieces)) if wide else rows
        done = Work((read - 1.0) * n, F4 * read * n + 8.0 * loops, F4 * fresh * n, loops=loops)
        return done._replace(pieces=pieces)

    return work


# ------------------------------------------------------------------ products
def product(m: float, n: float, k: float, times: float = 1.0, add: bool = False) -> Work:
    """Work of `times` calls of `gemm`, without reading A and B and writing C.

    Tiles are whole, both operands are packed, and C is read and written again for every DEPTH of k.
    """
    tiles = float(np.ceil(m / TALL) * TALL * np.ceil(n / WIDE) * WIDE)
    packed = 2.0 * F4 * (m * k * np.ceil(n / COLUMNS) + k * n)
    again = 2.0 * F4 * m * n * (np.ceil(k / DEPTH) - (0 if add else 1))
    loops = tiles / (TALL * WIDE) * np.ceil(k / DEPTH) * times
    return Work(
        flops=2.0 * m * n * k * times,
        read=0.0,
        fresh=0.0,
        inner=float(packed + again) * times,
        near=F4 * float(min(k, DEPTH) * min(n, COLUMNS)),
        issued=2.0 * tiles * k * times,
        loops=float(loops),
        passes=MANY,
    )


def gemm_work(size: Size) -> Work:
    """size (m, n, k) -> Work of one product."""
    m, n, k = size
    done = product(float(m), float(n), float(k))
    return done._replace(read=F4 * (m * k + k * n), fresh=F4 * m * n, pieces=m / ROWS)


def attention_work(
    products: int, arrays_read: int, arrays_written: int, backward: bool
) -> Callable[[Size], Work]:
    """size (heads, tokens, width) -> Work of attention that stores its scores.

    `products` of 2 tokens^2 width FLOPs per head, and 4 FLOPs per score for the softmax. Forward
    writes the scores and takes an exponential for the causal half of them; backward reads them.
    `arrays_read`, `arrays_written`: arrays [heads, tokens, width].
    """

    def work(size: Size) -> Work:
        heads, tokens, depth = (float(each) for each in size)
        scores, small = heads * tokens * tokens, heads * tokens * depth
        one = product(tokens, tokens, depth, heads)
        others = product(tokens, depth, tokens, (products - 1) * heads)
        rows = (2.0 if backward else 3.0) * heads * tokens
        return Work(
            flops=4.0 * scores + one.flops + others.flops,
            read=F4 * (arrays_read * small + (scores if backward else 0.0)),
            fresh=F4 * (arrays_written * small + (0.0 if backward else scores)),
            special=0.0 if backward else 0.5 * scores,
            inner=one.inner + others.inner + 4.0 * F4 * scores,
            near=F4 * tokens * tokens,
            issued=4.0 * scores + one.issued + others.issued,
            loops=one.loops + others.loops + rows,
            passes=MANY,
            pieces=heads,
        )

    return work


# ------------------------------------------------------------------ images
def conv_shapes(size: Size) -> tuple[Size, Size, Size]:
    """Shapes of x, w and y of a convolution.

    size: images, channels in, channels out, image edge, filter edge, stride, padding.
    """
    images, into, out, image, edge, stride, padding = size
    after = (image + 2 * padding - edge) // stride + 1
    return (images, into, image, image), (out, into, edge, edge), (images, out, after, after)


def moves(size: Size) -> float:
    """Vector moves of im2col: pieces of rows of outputs, once per tap."""
    (images, *_), (_, *taps), (*_, height, width) = conv_shapes(size)
    return float(images * np.prod(taps) * height * np.ceil(width / LANES))


def im2col_work(size: Size) -> Work:
    """Work of im2col alone: reads x, writes the columns."""
    x, w, y = conv_shapes(size)
    columns = F4 * float(x[0] * np.prod(w[1:]) * np.prod(y[2:]))
    return Work(0.0, F4 * float(np.prod(x)), columns, loops=moves(size), pieces=float(x[0]))


def by_columns(size: Size, m: str, n: str, k: str, add: bool = False) -> Work:
    """A convolution as im2col and one product per image, without reading or writing x, w, y.

    m, n, k: which of "out", "taps" and "pixels" is which size of the product.
    """
    (images, *_), (out, *taps), (*_, height, width) = conv_shapes(size)
    edges = {"out": float(out), "taps": float(np.prod(taps)), "pixels": float(height * width)}
    done = product(edges[m], edges[n], edges[k], images, add)
    matrix = F4 * edges["taps"] * edges["pixels"]
    return done._replace(
        inner=done.inner + 2.0 * images * matrix,
        near=max(done.near, matrix),
        loops=done.loops + moves(size),
        pieces=float(images),
    )


def directly(size: Size) -> Work:
    """`conv_direct`, without reading or writing x, w, y: tiles along padded rows.

    The image passes through its padded copy, the outputs through a buffer of sums.
    """
    (images, into, *_), (out, *filter_), (*_, height, width) = conv_shapes(size)
    padded_edge, stride = size[3] + 2 * size[6], size[5]
    places = (height - 1) * -(-padded_edge // stride) + width
    tall, wide = np.ceil(out / TALL) * TALL, np.ceil(places / WIDE) * WIDE
    taps, pixels = float(np.prod(filter_)), float(height * width)
    sums, padded = F4 * tall * wide, F4 * into * float(padded_edge) ** 2
    passes = 2.0 * np.ceil(taps / DEPTH)
    tiles = tall / TALL * wide / WIDE * passes / 2.0
    return Work(
        flops=2.0 * images * out * pixels * taps,
        read=0.0,
        fresh=0.0,
        inner=float(images * (2.0 * padded + passes * sums)),
        near=float(sums + padded),
        issued=float(2.0 * images * tall * wide * taps),
        loops=float(images * (tiles + out * height * np.ceil(width / LANES))),
        passes=MANY,
        pieces=float(images),
    )


CONV_WORK: dict[str, Callable[[Size], Work]] = {
    "conv": lambda size: by_columns(size, "out", "pixels", "taps"),
    "conv_direct": directly,
    "conv_input_backward": lambda size: by_columns(size, "taps", "pixels", "out"),
    "conv_weight_backward": lambda size: by_columns(size, "out", "taps", "pixels", add=True),
}


def conv_work(name: str, read: str, written: str) -> Callable[[Size], Work]:
    """size -> Work of a convolution kernel; `read`, `written`: letters of x, w and y."""

    def work(size: Size) -> Work:
        arrays = zip("xwy", conv_shapes(size), strict=True)
        bytes_ = {letter: F4 * float(np.prod(shape)) for letter, shape in arrays}
        return CONV_WORK[name](size)._replace(
            read=sum(bytes_[letter] for letter in read),
            fresh=sum(bytes_[letter] for letter in written),
        )

    return work


def pooled(size: Size) -> tuple[float, float, float]:
    """Pixels before and after a max-pool, and vector comparisons, once per tap.

    size: images, channels, image edge, window edge, stride.
    """
    images, channels, image, edge, stride = size
    planes, after = images * channels, (image - edge) // stride + 1
    compared = planes * edge**2 * after * np.ceil(after / LANES)
    return float(planes * image**2), float(planes * after**2), float(compared)


def pool_work(size: Size) -> Work:
    """Max-pool forward: a comparison per tap; reads x, writes y and the positions of the maxima."""
    x, y, compared = pooled(size)
    planes = float(size[0] * size[1])
    done = Work(float(y * size[3] ** 2), F4 * x, 2.0 * F4 * y, loops=compared)
    return done._replace(pieces=planes)


def pool_backward_work(size: Size) -> Work:
    """Max-pool backward: an addition per output; reads dy and the positions, writes dx."""
    x, y, _ = pooled(size)
    return Work(y, 2.0 * F4 * y, F4 * x, pieces=float(size[0] * size[1]))
