"""C = A B in fp32: packed panels, and a tile of C held in vector registers.

The blocking is that of BLIS: a panel of B (DEPTH x WIDE) stays in L1, a block of A (ROWS x DEPTH)
in L2 [vanzee2015]. Either operand may be transposed: packing reads it in its own layout.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.kernels.arrays import Array
from roofcast.simulator.machine.kernels.compiled import both, inner, prange
from roofcast.simulator.machine.kernels.vectors import (
    LANES,
    TALL,
    WIDE,
    move,
    move_add,
    packed_tile,
    turn,
    turn_tall,
)

DEPTH = 256
ROWS = 96  # whole tiles of either height
COLUMNS = 1024
GROUP = 256  # columns of B that one thread packs at a time
# whether `turn_tall` can pack rows: it writes past them, into what is overwritten next
TURNS = TALL <= LANES or TALL % LANES == 0


@inner
def pack_rows(
    a: Array, transposed: bool, i0: int, rows: int, p0: int, depth: int, packed: Array
) -> None:
    """A[i0 : i0 + rows, p0 : p0 + depth] as tiles of [depth, TALL], zeros below the last row."""
    flat, across = a.reshape(a.size), a.shape[1]
    for top in range(0, rows, TALL):
        start, first = top * depth, i0 + top
        height = min(TALL, rows - top)
        if height < TALL:
            packed[start : start + TALL * depth] = np.float32(0.0)
        if transposed:
            for p in range(depth):
                here = (p0 + p) * across + first
                if height == TALL:
                    for i in range(TALL):
                        packed[start + p * TALL + i] = flat[here + i]
                else:
                    for i in range(height):
                        packed[start + p * TALL + i] = flat[here + i]
            continue
        whole = depth // LANES * LANES if TURNS and height == TALL else 0
        for p in range(0, whole, LANES):
            for i in range(0, TALL, LANES):
                here, there = (first + i) * across + p0 + p, start + p * TALL + i
                turn_tall(flat, here, across, packed, there, TALL)
        for i in range(height):
            here = (first + i) * across + p0
            for p in range(whole, depth):
                packed[start + p * TALL + i] = flat[here + p]


@inner
def _pack_columns(b, transposed, p0, depth, j0, columns, packed):
    """B[p0 : p0 + depth, j0 : j0 + columns] as panels of [depth, WIDE].

    Zeros fill the last panel to the right of the last column.
    """
    flat, across = b.reshape(b.size), b.shape[1]
    whole = columns // WIDE * WIDE
    if whole < columns:
        packed[whole * depth : (whole + WIDE) * depth] = np.float32(0.0)
    if not transposed:
        for p in range(depth):  # row by row: a row is contiguous
            here = (p0 + p) * across + j0
            for first in range(0, whole, WIDE):
                for j in range(WIDE):
                    packed[first * depth + p * WIDE + j] = flat[here + first + j]
            for j in range(whole, columns, LANES):
                move(columns - j, flat, here + j, packed, whole * depth + p * WIDE + j - whole)
        return
    for j in range(0, columns):
        squares = depth // LANES * LANES if j < whole else 0
        here, there = (j0 + j) * across + p0, j // WIDE * WIDE * depth + j % WIDE
        if j < whole and j % LANES == 0:
            for p in range(0, squares, LANES):
                turn(flat, here + p, across, packed, there + p * WIDE, WIDE)
        for p in range(squares, depth):
            packed[there + p * WIDE] = flat[here + p]


@inner
def _block(packed_a, packed_b, b0, c, i0, rows, first, columns, depth, add, edge):
    """C[i0 : i0 + rows, first : first + WIDE] (+)= packed A times one packed panel of B.

    `edge` is a buffer for tiles that C cuts off.
    """
    flat, stride = c.reshape(c.size), c.shape[1]
    width = min(WIDE, columns - first)
    for top in range(0, rows, TALL):
        height, corner = min(TALL, rows - top), (i0 + top) * stride + first
        if height == TALL and width == WIDE:
            packed_tile(depth, packed_a, top * depth, packed_b, b0, flat, corner, stride, add)
            continue
        packed_tile(depth, packed_a, top * depth, packed_b, b0, edge, 0, WIDE, 0)
        for i in range(height):
            for j in range(0, width, LANES):
                if add:
                    move_add(width - j, edge, i * WIDE + j, flat, corner + i * stride + j)
                else:
                    move(width - j, edge, i * WIDE + j, flat, corner + i * stride + j)


@both
def gemm(a: Array, b: Array, c: Array, transpose_a: bool, transpose_b: bool, add: bool) -> None:
    """c[m, n] = a[m, k] b[k, n], or added to c if `add`; all C-contiguous.

    A transposed operand is stored as a[k, m] or b[n, k].
    """
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    deep, high = min(k, DEPTH), (min(m, ROWS) + TALL - 1) // TALL * TALL
    panels = np.empty(deep * ((min(n, COLUMNS) + WIDE - 1) // WIDE) * WIDE, np.float32)
    for j0 in range(0, n, COLUMNS):
        columns = min(COLUMNS, n - j0)
        for p0 in range(0, k, DEPTH):
            depth, more = min(DEPTH, k - p0), 1 if add or p0 > 0 else 0
            for group in prange((columns + GROUP - 1) // GROUP):
                begin = group * GROUP
                count, panel_group = min(GROUP, columns - begin), panels[begin * depth :]
                _pack_columns(b, transpose_b, p0, depth, j0 + begin, count, panel_group)
            for block in prange((m + ROWS - 1) // ROWS):
                i0, rows = block * ROWS, min(ROWS, m - block * ROWS)
                packed = np.empty(high * deep + LANES, np.float32)
                edge = np.empty(TALL * WIDE, np.float32)
                pack_rows(a, transpose_a, i0, rows, p0, depth, packed)
                for panel in range((columns + WIDE - 1) // WIDE):
                    b0, j = panel * WIDE * depth, j0 + panel * WIDE
                    _block(packed, panels, b0, c, i0, rows, j, n, depth, more, edge)
