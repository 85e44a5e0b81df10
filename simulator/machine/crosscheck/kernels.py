"""Forecasts of the numba kernels from the calibrated ceilings and one constant per kernel.

    t = ((c w / passes)^p + m^p)^(1/p) + c w (1 - 1 / passes) + start
    w = issued FLOPs / P + special / S + traffic / D(L1) + loops T + inner / D(near)
    m = read / R(set) + fresh / F(set)

P, S, T: rate of multiply-add chains, rate of exponentials, time to enter a loop. R, F: bandwidth of
streams that read and that fill, at the level that holds the working set, interpolated between
levels on logarithmic scales. w is the time of the loops if all data were near. c is how much slower
their code is; it is fitted to the other sizes of the same kernel, so that every size is forecast
without its own measurement. A kernel that makes several passes over its data overlaps one of them
with memory. Traffic is cache lines filled: bytes read, and bytes written that were not read; write-
backs of data updated in place are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.measure import Session
from roofcast.simulator.machine.crosscheck.steps import Ran, median

if TYPE_CHECKING:
    from roofcast.simulator.machine.kernels.registry import Kernel
    from roofcast.simulator.machine.kernels.work import Work

# s of a call from Python if it was not measured, and the number of arrays of the call that is
CALL, CALL_ARRAYS = 3e-7, 3.0
FIXED = 4.0  # number of parameters whose unpacking takes as long as the rest of a call
NORM = 2.5  # p: arithmetic and traffic mostly overlap
SLOWER = np.exp(np.linspace(np.log(0.3), np.log(200.0), 300))  # candidate values of c
ROOFS = ("fma", "stream", "special")  # classes that are ceilings themselves
MIB = 2.0**20
MEMORY_SET = 256.0 * MIB  # bytes of the working set that calibrates main memory
FAR = (32, 64, 128)  # MiB of the working sets between the last cache and memory
# working sets as fractions of a cache: those that fit, and those that have left it by the next pass
WITHIN, BEYOND = 0.75, 1.25
PAST = 4.0  # working set that surely fits a shared cache, as a multiple of the cache below it
FEW = 2  # sizes per kernel with --quick


class Roofs(NamedTuple):
    """The ceilings of the threads."""

    flops: float  # FLOP/s
    special: float  # results/s
    loop: float  # s to enter and leave a loop
    call: float  # s of a call from Python with CALL_ARRAYS arrays
    fork: float  # s to start and join all threads
    near: float  # bandwidth of the best stream in the nearest cache [B/s]
    sets: np.ndarray  # working sets [B], ascending
    reads: np.ndarray  # bandwidth of reads for each working set [B/s]
    fills: np.ndarray  # bandwidth of fills for each working set [B/s]


def points(quick: bool) -> list[str]:
    """The measured kernels and sizes, as name:size; `quick` omits the larger sizes."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    return [
        f"{name}:{'x'.join(map(str, size))}"
        for name, kernel in KERNELS.items()
        for size in (kernel.sizes[:FEW] if quick else kernel.sizes)
    ]  # fmt: skip


def measured(
    quick: bool, rounds: int, progress: Callable[[int, int], None], threads: int = 1
) -> Session:
    """Measure all kernels at their sizes; one thread by the median round, more by the best."""
    session = measure.run_worker("kernels", points(quick), rounds, progress, threads)
    return session if threads == 1 else measure.best(session)


def work_of(point: str) -> tuple[Kernel, Work]:
    """Kernel and Work of a point (name:size)."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    name, size = point.split(":")
    return KERNELS[name], KERNELS[name].work(tuple(int(n) for n in size.split("x")))


def roofs(device: Device) -> Roofs:
    """The ceilings in a calibrated device file."""
    if "fp32" not in device.vector_flops:
        raise BadInput(
            f"{device.id}: [vector_flops] has no fp32; roofcast calibrate writes such device files"
        )
    curve, own = _bandwidths(device), device.achieved
    sets, reads, fills = np.array(curve).T
    vector = float(device.vector_flops["fp32"])
    return Roofs(
        flops=vector,
        special=float(own.get("exp") or vector / 16.0),
        loop=float(own.get("loop") or 0.0),
        call=float(own.get("call") or CALL),
        fork=float(own.get("fork_join") or 0.0),
        near=float(reads[0]),
        sets=sets,
        reads=reads,
        fills=fills,
    )


def _bandwidths(device: Device) -> list[tuple[float, float, float]]:
    """Working set [B] and bandwidth of reads and of fills [B/s], from L1 to main memory."""
    curve: list[tuple[float, float, float]] = []
    own = device.achieved
    below, reached = 0.0, 0.0
    for name in ("l1", "l2", "l3"):
        level = device.cache.get(name)
        if not (level and level.bandwidth):
            continue
        read, size = float(level.bandwidth), float(level.capacity)
        fill = float(own.get(f"fill_{name}") or read)
        if below:
            curve.append((BEYOND * below, read, fill))
        reached = min(WITHIN * size, PAST * below) if name == "l3" and below else WITHIN * size
        if reached > (curve[-1][0] if curve else 0.0):
            curve.append((reached, read, fill))
        below = size
    for far in FAR:
        far_read, far_fill = own.get(f"read_{far}mib"), own.get(f"fill_{far}mib")
        if far_read and far_fill and far * MIB > reached:
            curve.append((far * MIB, float(far_read), float(far_fill)))
    bandwidth = float(device.memory.bandwidth)
    read = bandwidth * float(own.get("stream_read") or 1.0)
    fill = bandwidth * float(own.get("stream_write") or 1.0)
    return [*curve, (MEMORY_SET, read, fill)]


def through(roof: Roofs, touched: float, read: float, fresh: float) -> float:
    """Seconds to read and to fill the given bytes, for a working set of `touched` bytes."""
    at, sets = np.log(max(touched, 1.0)), np.log(roof.sets)
    reads = np.exp(np.interp(at, sets, np.log(roof.reads)))
    fills = np.exp(np.interp(at, sets, np.log(roof.fills)))
    return float(read / reads + fresh / fills)


class Parts(NamedTuple):
    """The terms of a kernel's time; floats, or arrays over kernels."""

    near: np.ndarray  # w [s]
    memory: np.ndarray  # m [s]
    passes: np.ndarray
    start: np.ndarray  # s of its call


