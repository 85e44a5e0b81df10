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
from roofcast.simulator.times.ages import aged, cpu_software
from roofcast.simulator.times.attention import attention
from roofcast.simulator.times.bounds import printed_times
from roofcast.simulator.times.compressed import sparse_matmul, widening
from roofcast.simulator.times.conv import conv, least_flops
from roofcast.simulator.times.grouped import PRODUCTS, Grouped, Members, asked_format, groups
from roofcast.simulator.times.inside import inside_steps, over_lists
from roofcast.simulator.times.matmul import cpu_start, matmul
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
from roofcast.simulator.times.rates import Rates, Resolved, adding_in_fp16, resolve
from roofcast.simulator.times.recurrent import recurrent
from roofcast.simulator.times.stream import stream
from roofcast.simulator.work.traced import Kernel

if TYPE_CHECKING:
    from roofcast.simulator.work.step import Step

BOUNDS = ("matrix", "vector", "memory", "latency")
# a kernel is bound by its latency where the roofs explain less than this fraction of its time, and
# it is shorter than this [s], or on a CPU than this many starts of threads
EXPLAINED = 0.4
SMALL_KERNEL = 2e-5
STARTING = 2.0
NOT_ASKED: Any = 0.0, 0  # bounds
HALF_SUMS = ("matmul", "conv", "sparse")  # formulas of products that may add in fp16
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
    grouped: Grouped | None = None,
    bounds: bool = True,
) -> OpTimes:
    """Seconds of every kernel of a step on a device, under the power limit of its board. A fit
    brings its own constants and rates. grouped: of steps that are timed on other devices too;
    bounds: whether lower bounds, and what a kernel is bound by, are asked for.
    """
    c = c or constants()
    count = np.array([k.count for k in step.kernels], dtype=float)
    board = board_of(device, c.power)
    at = clocked(
        step, device, board, clocks(c.power) if board else np.ones(1), c, find, grouped, bounds
    )
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
    grouped: Grouped | None = None,
    bounds: bool = True,
) -> Clocked:
    """Seconds of every kernel at shares of the highest clock, and its energy at that clock."""
    ks, c = step.kernels, c or constants()
    seconds, lower = np.zeros((len(clock), len(ks))), np.zeros(len(ks))
    bound, energy = np.zeros(len(ks), int), Energy(np.zeros(len(ks)), np.zeros(len(ks)))
    assumptions: dict[str, None] = {}
    stack = step.recipe.stack
    tf32, cpu = _in_tf32(stack, device), cpu_software(stack, device)
    for (formula, detail, product), indices, members in (
        grouped.of(step, tf32) if grouped else groups(step, tf32)
    ):
        resolved = find(device, product if formula == "stream" else computed_in(product, device))
        if formula != "stream":
            assumptions.update(dict.fromkeys((*resolved.assumptions, *one_pass(product, device))))
        rates = resolved.rates
        if cpu and cpu.packs:
            rates = rates._replace(packs=True)
        if stack.laid_out:
            rates = rates._replace(laid_out=True)
        if adds_in_fp16(formula, product, step):
            slower, rates = rates, adding_in_fp16(rates, device, find(device, "int8").rates)
            assumptions.update(dict.fromkeys(faster_sums(slower, rates, device)))
        if one_pass(product, device):
            rates = rates._replace(width=WIDTH[product])
        rates, share, older = aged(formula, detail is True, rates, device, stack)
        assumptions.update(dict.fromkeys(older))
        inside, others = inside_steps(formula, step.recipe.mode, device, c)
        assumptions.update(dict.fromkeys(others))
        share *= _stack_rate(formula, detail, stack, device) * inside
        t = _at(clock, formula, members, detail, rates, c, cpu) / share
        least, what = _bounds(members, formula, t[0], rates, c) if bounds else NOT_ASKED
        used = _energy(members, formula, rates, board, c) if board else None
        if formula == "conv" and product == "tf32" and members.kernels[0].product == "fp32":
            # TF32 is allowed, not prescribed: libraries take the faster
            plain = find(device, "fp32").rates
            other = _at(clock, "conv", members, detail, plain, c)
            floor, limit = _bounds(members, "conv", other[0], plain, c) if bounds else NOT_ASKED
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
    clock: np.ndarray,
    formula: str,
    ks: Members,
    detail: Any,
    rates: Rates,
    c: Kernels,
    cpu: Software | None = None,
) -> np.ndarray:
    """Seconds of kernels at shares of the highest clock, a row each; on a measured CPU under its
    software.
    """
    if cpu and (own := _under(cpu, formula, ks, rates, c)) is not None:
        return own[None, :]
    if len(clock) == 1:
        return FORMULAS[formula](ks, detail, rates, c)[None, :]
    return FORMULAS[formula](ks, detail, at_clocks(rates, clock), c)


