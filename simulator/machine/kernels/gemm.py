"""C = A B in fp32: packed panels and a tile of C held in vector registers, written as LLVM vector instructions.

The blocking is that of BLIS: a panel of B (DEPTH x WIDE) stays in L1, a block of A (ROWS x DEPTH) in L2 [vanzee2015].
Either operand may be given transposed: packing reads it as it lies.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from simulator.machine.kernels.compiled import REGISTERS, VECTOR_BYTES, both, inner, prange

LANES = VECTOR_BYTES // 4
TALL, WIDE = (12 if REGISTERS == 32 else 6), 2 * LANES  # the tile of C: 24 of 32 registers, or 12 of 16
DEPTH = 256
ROWS = 96  # whole tiles of either height
COLUMNS = 1024


def _pointer(context, builder, kind, array, start):
    """Address of element `start` of a contiguous array."""
    return builder.gep(context.make_array(kind)(context, builder, value=array).data, [start])


@intrinsic
def _tile(typing, depth, a, a0, b, b0, c, c0, stride, add):
    """C[TALL, WIDE] (+)= A B, A packed as [depth, TALL] from a0, B as [depth, WIDE] from b0, C from c0 with `stride` to the next row."""
    whole = types.int64
    signature = types.none(whole, a, whole, b, whole, c, whole, whole, whole)

    def generate(context, builder, signature, args):
        depth, a, a0, b, b0, c, c0, stride, add = args
        vector, word = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
        fma = builder.module.declare_intrinsic(f"llvm.fma.v{LANES}f32", (), ir.FunctionType(vector, [vector] * 3))
        kinds = signature.args[1:6:2]
        pa, pb, pc = (_pointer(context, builder, *each) for each in zip(kinds, (a, b, c), (a0, b0, c0), strict=True))

        def number(value):
            return ir.Constant(word, value)

        def address(base, offset):
            return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

        before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("store")
        builder.branch(loop)
        builder.position_at_end(loop)
        p = builder.phi(word)
        p.add_incoming(number(0), before)
        sums = [[builder.phi(vector) for _ in range(2)] for _ in range(TALL)]
        right = [
            builder.load(address(pb, builder.add(builder.mul(p, number(WIDE)), number(j * LANES))), align=4) for j in range(2)
        ]
        zero = ir.Constant(vector, [0.0] * LANES)
        grown = []
        for i in range(TALL):
            scalar = builder.load(builder.gep(pa, [builder.add(builder.mul(p, number(TALL)), number(i))]))
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
            left = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))
            grown.append([builder.call(fma, [left, right[j], sums[i][j]]) for j in range(2)])
        following = builder.add(p, number(1))
        p.add_incoming(following, loop)
        for i in range(TALL):
            for j in range(2):
                sums[i][j].add_incoming(zero, before)
                sums[i][j].add_incoming(grown[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        places = [[address(pc, builder.add(builder.mul(stride, number(i)), number(j * LANES))) for j in range(2)] for i in range(TALL)]
        with builder.if_else(cgutils.is_not_null(builder, add)) as (adding, storing):
            with adding:
                for place, row in ((places[i][j], grown[i][j]) for i in range(TALL) for j in range(2)):
                    builder.store(builder.fadd(builder.load(place, align=4), row), place, align=4)
            with storing:
                for place, row in ((places[i][j], grown[i][j]) for i in range(TALL) for j in range(2)):
                    builder.store(row, place, align=4)
        return context.get_dummy_value()

    return signature, generate


@inner
def _pack_rows(a, transposed, i0, rows, p0, depth, packed):
    """A[i0 : i0 + rows, p0 : p0 + depth] as tiles of [depth, TALL], zeros below the last row."""
    for tile in range((rows + TALL - 1) // TALL):
        start, first = tile * TALL * depth, i0 + tile * TALL
        height = min(TALL, i0 + rows - first)
        if height < TALL:
            packed[start : start + TALL * depth] = np.float32(0.0)
        if transposed:
            for p in range(depth):
                row = a[p0 + p]
                for i in range(height):
                    packed[start + p * TALL + i] = row[first + i]
        else:
            for i in range(height):
                row = a[first + i]
                for p in range(depth):
                    packed[start + p * TALL + i] = row[p0 + p]


@inner
def _pack_columns(b, transposed, p0, depth, first, columns, packed, start):
    """B[p0 : p0 + depth, first : first + WIDE] as [depth, WIDE], zeros right of the last column."""
    width = min(WIDE, columns - first)
    if width < WIDE:
        packed[start : start + WIDE * depth] = np.float32(0.0)
    if transposed:
        for j in range(width):
            row = b[first + j]
            for p in range(depth):
                packed[start + p * WIDE + j] = row[p0 + p]
    else:
        for p in range(depth):
            row = b[p0 + p]
            for j in range(width):
                packed[start + p * WIDE + j] = row[first + j]


@inner
def _block(packed_a, packed_b, b0, c, i0, rows, first, columns, depth, add, edge):
    """C[i0 : i0 + rows, first : first + WIDE] (+)= packed A times one packed panel of B; `edge` holds a tile that C has no room for."""
    flat, stride = c.reshape(c.size), c.shape[1]
    width = min(WIDE, columns - first)
    for tile in range((rows + TALL - 1) // TALL):
        top = i0 + tile * TALL
        height = min(TALL, i0 + rows - top)
        if height == TALL and width == WIDE:
            _tile(depth, packed_a, tile * TALL * depth, packed_b, b0, flat, top * stride + first, stride, add)
        else:
            _tile(depth, packed_a, tile * TALL * depth, packed_b, b0, edge, 0, WIDE, 0)
            for i in range(height):
                for j in range(width):
                    old = c[top + i, first + j] if add else np.float32(0.0)
                    c[top + i, first + j] = old + edge[i * WIDE + j]


@both
def gemm(a, b, c, transpose_a, transpose_b, add):
    """c[m, n] = a[m, k] b[k, n], or added to c; a stored as [k, m] and b as [n, k] where transposed. C-contiguous fp32."""
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    panels = np.empty(DEPTH * ((min(n, COLUMNS) + WIDE - 1) // WIDE) * WIDE, np.float32)
    for j0 in range(0, n, COLUMNS):
        across = (min(COLUMNS, n - j0) + WIDE - 1) // WIDE
        for p0 in range(0, k, DEPTH):
            depth = min(DEPTH, k - p0)
            for panel in prange(across):
                _pack_columns(b, transpose_b, p0, depth, j0 + panel * WIDE, n, panels, panel * WIDE * depth)
            for block in prange((m + ROWS - 1) // ROWS):
                rows = min(ROWS, m - block * ROWS)
                packed, edge = np.empty(ROWS * DEPTH, np.float32), np.empty(TALL * WIDE, np.float32)
                _pack_rows(a, transpose_a, block * ROWS, rows, p0, depth, packed)
                for panel in range(across):
                    _block(packed, panels, panel * WIDE * depth, c, block * ROWS, rows, j0 + panel * WIDE, n, depth,
                           1 if add or p0 > 0 else 0, edge)  # fmt: skip
