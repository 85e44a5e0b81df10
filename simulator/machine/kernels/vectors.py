"""Vector instructions for numba kernels, emitted as LLVM IR.

Tiles of a matrix product (`packed_tile`, `spread_tile`), transposes of squares (`turn`), masked
moves of up to LANES numbers (`move`, ..), and the maximum with its position (`greatest`, ..).
Each function below that returns an intrinsic documents the intrinsic's arguments. An array argument
is followed by the index of its first element: (a, a0).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from roofcast.simulator.machine.kernels.compiled import REGISTERS, VECTOR_BYTES, intrinsic

LANES = VECTOR_BYTES // 4  # fp32 numbers in a vector
# The tile of C uses 24 of 32 registers, or 12 of 16.
TALL, WIDE = ((12 if REGISTERS == 32 else 6), 2 * LANES)
COUNT = types.int64
WORD, LONG = ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
SHUFFLE = ir.VectorType(WORD, LANES)  # type of a shuffle's lane numbers


def _data(context, builder, kind, array):
    """Address of the first element of a contiguous array."""
    return context.make_array(kind)(context, builder, value=array).data


def _pointer(context, builder, kind, array, start):
    """Address of element `start` of a contiguous array."""
    return builder.gep(_data(context, builder, kind, array), [start])


def _vector_at(builder, base, offset):
    """Address of a vector that starts `offset` numbers after `base`."""
    return builder.bitcast(builder.gep(base, [offset]), VECTOR.as_pointer())


def _broadcast(builder, scalar, vector: ir.VectorType):
    """A vector with the scalar in every lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(WORD, 0))
    return builder.shuffle_vector(first, first, ir.Constant(SHUFFLE, [0] * LANES))