def _under(cpu: Software, formula: str, ks: Members, rates: Rates, c: Kernels) -> np.ndarray | None:
    """Seconds of kernels that the software of a CPU runs otherwise; None of the others."""
    matrix, vector, special, moved = ks.work
    if formula == "stream":
        return on_cpu.streams(ks.kinds, ks.scattered, vector, special, ks.rows, cpu, rates, c)
    if formula != "conv" or not cpu.columns:
        return None
    batch, c_in, _, _, pixels_out, taps, _, parts = ks.layers
    windows = rates.width * batch * pixels_out * taps * c_in / parts
    return on_cpu.by_columns(matrix, moved, windows, rates, c)


def _energy(ks: Members, formula: str, rates: Rates, board: Board, c: Kernels) -> Energy:
    """Energy of kernels at the highest clock and voltage [J]."""
    matrix, vector, special, moved = ks.work
    byte: float | np.ndarray = board.byte
    if formula == "attention":  # what is masked is skipped
        matrix = matrix * ks.computed
        byte = np.where(ks.short, board.cached, board.byte)
    if formula == "conv":
        taps, stride, many = ks.layers[5:8]
        matrix = least_flops(matrix, taps, many, rates, stride == 1)
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
    asked = [(k, asked_format(k, PRODUCTS.get(k.kind, ""), tf32)) for k in step.kernels if k.matrix]
    runs = {product: computed_in(product, device) for product in {product for _, product in asked}}
    return [(k, runs[product]) for k, product in asked]


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


def adds_in_fp16(formula: str, product: str, step: Step) -> bool:
    """Do the products of a kernel add in fp16 where that is faster?"""
    asked = step.recipe.stack.implementations.get("sums") == "fp16"
    return asked and step.recipe.mode == "infer" and product == "fp16" and formula in HALF_SUMS


def faster_sums(slower: Rates, rates: Rates, device: Device) -> tuple[str, ...]:
    """The assumption that fp16 products add in fp16; empty where that is no faster."""
    if rates.matrix <= slower.matrix:
        return ()
    more = rates.matrix / slower.matrix
    return (f"{device.id}: fp16 products add in fp16, at {more:.2g} times the rate of fp32 sums",)


def _stack_rate(formula: str, detail: Any, stack: Stack, device: Device) -> float:
    """Rate of a kernel in this stack, as a fraction of what its formula says."""
    if formula == "stream":
        return over_lists(device, stack.implementations.get("optimizer")) if detail else 1.0
    of = {"matmul": stack.factor, "sparse": stack.factor, "attention": stack.attention}
    return of.get(formula, 1.0)


def _matmul(ks: Members, _: bool, rates: Rates, c: Kernels) -> np.ndarray:
    batch, m, n, k = ks.shapes
    width = max(rates.width, WIDTH.get(ks.kernels[0].product, 4))
    seconds = matmul(m, n, k, batch, width, max(width, 2.0), rates, c, moved=ks.moved)
    return seconds + widening(ks.widened, rates, c)


def _sparse(ks: Members, _: None, rates: Rates, c: Kernels) -> np.ndarray:
    batch, m, n, k = ks.shapes
    return sparse_matmul(m, n, k, batch, max(rates.width, 1.0), ks.work[3], rates, c)


