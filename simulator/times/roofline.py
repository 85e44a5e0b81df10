"""Kernels and a device -> seconds: the time of each kernel, its printed lower bound, and what
limits it. All kernels of one kind and format are computed in one call on arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.times import on_cpu
from roofcast.simulator.times.ages import aged, cpu_software, odd_rows, widens
from roofcast.simulator.times.attention import SHORT, attention
from roofcast.simulator.times.bounds import printed_times
from roofcast.simulator.times.compressed import sparse_matmul, widening
from roofcast.simulator.times.conv import conv, least_flops
from roofcast.simulator.times.inside import inside_steps, over_lists
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.on_cpu import Software
from roofcast.simulator.times.power import (
    Board,
    Energy,
    at_clocks,
    board_of,
    clocks,
    held,
    limited,
    under_a_cap,
)
from roofcast.simulator.times.rates import Rates, Resolved, resolve
from roofcast.simulator.times.recurrent import recurrent
from roofcast.simulator.times.stream import stream
from roofcast.simulator.work.traced import Kernel

if TYPE_CHECKING:
    from roofcast.simulator.work.step import Step

STREAMS = {  # kernel kinds -> classes of times.stream, forward and backward
    "layer_norm": ("norm", "norm_backward"),
    "accumulate": ("elementwise", "elementwise"), "pool": ("compare", "pool"),
}  # fmt: skip
BOUNDS = ("matrix", "vector", "memory", "latency")
# a kernel is bound by its latency where the roofs explain less than this fraction of its time, and
# it is shorter than this [s]
EXPLAINED = 0.4
SMALL_KERNEL = 2e-5
# kinds: as stacks name them
PRODUCTS = {"matmul": "matmul", "sparse_matmul": "matmul", "conv": "conv", "depthwise": "conv"}
CONV_PHASE = {"forward": "forward", "dgrad": "input", "wgrad": "weight"}


class OpTimes(NamedTuple):
    """Times of the kernels of a step, `count` repetitions included [s]."""

    seconds: np.ndarray
    # printed roofline; a board that runs above its printed clock can beat it
    lower: np.ndarray
    bound: np.ndarray  # index into BOUNDS
    assumptions: tuple[str, ...]
    # energy of each kernel and the clock that the board's power leaves it, as a share of the
    # highest; None where the board's power is unknown (`board`)
    joules: np.ndarray | None = None
    clock: np.ndarray | None = None
    board: Board | None = None


# kernels that one call of one formula computes: the formula, what it needs beside shapes (backward,
# phase and memory format, or whether rows of a matrix are odd), and the number format
_Group = tuple[str, Any, str]
_How = tuple[bool, Software | None]  # images are stored channels-last; software of a measured CPU


@functools.lru_cache(maxsize=256)
def rates_of(device: Device, product: str) -> Resolved:
    """Rates of a device for one format, resolved once."""
    return resolve(device, product)


class Clocked(NamedTuple):
    """Kernels of a step before a power limit, one repetition each."""

    seconds: np.ndarray  # a row for each share of the highest clock
    energy: Energy
    lower: np.ndarray
    bound: np.ndarray
    assumptions: tuple[str, ...]


def time_all(
    step: Step,
    device: Device,
    c: Kernels | None = None,
    find: Callable[[Device, str], Resolved] = rates_of,
) -> OpTimes:
    """Seconds of every kernel of a step on a device, under the power limit of its board. A fit
    brings its own constants and rates.
    """
    c = c or constants()
    count = np.array([k.count for k in step.kernels], dtype=float)
    board = board_of(device, c.power)
    at = clocked(step, device, board, clocks(c.power) if board else np.ones(1), c, find)
    if not board:
        return OpTimes(at.seconds[0] * count, at.lower * count, at.bound, at.assumptions)
    found = held(at.seconds, at.energy, board, c.power)
    seconds = found.seconds * count
    said = (
        *at.assumptions,
        *board.assumptions,
        *limited(device, board, found.clock, seconds),
        *under_a_cap(device, board, at.seconds, at.energy, count, c.power),
    )
    return OpTimes(
        seconds, at.lower * count, at.bound, said, found.joules * count, found.clock, board
    )


def clocked(
    step: Step,
    device: Device,
    board: Board | None,
    clock: np.ndarray,
    c: Kernels | None = None,
    find: Callable[[Device, str], Resolved] = rates_of,
) -> Clocked:
    """Seconds of every kernel at shares of the highest clock, and its energy at that clock."""
    ks, c = step.kernels, c or constants()
    seconds, lower = np.zeros((len(clock), len(ks))), np.zeros(len(ks))
    bound, energy = np.zeros(len(ks), int), Energy(np.zeros(len(ks)), np.zeros(len(ks)))
    assumptions: dict[str, None] = {}
    groups: dict[_Group, list[int]] = {}
    stack, tf32 = step.recipe.stack, _in_tf32(step.recipe.stack, device)
    how = stack.memory_format == "channels_last", cpu_software(stack, device)
    cpu = how[1]
    tokens = {k.node: k.shape[1] for k in ks if k.kind == "matmul" and k.phase == "forward"}
    for i, k in enumerate(ks):
        groups.setdefault(_group(k, how, tf32, tokens.get(k.node)), []).append(i)
    for (formula, detail, product), indices in groups.items():
        resolved = find(device, product if formula == "stream" else computed_in(product, device))
        if formula != "stream":
            assumptions.update(dict.fromkeys((*resolved.assumptions, *one_pass(product, device))))
        rates = resolved.rates
        if cpu and cpu.packs:
            rates = rates._replace(packs=True)
        if one_pass(product, device):
            rates = rates._replace(width=WIDTH[product])
        rates, share, older = aged(formula, detail is True, rates, device, stack)
        assumptions.update(dict.fromkeys(older))
        members = [ks[i] for i in indices]
        inside, others = inside_steps(formula, step.recipe.mode, device, c)
        assumptions.update(dict.fromkeys(others))
        share *= _stack_rate(formula, detail, stack, device) * inside
        t = _at(clock, formula, members, detail, rates, c) / share
        least, what = _bounds(members, formula, t[0], rates, c)
        used = _energy(members, formula, rates, board, c) if board else None
        if formula == "conv" and product == "tf32" and members[0].product == "fp32":
            # TF32 is allowed, not prescribed: libraries take the faster
            plain = find(device, "fp32").rates
            other = _at(clock, "conv", members, detail, plain, c)
            floor, limit = _bounds(members, "conv", other[0], plain, c)
            faster = other[0] < t[0]
            what, least = np.where(faster, limit, what), np.minimum(least, floor)
            t = np.where(faster, other, t)
            if board and used:
                mine = _energy(members, formula, plain, board, c)
                used = Energy(*(np.where(faster, a, b) for a, b in zip(mine, used, strict=True)))
        seconds[:, indices], lower[indices], bound[indices] = t, least, what
        if used:
            energy.switching[indices], energy.memory[indices] = used
    return Clocked(seconds, energy, lower, bound, tuple(assumptions))


def _at(
    clock: np.ndarray, formula: str, ks: list[Kernel], detail: Any, rates: Rates, c: Kernels
) -> np.ndarray:
    """Seconds of kernels at shares of the highest clock, a row each."""
    if len(clock) == 1:
        return FORMULAS[formula](ks, detail, rates, c)[None, :]
    return FORMULAS[formula](ks, detail, at_clocks(rates, clock), c)


def _energy(ks: list[Kernel], formula: str, rates: Rates, board: Board, c: Kernels) -> Energy:
    """Energy of kernels at the highest clock and voltage [J]."""
    matrix, vector, special, moved = _columns(
        [(k.matrix, k.vector, k.special, k.read + k.written) for k in ks]
    )
    byte: float | np.ndarray = board.byte
    if formula == "attention":  # what is masked is skipped
        matrix = matrix * np.array([computed(k) for k in ks])
        byte = np.array([board.cached if k.shape[3] <= SHORT else board.byte for k in ks])
    if formula == "conv":
        taps, stride, groups = _columns([k.shape[6:9] for k in ks])
        matrix = least_flops(matrix, taps, groups, rates, stride == 1)
    flop = board.matrix[rates.format] if rates.tensor else board.vector
    if formula == "sparse":
        flop *= c.matmul.sparse_energy
    return Energy(flop * matrix + board.vector * (vector + 2.0 * special), byte * moved)


def _in_tf32(stack: Stack, device: Device) -> tuple[str, ...]:
    """Ops whose fp32 products may run in TF32."""
    return stack.tf32 if "tf32" in device.peak_flops else ()


def products_of(step: Step, device: Device) -> list[tuple[Kernel, str]]:
    """The kernels that have products, each with the number format in which these run."""
    tf32 = _in_tf32(step.recipe.stack, device)
    asked = [(k, _format(k, PRODUCTS.get(k.kind, ""), tf32)) for k in step.kernels if k.matrix]
    runs = {product: computed_in(product, device) for product in {product for _, product in asked}}
    return [(k, runs[product]) for k, product in asked]


def _group(k: Kernel, how: _How, tf32: tuple[str, ...], tokens: float | None) -> _Group:
    """The call that computes a kernel. tf32: fp32 ops that may use TF32; tokens: of odd_rows."""
    if k.kind == "matmul":
        product = _format(k, "matmul", tf32)
        return "matmul", odd_rows(k, product, tokens), product
    if k.kind == "sparse_matmul":
        return "sparse", None, k.product
    if k.kind == "attention" or (k.kind == "recurrent" and k.shape):
        return k.kind, k.phase == "backward", k.product
    if k.kind in ("conv", "depthwise"):
        return "conv", (k.shape[0], *how), _format(k, "conv", tf32)
    return "stream", (how[1], k.kind == "optimizer"), "fp32"


def _format(k: Kernel, op: str, tf32: tuple[str, ...]) -> str:
    return "tf32" if k.product == "fp32" and op in tf32 else k.product


def computed_in(product: str, device: Device) -> str:
    """The format in which a device computes products of the format `product`.

    A TPU multiplies bf16 only. XLA computes an fp32 product in one pass of bf16, accumulated in
    fp32, unless more passes are asked for (JAX documentation, Matmul precision); its operands are
    read in fp32.
    """
    return "bf16" if one_pass(product, device) else product


def one_pass(product: str, device: Device) -> tuple[str, ...]:
    """The assumption that a product is computed in one pass of bf16; empty where it is not."""
    if product != "fp32" or device.kind != "tpu" or product in device.peak_flops:
        return ()
    return (
        f"{device.id}: fp32 products run as one bf16 pass, XLA's default precision"
        " (jax_default_matmul_precision)",
    )


def _stack_rate(formula: str, detail: Any, stack: Stack, device: Device) -> float:
    """Rate of a kernel in this stack, as a fraction of what its formula says."""
    if formula == "stream":
        return over_lists(device, stack.implementations.get("optimizer")) if detail[1] else 1.0
    of = {"matmul": stack.factor, "sparse": stack.factor, "attention": stack.attention}
    return of.get(formula, 1.0)


def _columns(rows: list[tuple]) -> np.ndarray:
    """One array per column of the rows."""
    return np.array(rows, dtype=float).T


def _matmul(ks: list[Kernel], _: bool, rates: Rates, c: Kernels) -> np.ndarray:
    batch, m, n, k = _columns([kernel.shape for kernel in ks])
    width = max(rates.width, WIDTH.get(ks[0].product, 4))
    moved = np.array([_with_epilogue(kernel) for kernel in ks])
    seconds = matmul(m, n, k, batch, width, max(width, 2.0), rates, c, moved=moved)
    return seconds + widening([widens(kernel) for kernel in ks], rates, c)


def _sparse(ks: list[Kernel], _: None, rates: Rates, c: Kernels) -> np.ndarray:
    batch, m, n, k = _columns([kernel.shape for kernel in ks])
    moved = np.array([kernel.read + kernel.written for kernel in ks])
    return sparse_matmul(m, n, k, batch, max(rates.width, 1.0), moved, rates, c)


def _with_epilogue(k: Kernel) -> float:
    """Bytes of a product or convolution whose epilogue does more than to write its result; nan
    for others, whose formula knows.
    """
    more = k.phase == "forward" and (k.vector > 0 or len(k.outputs) > 1)
    few = any(WIDTH[v.dtype] < 2.0 for v in k.inputs[:2])
    return k.read + k.written if more or few else np.nan


def _narrow(k: Kernel) -> bool:
    """Does the kernel read an activation of fewer than 16 bits?"""
    return bool(k.inputs) and WIDTH[k.inputs[0].dtype] < 2.0


def _attention(ks: list[Kernel], backward: bool, rates: Rates, c: Kernels) -> np.ndarray:
    batch, heads, kv_heads, q_len, kv_len, dim, causal = _columns([k.shape for k in ks])
    # columns before a window cuts them: under context parallelism, and across two sequences, there
    # are more columns than rows
    full = np.maximum(q_len, kv_len)
    sizes = (batch, heads, kv_heads, q_len, full, dim, causal > 0, max(rates.width, 2.0))
    return attention(*sizes, rates, c, backward=backward, window=kv_len)


def _conv(
    ks: list[Kernel], detail: tuple[str, bool, Software | None], rates: Rates, c: Kernels
) -> np.ndarray:
    phase, channels_last, cpu = detail
    batch, c_in, c_out, pixels_in, pixels_out, taps, stride, groups = _columns(
        [k.shape[1:] for k in ks]
    )
    if cpu and cpu.columns:
        matrix, operands = _columns([(k.matrix, k.read + k.written) for k in ks])
        windows = rates.width * batch * pixels_out * taps * c_in / groups
        return on_cpu.by_columns(matrix, operands, windows, rates, c)
    return conv(
        CONV_PHASE[phase],
        batch,
        c_in,
        c_out,
        pixels_in,
        pixels_out,
        taps,
        groups,
        max(rates.width, WIDTH[ks[0].inputs[0].dtype] if _narrow(ks[0]) else 2.0),
        rates,
        c,
        unit_stride=stride == 1,
        channels_last=channels_last,
        traffic=np.array([_with_epilogue(k) for k in ks]),
    )


def _recurrent(ks: list[Kernel], backward: bool, rates: Rates, c: Kernels) -> np.ndarray:
    steps, batch, features, hidden = _columns([k.shape for k in ks])
    moved, vector, special = _columns([(k.read + k.written, k.vector, k.special) for k in ks])
    products = 2.0 if backward else 1.0  # gradients of the state and of the weights
    moved, vector, special = moved / products, vector / products, special / products
    return products * recurrent(steps, batch, features, hidden, moved, vector, special, rates, c)


def _stream(
    ks: list[Kernel], detail: tuple[Software | None, bool], rates: Rates, c: Kernels
) -> np.ndarray:
    cpu, _ = detail
    kinds = [STREAMS[k.kind][k.phase == "backward"] if k.kind in STREAMS else k.kind for k in ks]
    moved, vector, special = _columns(
        [((k.read + k.written) * _scalar(k), k.vector, k.special) for k in ks]
    )
    if cpu:
        rows = np.array([k.shape[0] if k.kind == "scatter" and k.shape else 0.0 for k in ks])
        return on_cpu.streams(kinds, moved, vector, special, rows, cpu, rates, c)
    return stream(kinds, moved, vector, special, rates, c)


def _scalar(k: Kernel) -> float:
    """Gathers and scatters move one element per thread: 16-bit elements reach half of the bandwidth
    of fp32 ones.
    """
    return 2.0 / max(WIDTH.get(k.product, 4), 2) if k.kind in ("gather", "scatter") else 1.0


FORMULAS: dict[str, Callable[[list[Kernel], Any, Rates, Kernels], np.ndarray]] = {
    "matmul": _matmul,
    "sparse": _sparse,
    "attention": _attention,
    "conv": _conv,
    "recurrent": _recurrent,
    "stream": _stream,
}


def computed(k: Kernel) -> float:
    """Fraction of the counted FLOPs of an attention kernel that it executes: half of a causal
    square, the columns of a window, a rank's part of the square in ring attention. Assumes heads of
    one width.
    """
    batch, heads, _, rows, columns, dim, causal = k.shape
    whole = k.matrix / ((10.0 if k.phase == "backward" else 4.0) * batch * heads * rows * dim)
    return min(columns / whole, 0.5 if causal else 1.0)


def _bounds(
    ks: list[Kernel], family: str, seconds: np.ndarray, rates: Rates, c: Kernels
) -> tuple[np.ndarray, np.ndarray]:
    """Printed lower bound of each kernel [s], and an index into BOUNDS: what its estimate of
    `seconds` mostly consists of.
    """
    matrix, vector, moved = _columns([(k.matrix, k.vector, k.read + k.written) for k in ks])
    if family == "attention":  # what is masked is skipped
        matrix = matrix * np.array([computed(k) for k in ks])
    if family == "conv":
        taps, stride, groups = _columns([k.shape[6:9] for k in ks])
        matrix = least_flops(matrix, taps, groups, rates, stride == 1)
    on_matrix, on_vector, in_memory = printed_times(matrix, vector, moved, rates)
    lower = np.maximum(np.maximum(on_matrix, on_vector), in_memory)
    at_rates = np.stack(
        [on_matrix / rates.sustained, on_vector / c.stream.vector, in_memory / rates.stream]
    )
    small = (at_rates.max(axis=0) < EXPLAINED * seconds) & (seconds < SMALL_KERNEL)
    return lower, np.where(small, BOUNDS.index("latency"), at_rates.argmax(axis=0))