def parts(points: Iterable[str], roof: Roofs, threads: int = 1) -> Parts:
    """The terms of every point; each thread has its own buffers and its share of the loops and of
    the bandwidth. The thread with the most pieces of work ends last.
    """
    rows = []
    for point in points:
        kernel, work = work_of(point)
        touched, half = work.read + work.fresh, 0.5 * work.inner
        near = (
            max(work.flops, work.issued) / roof.flops
            + work.special / roof.special
            + touched / roof.near
        )
        near += work.loops * roof.loop / threads + through(roof, work.near * threads, half, half)
        parameters = kernel.run.one.py_func.__code__.co_argcount
        start = roof.call * (FIXED + parameters) / (FIXED + CALL_ARRAYS)
        start += roof.fork if threads > 1 else 0.0
        last, memory = work.waiting(threads), through(roof, touched, work.read, work.fresh)
        rows.append((last * near, last * memory, work.passes, start))
    return Parts(*np.array(rows).T)


def together(c: ArrayLike, part: Parts) -> np.ndarray:
    """Seconds of a kernel whose code is `c` times slower; broadcasts."""
    near = np.asarray(c) * part.near
    return (
        ((near / part.passes) ** NORM + part.memory**NORM) ** (1.0 / NORM)
        + near * (1.0 - 1.0 / part.passes)
        + part.start
    )


def slower(seconds: np.ndarray, part: Parts) -> float:
    """The c with the least sum of |ln(predicted / measured)|."""
    off = np.abs(np.log(together(SLOWER[:, None], part) / seconds)).sum(1)
    return float(SLOWER[off.argmin()])


def forecasts(
    session: Session, device: Device, constants: bool = True, threads: int = 1
) -> list[Ran]:
    """Every measured point with its forecast; `device` is calibrated for that many threads. Where
    the session measured the start of all threads, that counts.

    Without `constants`, the forecast is by the ceilings alone: c = 1.
    """
    roof = roofs(device)
    if "fork" in session.probes:
        roof = roof._replace(fork=session.probes["fork"].seconds)
    part = parts(session.found, roof, threads)
    names = np.array([point.split(":")[0] for point in session.found])
    seconds = np.array([found.seconds for found in session.found.values()])
    rows = []
    for i, (point, found) in enumerate(session.found.items()):
        others, c = names == names[i], 1.0
        others[i] = False
        if constants and others.any():
            c = slower(seconds[others], Parts(*(each[others] for each in part)))
        predicted = float(together(c, Parts(*(each[i] for each in part))))
        name, size = point.split(":")
        rows.append(Ran(name, size, threads, predicted, found.seconds, found.noise))
    return rows


def bound(point: str, device: Device) -> float:
    """Lower bound on the seconds of a kernel under the measured roofs.

    Arithmetic at the best rate; of the bytes touched, each cache provides what it holds and
    main memory the rest.
    """
    _, work = work_of(point)
    left, below, seconds = work.read + work.fresh, 0.0, 0.0
    for level in (device.cache.get(name) for name in ("l1", "l2", "l3")):
        if level and level.bandwidth:
            capacity = float(level.capacity)
            part = min(left, max(0.0, capacity - below))
            left, below = left - part, capacity
            seconds += part / float(level.bandwidth)
    dtype = "fp64" if point.startswith("fma64") else "fp32"
    arithmetic = work.flops / float(device.peak_flops[dtype])
    return max(arithmetic, seconds + left / float(device.memory.bandwidth))


def above(rows: Iterable[Ran], device: Device) -> list[tuple[Ran, float]]:
    """Kernels that were faster than `bound`, and by what fraction, largest first.

    If the measured roofs are right, none exceeds them by more than the noise.
    """
    found = [(row, bound(f"{row.op}:{row.size}", device) / row.measured_s - 1.0) for row in rows]
    return sorted((each for each in found if each[1] > 0.0), key=lambda each: -each[1])


def checked(rows: Iterable[Ran]) -> list[Ran]:
    """The rows of kernels that are not ceilings themselves."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    return [row for row in rows if KERNELS[row.op].op not in ROOFS]


def by_class(rows: Iterable[Ran]) -> list[tuple[str, int, float, float]]:
    """Per class of ops: name, number of points, median |error|, median noise."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    group: dict[str, list[Ran]] = {}
    for row in rows:
        group.setdefault(KERNELS[row.op].op, []).append(row)
    return [
        (op, len(some), median(abs(r.error) for r in some), median(r.noise for r in some))
        for op, some in sorted(group.items())
    ]