def _narrow(k: Kernel) -> bool:
    """Does the kernel read an activation of fewer than 16 bits?"""
    return bool(k.inputs) and WIDTH[k.inputs[0].dtype] < 2.0


def _attention(ks: Members, backward: bool, rates: Rates, c: Kernels) -> np.ndarray:
    batch, heads, kv_heads, q_len, kv_len, dim, causal = ks.shapes
    # columns before a window cuts them: under context parallelism, and across two sequences, there
    # are more columns than rows
    full = np.maximum(q_len, kv_len)
    sizes = (batch, heads, kv_heads, q_len, full, dim, causal > 0, max(rates.width, 2.0))
    return attention(*sizes, rates, c, backward=backward, window=kv_len)


def _conv(ks: Members, detail: tuple[str, bool], rates: Rates, c: Kernels) -> np.ndarray:
    phase, channels_last = detail
    batch, c_in, c_out, pixels_in, pixels_out, taps, stride, groups = ks.layers
    first = ks.kernels[0]
    return conv(
        CONV_PHASE[phase],
        batch,
        c_in,
        c_out,
        pixels_in,
        pixels_out,
        taps,
        groups,
        max(rates.width, WIDTH[first.inputs[0].dtype] if _narrow(first) else 2.0),
        rates,
        c,
        unit_stride=stride == 1,
        channels_last=channels_last,
        traffic=ks.moved,
        stored=ks.stored if _narrow(first) else None,
    )


def _recurrent(ks: Members, backward: bool, rates: Rates, c: Kernels) -> np.ndarray:
    steps, batch, features, hidden = ks.shapes
    _, vector, special, moved = ks.work
    products = 2.0 if backward else 1.0  # gradients of the state and of the weights
    moved, vector, special = moved / products, vector / products, special / products
    return products * recurrent(steps, batch, features, hidden, moved, vector, special, rates, c)


def _stream(ks: Members, _: None, rates: Rates, c: Kernels) -> np.ndarray:
    _, vector, special, _ = ks.work
    return stream(ks.classes(c), ks.scattered, vector, special, rates, c)


FORMULAS: dict[str, Callable[[Members, Any, Rates, Kernels], np.ndarray]] = {
    "matmul": _matmul,
    "sparse": _sparse,
    "attention": _attention,
    "conv": _conv,
    "recurrent": _recurrent,
    "stream": _stream,
}


def _serial(ks: Members) -> tuple[np.ndarray, float]:
    """Of a recurrence, the calls that wait for each other, one for each time step and twice that in
    backward, and the kernels of a call: a product and a pointwise one.
    """
    return ks.shapes[0] * (2.0 if ks.kernels[0].phase == "backward" else 1.0), 2.0


def _bounds(
    ks: Members, family: str, seconds: np.ndarray, rates: Rates, c: Kernels
) -> tuple[np.ndarray, np.ndarray]:
    """Printed lower bound of each kernel [s], and an index into BOUNDS: what its estimate of
    `seconds` mostly consists of.
    """
    matrix, vector, _, moved = ks.work
    if family == "attention":  # what is masked is skipped
        matrix = matrix * ks.computed
    if family == "conv":
        taps, stride, many = ks.layers[5:8]
        matrix = least_flops(matrix, taps, many, rates, stride == 1)
    on_matrix, on_vector, in_memory = printed_times(matrix, vector, moved, rates)
    lower = np.maximum(np.maximum(on_matrix, on_vector), in_memory)
    at_rates = np.stack(
        [on_matrix / rates.sustained, on_vector / c.stream.vector, in_memory / rates.stream]
    )
    calls, kernels = _serial(ks) if family == "recurrent" else (1.0, 1.0)
    start = STARTING * kernels * cpu_start(rates, c) if rates.kind == "cpu" else 0.0
    short = seconds / calls < np.maximum(SMALL_KERNEL, start)
    small = (at_rates.max(axis=0) < EXPLAINED * seconds) & short
    return lower, np.where(small, BOUNDS.index("latency"), at_rates.argmax(axis=0))