def _tile(spread: bool) -> Any:
    """An intrinsic (depth, a, a0, b, b0, c, c0, stride, add): C[TALL, WIDE] = A B.

    If `add` is not zero, C += A B. A is packed as [depth, TALL], B as [depth, WIDE]; rows of C are
    `stride` numbers apart. If `spread`, one more argument is a table of offsets: row p of B starts
    at b0 + table[p].
    """

    def generate(context, builder, signature, args):
        depth, a, a0, b, b0, c, c0, stride, add = args[:9]
        kinds = signature.args
        table = _data(context, builder, kinds[9], args[9]) if spread else None
        pa = _pointer(context, builder, kinds[1], a, a0)
        pb = _pointer(context, builder, kinds[3], b, b0)
        pc = _pointer(context, builder, kinds[5], c, c0)
        before = builder.block
        loop, after = builder.append_basic_block("depth"), builder.append_basic_block("store")
        builder.branch(loop)
        builder.position_at_end(loop)
        p = builder.phi(LONG)
        p.add_incoming(ir.Constant(LONG, 0), before)
        old = [[builder.phi(VECTOR) for _ in range(2)] for _ in range(TALL)]
        row = builder.load(builder.gep(table, [p])) if spread else _times(builder, p, WIDE)
        new = _multiply_add(builder, pa, pb, p, row, old)
        following = builder.add(p, ir.Constant(LONG, 1))
        p.add_incoming(following, loop)
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        for i in range(TALL):
            for j in range(2):
                old[i][j].add_incoming(zero, before)
                old[i][j].add_incoming(new[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        _store_tile(builder, pc, stride, add, new)
        return context.get_dummy_value()

    @intrinsic
    def packed(typing, depth, a, a0, b, b0, c, c0, stride, add):
        return types.none(COUNT, a, COUNT, b, COUNT, c, COUNT, COUNT, COUNT), generate

    @intrinsic
    def spread_rows(typing, depth, a, a0, b, b0, c, c0, stride, add, table):
        return types.none(COUNT, a, COUNT, b, COUNT, c, COUNT, COUNT, COUNT, table), generate

    return spread_rows if spread else packed


def _times(builder, value, factor: int):
    return builder.mul(value, ir.Constant(LONG, factor))


def _plus(builder, value, term: int):
    return builder.add(value, ir.Constant(LONG, term))


def _multiply_add(builder, pa, pb, p, row, sums):
    """The sums of the tile [TALL][2] after row p of both operands."""
    fma = builder.module.declare_intrinsic(
        f"llvm.fma.v{LANES}f32", (), ir.FunctionType(VECTOR, [VECTOR] * 3)
    )
    right = [
        builder.load(_vector_at(builder, pb, _plus(builder, row, j * LANES)), align=4)
        for j in range(2)
    ]
    new = []
    for i in range(TALL):
        place = _plus(builder, _times(builder, p, TALL), i)
        left = _broadcast(builder, builder.load(builder.gep(pa, [place])), VECTOR)
        new.append([builder.call(fma, [left, right[j], sums[i][j]]) for j in range(2)])
    return new


def _store_tile(builder, pc, stride, add, rows):
    """Write the tile to C, or add it to C where `add` is not zero."""
    places = [
        _vector_at(builder, pc, _plus(builder, _times(builder, stride, i), j * LANES))
        for i in range(TALL)
        for j in range(2)
    ]
    pairs = list(zip(places, (row for pair in rows for row in pair), strict=True))
    with builder.if_else(cgutils.is_not_null(builder, add)) as (adding, storing):
        with adding:
            for place, row in pairs:
                builder.store(builder.fadd(builder.load(place, align=4), row), place, align=4)
        with storing:
            for place, row in pairs:
                builder.store(row, place, align=4)


packed_tile, spread_tile = _tile(False), _tile(True)


def _turn(height: int) -> Any:
    """An intrinsic (a, a0, a_stride, b, b0, b_stride): B = A^T for a square of LANES.

    Rows are a_stride and b_stride numbers apart. Only `height` rows of A are read; the elements of
    B that belong to other rows are undefined.
    """

    def generate(context, builder, signature, args):
        pa, pb = (
            _pointer(context, builder, signature.args[at], *args[at : at + 2]) for at in (0, 3)
        )
        held = [
            (
                builder.load(_vector_at(builder, pa, _times(builder, args[2], i)), align=4)
                if i < height
                else ir.Constant(VECTOR, ir.Undefined)
            )
            for i in range(LANES)
        ]
        half = 1
        while half < LANES:
            # exchange blocks of half x half across the diagonals of squares twice as large
            low = [lane - half + LANES if lane & half else lane for lane in range(LANES)]
            high = [lane + LANES if lane & half else lane + half for lane in range(LANES)]
            mixed = list(held)
            for i in (i for i in range(LANES) if not i & half):
                for at, mask in ((i, low), (i + half, high)):
                    lanes = ir.Constant(SHUFFLE, mask)
                    mixed[at] = builder.shuffle_vector(held[i], held[i + half], lanes)
            held, half = mixed, 2 * half
        for i, row in enumerate(held):
            builder.store(row, _vector_at(builder, pb, _times(builder, args[5], i)), align=4)
        return context.get_dummy_value()

    @intrinsic
    def turn(typing, a, a0, a_stride, b, b0, b_stride):
        return types.none(a, COUNT, COUNT, b, COUNT, COUNT), generate

    return turn


turn, turn_tall = _turn(LANES), _turn(min(LANES, TALL))


def _first(builder, n, begin: int):
    """A mask of the lanes whose number, counted from `begin`, is below n."""
    longs = ir.VectorType(LONG, LANES)
    numbers = ir.Constant(longs, list(range(begin, begin + LANES)))
    return builder.icmp_signed("<", numbers, _broadcast(builder, n, longs))


def _masked(builder, element: ir.Type, suffix: str):
    """load(address, mask) and store(row, address, mask) of a vector; other lanes stay untouched."""
    vector, bits = ir.VectorType(element, LANES), ir.VectorType(ir.IntType(1), LANES)
    align, nothing, at = ir.Constant(WORD, 4), ir.Constant(vector, None), vector.as_pointer()
    name = f"v{LANES}{suffix}.p0"
    reads = ir.FunctionType(vector, [at, WORD, bits, vector])
    writes = ir.FunctionType(ir.VoidType(), [vector, at, WORD, bits])
    load = cgutils.get_or_insert_function(builder.module, reads, f"llvm.masked.load.{name}")
    store = cgutils.get_or_insert_function(builder.module, writes, f"llvm.masked.store.{name}")

    def begin(address):
        return builder.bitcast(address, at)

    return (
        lambda address, mask: builder.call(load, [begin(address), align, mask, nothing]),
        lambda row, address, mask: builder.call(store, [row, begin(address), align, mask]),
    )


def _strided(builder, load, begin, n, stride: int):
    """A vector of n numbers, `stride` (1 or 2) apart in memory from `begin`, and their offsets."""
    step, rest = ir.Constant(n.type, stride), ir.Constant(n.type, stride - 1)
    reach = builder.sub(builder.mul(n, step), rest)
    rows = []
    for at in range(0, stride * LANES, LANES):
        address = builder.gep(begin, [ir.Constant(n.type, at)])
        rows.append(load(address, _first(builder, reach, at)))
    offsets = ir.Constant(SHUFFLE, [stride * lane for lane in range(LANES)])
    return builder.shuffle_vector(rows[0], rows[-1], offsets), offsets


def _move(adds: bool, stride: int = 1) -> Any:
    """An intrinsic (n, a, a0, b, b0): B = A, or B += A if `adds`, for n <= LANES numbers.

    Those of A are `stride` apart.
    """

    def generate(context, builder, signature, args):
        source, target = (
            _pointer(context, builder, signature.args[at], *args[at : at + 2]) for at in (1, 3)
        )
        mask, (load, store) = _first(builder, args[0], 0), _masked(builder, ir.FloatType(), "f32")
        row, _ = _strided(builder, load, source, args[0], stride)
        store(builder.fadd(row, load(target, mask)) if adds else row, target, mask)
        return context.get_dummy_value()

    @intrinsic
    def move(typing, n, a, a0, b, b0):
        return types.none(COUNT, a, COUNT, b, COUNT), generate

    return move


move, move_add, move_of_two = _move(False), _move(True), _move(False, 2)


def _greatest(stride: int) -> Any:
    """An intrinsic (n, a, a0, best, place, b0, at): best = max(best, A) for n <= LANES numbers.

    Numbers of A are `stride` (1 or 2) apart. Where one is greater, its position is stored in
    `place`; the position of the first is `at`. b0 is the first index of both best and place.
    """

    def generate(context, builder, signature, args):
        n, a, a0, best, place, b0, at = args
        kinds = signature.args
        load, store = _masked(builder, ir.FloatType(), "f32")
        _, store_place = _masked(builder, WORD, "i32")
        source = _pointer(context, builder, kinds[1], a, a0)
        most = _pointer(context, builder, kinds[3], best, b0)
        where = _pointer(context, builder, kinds[4], place, b0)
        mask = _first(builder, n, 0)
        row, offsets = _strided(builder, load, source, n, stride)
        more = builder.and_(mask, builder.fcmp_ordered(">", row, load(most, mask)))
        first = _broadcast(builder, builder.trunc(at, WORD), offsets.type)
        store(row, most, more)
        store_place(builder.add(first, offsets), where, more)
        return context.get_dummy_value()

    @intrinsic
    def greatest(typing, n, a, a0, best, place, b0, at):
        return types.none(COUNT, a, COUNT, best, place, COUNT, COUNT), generate

    return greatest


greatest, greatest_of_two = _greatest(1), _greatest(2)
