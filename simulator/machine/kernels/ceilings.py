"""Microbenchmarks of the machine's ceilings: memory streams, multiply-adds, special functions.

Every kernel splits its arrays into `teams` equal parts (1, or the number of threads) and goes over
them `repeats` times between one fork and one join, so that working sets that fit in L1 can be
timed. Sizes are in fp32 elements.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from roofcast.simulator.machine.kernels import functions
from roofcast.simulator.machine.kernels.arrays import Array
from roofcast.simulator.machine.kernels.compiled import VECTOR_BYTES, both, intrinsic, prange

# Independent multiply-adds in flight: more than latency x units of any known core (4 x 2), fewer
# than its registers.
CHAINS = 12


@both
def read(x: Array, out: Array, teams: int, repeats: int) -> None:
    """Read n: out[team] = the sum of the team's part of x, halved and added again each time."""
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
def fill(y: Array, teams: int, repeats: int) -> None:
    """Write n: y = a number."""
    size = y.size // teams
    for team in prange(teams):
        mine = y[team * size : (team + 1) * size]
        for repeat in range(repeats):
            value = np.float32(repeat + 1)
            for i in range(size):
                mine[i] = value


@both
def copy(x: Array, y: Array, teams: int, repeats: int) -> None:
    """Read n, write n: y = x. LLVM makes it a memcpy, which may write past the caches."""
    size = y.size // teams
    for team in prange(teams):
        mine, source = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = source[i]


@both
def scale(x: Array, y: Array, teams: int, repeats: int) -> None:
    """Read n, write n: y = 0.5 x."""
    size = y.size // teams
    for team in prange(teams):
        mine, source = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = np.float32(0.5) * source[i]


@both
def triad(a: Array, b: Array, y: Array, teams: int, repeats: int) -> None:
    """Read 2 n, write n: y = a + 0.5 b."""
    size = y.size // teams
    for team in prange(teams):
        lo, hi = team * size, (team + 1) * size
        mine, first, second = y[lo:hi], a[lo:hi], b[lo:hi]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = first[i] + np.float32(0.5) * second[i]


def _chain(element: ir.Type, width: int, suffix: str, result: types.Type):
    """An intrinsic (repeats, x): the sum of CHAINS vectors after `repeats` steps of v = 0.5 v + 1.

    The sum is added to x. `element`: the LLVM type of a lane, `width` its bytes.
    """

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
        before = builder.block
        loop, after = builder.append_basic_block("chain"), builder.append_basic_block("sum")
        builder.branch(loop)
        builder.position_at_end(loop)
        count = builder.phi(word)
        old = [builder.phi(vector) for _ in range(CHAINS)]
        new = [builder.call(fma, [each, half, one]) for each in old]
        following = builder.add(count, ir.Constant(word, 1))
        count.add_incoming(ir.Constant(word, 0), before)
        count.add_incoming(following, loop)
        for phi, first, then in zip(old, start, new, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[0]), loop, after)
        builder.position_at_end(after)
        total = new[0]
        for each in new[1:]:
            total = builder.fadd(total, each)
        places = [ir.Constant(ir.IntType(32), i) for i in range(lanes)]
        answer = args[1]
        for lane in [builder.extract_element(total, place) for place in places]:
            answer = builder.fadd(answer, lane)
        return answer

    @intrinsic
    def run(typing, repeats, x):
        return result(types.int64, result), generate

    return run


_chain32 = _chain(ir.FloatType(), 4, "f32", types.float32)
_chain64 = _chain(ir.DoubleType(), 8, "f64", types.float64)


@both
def fma32(out: Array, teams: int, repeats: int) -> None:
    """out[team] = the sum of CHAINS fp32 vectors after `repeats` multiply-adds each."""
    for team in prange(teams):
        out[team] = _chain32(repeats, np.float32(0.0))


@both
def fma64(out: np.ndarray, teams: int, repeats: int) -> None:
    """The same in fp64."""
    for team in prange(teams):
        out[team] = _chain64(repeats, 0.0)


@both
def exp(x: Array, y: Array, teams: int, repeats: int) -> None:
    """y = e^x."""
    size = y.size // teams
    for team in prange(teams):
        mine, source = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = functions.exp(source[i])


@both
def erf(x: Array, y: Array, teams: int, repeats: int) -> None:
    """y = erf x."""
    size = y.size // teams
    for team in prange(teams):
        mine, source = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = functions.erf(source[i])


@both
def tanh(x: Array, y: Array, teams: int, repeats: int) -> None:
    """y = tanh x."""
    size = y.size // teams
    for team in prange(teams):
        mine, source = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = functions.tanh(source[i])


@both
def div(x: Array, y: Array, teams: int, repeats: int) -> None:
    """y = 1 / x."""
    size = y.size // teams
    for team in prange(teams):
        mine, source = y[team * size : (team + 1) * size], x[team * size : (team + 1) * size]
        for _ in range(repeats):
            for i in range(size):
                mine[i] = np.float32(1.0) / source[i]


@both
def fork(out: Array, teams: int) -> None:
    """A nearly empty parallel loop: the cost of starting and joining the threads."""
    for team in prange(teams):
        out[team] = np.float32(team)


@both
def loop(x: Array, out: Array, length: int, repeats: int) -> None:
    """out[row] = the sum of row [rows, length]: with short rows, the cost of entering a loop.

    `length` is not known to the compiler.
    """
    for _ in range(repeats):
        for r in prange(out.size):
            total = np.float32(0.0)
            for i in range(length):
                total += x[r * length + i]
            out[r] = total


@both
def call(a: Array, b: Array, y: Array) -> None:
    """y[0] = a[0] + b[0]: the cost of a call from Python."""
    y[0] = a[0] + b[0]
