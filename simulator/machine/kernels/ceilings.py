"""What the machine can do at most: streams through each level of memory, chains of multiply-adds,
special functions.

Every kernel splits its arrays among `teams` (1, or the number of threads) and goes over them
`repeats` times between one fork and one join, so that sets that fit in L1 can be timed. Sizes in
elements of fp32.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from roofcast.simulator.machine.kernels import functions
from roofcast.simulator.machine.kernels.compiled import VECTOR_BYTES, both, prange

# multiply-adds under way: more than latency x units of any core known (4 x 2), less than its
# registers
CHAINS = 12


@both
def read(x, out, teams, repeats):
    """out[team] = sum of the share of x that a team has, halved and added again each time: reads
    n.
    """
    size = x.size // teams
    for team in prange(teams):
        mine = x[team * size : (team + 1) * size]
        total = np.float32(0.0)
        for _ in range(repeats):
            some = np.float32(0.0)
            for i in range(size):
                some += mine[i]
            total = total * np.float32(0.5) + some
        out[team] = total


@both
def fill(y, teams, repeats):
    """y = a number: writes n."""
    size = y.size // teams
    for team in prange(teams):
        mine = y[team * size : (team + 1) * size]
        for repeat in range(repeats):
            value = np.float32(repeat + 1)
            for i in range(size):
                mine[i] = value


@both
def copy(x, y, teams, repeats):
    """y = x: reads n, writes n. LLVM makes it a memcpy, which may write past the caches."""
    size = y.size // teams
    for team in prange(teams):
        mine, yours = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = yours[i]


@both
def scale(x, y, teams, repeats):
    """y = 0.5 x: reads n, writes n."""
    size = y.size // teams
    for team in prange(teams):
        mine, yours = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = np.float32(0.5) * yours[i]


@both
def triad(a, b, y, teams, repeats):
    """y = a + 0.5 b: reads 2 n, writes n."""
    size = y.size // teams
    for team in prange(teams):
        lo, hi = team * size, (team + 1) * size
        mine, first, second = y[lo:hi], a[lo:hi], b[lo:hi]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = first[i] + np.float32(0.5) * second[i]


def _chain(element: ir.Type, width: int, suffix: str, result: types.Type):
    """An intrinsic (repeats, x) -> sum of CHAINS vectors, each x <- 0.5 x + 1 as often as `repeats`
    says.
    """

    @intrinsic
    def run(typing, repeats, x):
        def generate(context, builder, signature, args):
            lanes, word = VECTOR_BYTES // width, ir.IntType(64)
            vector = ir.VectorType(element, lanes)
            fma = builder.module.declare_intrinsic(
                f"llvm.fma.v{lanes}{suffix}", (), ir.FunctionType(vector, [vector] * 3)
            )
            half, one = ir.Constant(vector, [0.5] * lanes), ir.Constant(vector, [1.0] * lanes)
            start = [
                ir.Constant(vector, [float(chain + lane) for lane in range(lanes)])
                for chain in range(CHAINS)
            ]
            before, loop, after = (
                builder.block,
                builder.append_basic_block("chain"),
                builder.append_basic_block("sum"),
            )
            builder.branch(loop)
            builder.position_at_end(loop)
            count = builder.phi(word)
            sums = [builder.phi(vector) for _ in range(CHAINS)]
            grown = [builder.call(fma, [each, half, one]) for each in sums]
            following = builder.add(count, ir.Constant(word, 1))
            count.add_incoming(ir.Constant(word, 0), before)
            count.add_incoming(following, loop)
            for phi, first, then in zip(sums, start, grown, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(then, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[0]), loop, after)
            builder.position_at_end(after)
            total = grown[0]
            for each in grown[1:]:
                total = builder.fadd(total, each)
            lane = [
                builder.extract_element(total, ir.Constant(ir.IntType(32), i)) for i in range(lanes)
            ]
            answer = args[1]
            for each in lane:
                answer = builder.fadd(answer, each)
            return answer

        return result(types.int64, result), generate

    return run


_chain32 = _chain(ir.FloatType(), 4, "f32", types.float32)
_chain64 = _chain(ir.DoubleType(), 8, "f64", types.float64)


@both
def fma32(out, teams, repeats):
    """out[team] = sum of CHAINS vectors of fp32 after `repeats` multiply-adds each."""
    for team in prange(teams):
        out[team] = _chain32(repeats, np.float32(0.0))


@both
def fma64(out, teams, repeats):
    """The same in fp64."""
    for team in prange(teams):
        out[team] = _chain64(repeats, 0.0)


@both
def exp(x, y, teams, repeats):
    """y = e^x."""
    size = y.size // teams
    for team in prange(teams):
        mine, yours = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = functions.exp(yours[i])


@both
def erf(x, y, teams, repeats):
    """y = erf x."""
    size = y.size // teams
    for team in prange(teams):
        mine, yours = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = functions.erf(yours[i])


@both
def tanh(x, y, teams, repeats):
    """y = tanh x."""
    size = y.size // teams
    for team in prange(teams):
        mine, yours = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = functions.tanh(yours[i])


@both
def div(x, y, teams, repeats):
    """y = 1 / x."""
    size = y.size // teams
    for team in prange(teams):
        mine, yours = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = np.float32(1.0) / yours[i]


@both
def fork(out, teams):
    """One parallel loop that does next to nothing: what starting and joining the threads costs."""
    for team in prange(teams):
        out[team] = np.float32(team)


@both
def loop(x, out, length, repeats):
    """out[row] = sum of row [rows, length], `length` unknown to the compiler: of short rows, what
    it costs to enter and leave a loop.
    """
    for _ in range(repeats):
        for r in prange(out.size):
            total = np.float32(0.0)
            for i in range(length):
                total += x[r * length + i]
            out[r] = total


@both
def call(a, b, y):
    """y[0] = a[0] + b[0]: what a call from Python costs."""
    y[0] = a[0] + b[0]
