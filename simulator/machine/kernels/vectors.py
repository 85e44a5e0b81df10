"""Tiles of a product and of a transpose in vector registers, written as LLVM vector
instructions.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from roofcast.simulator.machine.kernels.compiled import REGISTERS, VECTOR_BYTES

LANES = VECTOR_BYTES // 4
# the tile of C: 24 of 32 registers, or 12 of 16
TALL, WIDE = ((12 if REGISTERS == 32 else 6), 2 * LANES)


def _pointer(context, builder, kind, array, start):
    """Address of element `start` of a contiguous array."""
    return builder.gep(context.make_array(kind)(context, builder, value=array).data, [start])


def _tile(spread: bool):
    """The intrinsic of a tile; `spread`: with a table of where rows of B lie."""

    def generate(context, builder, signature, args):
        depth, a, a0, b, b0, c, c0, stride, add = args[:9]
        table = (
            context.make_array(signature.args[9])(context, builder, value=args[9]).data
            if spread
            else None
        )
        vector, word = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
        fma = builder.module.declare_intrinsic(
            f"llvm.fma.v{LANES}f32", (), ir.FunctionType(vector, [vector] * 3)
        )
        kinds = signature.args[1:6:2]
        pa, pb, pc = (
            _pointer(context, builder, *each)
            for each in zip(kinds, (a, b, c), (a0, b0, c0), strict=True)
        )

        def number(value):
            return ir.Constant(word, value)

        def address(base, offset):
            return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

        before, loop, after = (
            builder.block,
            builder.append_basic_block("depth"),
            builder.append_basic_block("store"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        p = builder.phi(word)
        p.add_incoming(number(0), before)
        sums = [[builder.phi(vector) for _ in range(2)] for _ in range(TALL)]
        row = builder.load(builder.gep(table, [p])) if spread else builder.mul(p, number(WIDE))
        right = [
            builder.load(address(pb, builder.add(row, number(j * LANES))), align=4)
            for j in range(2)
        ]
        zero = ir.Constant(vector, [0.0] * LANES)
        grown = []
        for i in range(TALL):
            scalar = builder.load(
                builder.gep(pa, [builder.add(builder.mul(p, number(TALL)), number(i))])
            )
            first = builder.insert_element(
                ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
            )
            left = builder.shuffle_vector(
                first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            )
            grown.append([builder.call(fma, [left, right[j], sums[i][j]]) for j in range(2)])
        following = builder.add(p, number(1))
        p.add_incoming(following, loop)
        for i in range(TALL):
            for j in range(2):
                sums[i][j].add_incoming(zero, before)
                sums[i][j].add_incoming(grown[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        places = [
            [
                address(pc, builder.add(builder.mul(stride, number(i)), number(j * LANES)))
                for j in range(2)
            ]
            for i in range(TALL)
        ]
        with builder.if_else(cgutils.is_not_null(builder, add)) as (adding, storing):
            with adding:
                for place, row in (
                    (places[i][j], grown[i][j]) for i in range(TALL) for j in range(2)
                ):
                    builder.store(builder.fadd(builder.load(place, align=4), row), place, align=4)
            with storing:
                for place, row in (
                    (places[i][j], grown[i][j]) for i in range(TALL) for j in range(2)
                ):
                    builder.store(row, place, align=4)
        return context.get_dummy_value()

    return generate


WHOLE = types.int64


@intrinsic
def packed_tile(typing, depth, a, a0, b, b0, c, c0, stride, add):
    """C[TALL, WIDE] (+)= A B, A packed as [depth, TALL] from a0, B as [depth, WIDE] from b0, C from
    c0 with `stride` to the next row.
    """
    return types.none(WHOLE, a, WHOLE, b, WHOLE, c, WHOLE, WHOLE, WHOLE), _tile(False)


@intrinsic
def spread_tile(typing, depth, a, a0, b, b0, c, c0, stride, add, table):
    """The same where row p of B begins at b0 + table[p]."""
    return types.none(WHOLE, a, WHOLE, b, WHOLE, c, WHOLE, WHOLE, WHOLE, table), _tile(True)


def _turn(height: int):
    """An intrinsic (a, a0, a_stride, b, b0, b_stride): B = A^T of a square of LANES, rows of A from
    a0, of B from b0, strides to the next. Only `height` rows of A are read; what B gets of the
    others is not said.
    """

    def generate(context, builder, signature, args):
        vector, word = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
        pa, pb = (
            _pointer(context, builder, signature.args[at], *args[at : at + 2]) for at in (0, 3)
        )

        def line(base, stride, i):
            return builder.bitcast(
                builder.gep(base, [builder.mul(stride, ir.Constant(word, i))]), vector.as_pointer()
            )

        held = [
            (
                builder.load(line(pa, args[2], i), align=4)
                if i < height
                else ir.Constant(vector, ir.Undefined)
            )
            for i in range(LANES)
        ]
        half = 1
        while (
            half < LANES
        ):  # blocks of half x half change places across the diagonals of squares twice as large
            low = [lane - half + LANES if lane & half else lane for lane in range(LANES)]
            high = [lane + LANES if lane & half else lane + half for lane in range(LANES)]
            mixed = list(held)
            for i in (i for i in range(LANES) if not i & half):
                for at, mask in ((i, low), (i + half, high)):
                    picked = ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask)
                    mixed[at] = builder.shuffle_vector(held[i], held[i + half], picked)
            held, half = mixed, 2 * half
        for i, row in enumerate(held):
            builder.store(row, line(pb, args[5], i), align=4)
        return context.get_dummy_value()

    @intrinsic
    def turn(typing, a, a0, a_stride, b, b0, b_stride):
        return types.none(a, WHOLE, WHOLE, b, WHOLE, WHOLE), generate

    return turn


turn, turn_tall = _turn(LANES), _turn(min(LANES, TALL))


def _first(builder, n, begin: int):
    """A mask of lanes: those whose number, counted from `begin`, is below n."""
    whole, word = ir.VectorType(ir.IntType(64), LANES), ir.IntType(32)
    count = builder.insert_element(ir.Constant(whole, ir.Undefined), n, ir.Constant(word, 0))
    count = builder.shuffle_vector(
        count, count, ir.Constant(ir.VectorType(word, LANES), [0] * LANES)
    )
    return builder.icmp_signed("<", ir.Constant(whole, list(range(begin, begin + LANES))), count)


def _masked(builder, element: ir.Type, suffix: str):
    """load(address, mask) and store(row, address, mask) of a vector, lanes outside the mask left
    alone.
    """
    vector, word, bits = (
        ir.VectorType(element, LANES),
        ir.IntType(32),
        ir.VectorType(ir.IntType(1), LANES),
    )
    four, nothing, at = ir.Constant(word, 4), ir.Constant(vector, None), vector.as_pointer()
    name = f"v{LANES}{suffix}.p0"
    reads, writes = (
        ir.FunctionType(vector, [at, word, bits, vector]),
        ir.FunctionType(ir.VoidType(), [vector, at, word, bits]),
    )
    load = cgutils.get_or_insert_function(builder.module, reads, f"llvm.masked.load.{name}")
    store = cgutils.get_or_insert_function(builder.module, writes, f"llvm.masked.store.{name}")

    def begin(address):
        return builder.bitcast(address, at)

    return (
        lambda address, mask: builder.call(load, [begin(address), four, mask, nothing]),
        lambda row, address, mask: builder.call(store, [row, begin(address), four, mask]),
    )


def _every(builder, load, begin, n, stride: int):
    """A vector of n numbers, `stride` (1 or 2) apart in memory from `begin` on."""
    reach = builder.sub(
        builder.mul(n, ir.Constant(n.type, stride)), ir.Constant(n.type, stride - 1)
    )
    rows = [
        load(
            builder.gep(begin, [ir.Constant(n.type, i * LANES)]), _first(builder, reach, i * LANES)
        )
        for i in range(stride)
    ]
    lanes = ir.Constant(
        ir.VectorType(ir.IntType(32), LANES), [stride * lane for lane in range(LANES)]
    )
    return builder.shuffle_vector(rows[0], rows[-1], lanes), lanes


def _move(adds: bool, stride: int = 1):
    """An intrinsic (n, a, a0, b, b0): B = A, or added to B, of n numbers, no more than LANES; those
    of A are `stride` apart.
    """

    def generate(context, builder, signature, args):
        come, to = (
            _pointer(context, builder, signature.args[at], *args[at : at + 2]) for at in (1, 3)
        )
        mask, (load, store) = _first(builder, args[0], 0), _masked(builder, ir.FloatType(), "f32")
        row, _ = _every(builder, load, come, args[0], stride)
        store(builder.fadd(row, load(to, mask)) if adds else row, to, mask)
        return context.get_dummy_value()

    @intrinsic
    def move(typing, n, a, a0, b, b0):
        return types.none(WHOLE, a, WHOLE, b, WHOLE), generate

    return move


move, move_add, move_of_two = _move(False), _move(True), _move(False, 2)


def _greatest(stride: int):
    """An intrinsic (n, a, a0, best, place, b0, at): n numbers of A, `stride` (1 or 2) apart, where
    greater, become the best; the place of the first is `at`. No more than LANES.
    """

    def generate(context, builder, signature, args):
        n, a, a0, best, place, b0, at = args
        word = ir.IntType(32)
        numbers, wholes = _masked(builder, ir.FloatType(), "f32"), _masked(builder, word, "i32")
        come, most, where = (
            _pointer(context, builder, signature.args[i], args[i], args[j])
            for i, j in ((1, 2), (3, 5), (4, 5))
        )
        mask = _first(builder, n, 0)
        row, every = _every(builder, numbers[0], come, n, stride)
        old = numbers[0](most, mask)
        more = builder.and_(mask, builder.fcmp_ordered(">", row, old))
        first = builder.insert_element(
            ir.Constant(every.type, ir.Undefined), builder.trunc(at, word), ir.Constant(word, 0)
        )
        first = builder.shuffle_vector(first, first, ir.Constant(every.type, [0] * LANES))
        numbers[1](row, most, more)
        wholes[1](builder.add(first, every), where, more)
        return context.get_dummy_value()

    @intrinsic
    def greatest(typing, n, a, a0, best, place, b0, at):
        return types.none(WHOLE, a, WHOLE, best, place, WHOLE, WHOLE), generate

    return greatest


greatest, greatest_of_two = _greatest(1), _greatest(2)
