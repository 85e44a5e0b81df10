"""Forecasts of the numba kernels from the calibrated ceilings and one constant an op, on sizes that
the constant has not seen:

    t = ((c w / passes)^p + m^p)^(1/p) + c w (1 - 1 / passes) + start
    w = issued FLOPs / P + special / S + traffic / D(L1) + loops T + inner / D(near)
    m = read / R(set) + fresh / F(set)

P, S, T: chains of multiply-adds, exponentials, entering a loop. R, F: streams that read, that fill,
through the level that holds the set, interpolated between levels on logarithmic scales. w is what
the loops would take if all lay near; c is how much slower their code is, and is fitted to the op's
other sizes. A kernel that goes over its data in several passes overlaps one of them with memory.
Traffic is cache lines filled: bytes read, and bytes written that were not read; writing back what
was updated in place costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.records import Device
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.measure import Session
from roofcast.simulator.machine.crosscheck.steps import Ran, median

# s of a call from Python where it was not measured; arrays of the one that is
CALL, CALL_ARRAYS = (3e-7, 3.0)
FIXED = 4.0  # parameters whose unpacking takes as long as the rest of a call
NORM = 2.5  # p: arithmetic and traffic mostly overlap
SLOWER = np.exp(np.linspace(np.log(0.3), np.log(200.0), 300))  # values of c that are tried
ROOFS = ("fma", "stream", "special")  # classes that are ceilings themselves
MIB = 2.0**20
MEMORY_SET = 256.0 * MIB  # bytes of the set by which main memory is calibrated
FAR = (32, 64, 128)  # MiB of sets between the last cache and memory
# of a cache: sets that lie in it, sets of which nothing is left when the next pass comes
WITHIN, BEYOND = (0.75, 1.25)
PAST = 4.0  # times the cache below: the most of a shared cache that is surely ours
FEW = 2  # sizes of a kernel with --quick


class Roofs(NamedTuple):
    """What the threads do at most."""

    flops: float  # FLOP/s
    special: float  # results/s
    loop: float  # s to enter and leave a loop
    call: float  # s of a call from Python of CALL_ARRAYS arrays
    fork: float  # s to start and join all threads
    near: float  # bytes/s of the best stream in the nearest cache
    sets: np.ndarray  # bytes touched, growing
    reads: np.ndarray  # bytes/s through each
    fills: np.ndarray


def points(quick: bool) -> list[str]:
    """What is measured, as name:size. `quick` leaves out the larger sizes."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    return [
        f"{name}:{'x'.join(map(str, size))}"
        for name, kernel in KERNELS.items()
        for size in (kernel.sizes[:FEW] if quick else kernel.sizes)
    ]  # fmt: skip


def measured(
    quick: bool, rounds: int, progress: Callable[[int, int], None], threads: int = 1
) -> Session:
    """All kernels, each at its sizes. Of one thread the median round stands, of more the best."""
    session = measure.asked("kernels", points(quick), rounds, progress, threads)
    if threads == 1:
        return session
    return session._replace(
        found={
            point: each._replace(seconds=min(each.rounds)) for point, each in session.found.items()
        }
    )


def work_of(point: str):
    """Kernel and Work of a point."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    name, size = point.split(":")
    return KERNELS[name], KERNELS[name].work(tuple(int(n) for n in size.split("x")))


def roofs(device: Device) -> Roofs:
    """The ceilings in a calibrated device file."""
    curve: list[tuple[float, float, float]] = []  # set, read, fill
    below, reached = 0.0, 0.0
    for number, name in enumerate(("l1", "l2", "l3")):
        level = device.cache.get(name)
        if not (level and level.bandwidth):
            continue
        read, size = float(level.bandwidth), float(level.capacity)
        fill = float(device.achieved.get(f"fill_{name}") or read)
        if below:
            curve.append((BEYOND * below, read, fill))
        reached = min(WITHIN * size, PAST * below) if number == 2 and below else WITHIN * size
        if reached > (curve[-1][0] if curve else 0.0):
            curve.append((reached, read, fill))
        below = size
    bandwidth, own = float(device.memory.bandwidth), device.achieved
    for far in FAR:
        read, fill = own.get(f"read_{far}mib"), own.get(f"fill_{far}mib")
        if read and fill and far * MIB > reached:
            curve.append((far * MIB, float(read), float(fill)))
    curve.append(
        (
            MEMORY_SET,
            bandwidth * float(own.get("stream_read") or 1.0),
            bandwidth * float(own.get("stream_write") or 1.0),
        )
    )
    vector = float(device.vector_flops["fp32"])
    sets, reads, fills = np.array(curve).T
    return Roofs(
        vector,
        float(own.get("exp") or vector / 16.0),
        float(own.get("loop") or 0.0),
        float(own.get("call") or CALL),
        float(own.get("fork_join") or 0.0),
        reads[0],
        sets,
        reads,
        fills,
    )


def through(roof: Roofs, touched: float, read: float, fresh: float) -> float:
    """Seconds of so many bytes read and filled where a set of `touched` bytes lies."""
    at, sets = np.log(max(touched, 1.0)), np.log(roof.sets)
    return read / np.exp(np.interp(at, sets, np.log(roof.reads))) + fresh / np.exp(
        np.interp(at, sets, np.log(roof.fills))
    )


class Parts(NamedTuple):
    """What a kernel's time is made of; floats, or arrays over kernels."""

    near: np.ndarray  # w [s]
    memory: np.ndarray  # m [s]
    passes: np.ndarray
    start: np.ndarray  # s of its call


def parts(points: Iterable[str], roof: Roofs, threads: int = 1) -> Parts:
    """Parts of every point; every thread has a buffer of its own and enters its share of the
    loops.
    """
    rows = []
    for point in points:
        kernel, work = work_of(point)
        touched = work.read + work.fresh
        near = (
            max(work.flops, work.issued) / roof.flops
            + work.special / roof.special
            + touched / roof.near
        )
        near += work.loops * roof.loop / threads + through(
            roof, work.near * threads, 0.5 * work.inner, 0.5 * work.inner
        )
        parameters = kernel.run.one.py_func.__code__.co_argcount
        start = roof.call * (FIXED + parameters) / (FIXED + CALL_ARRAYS) + (
            roof.fork if threads > 1 else 0.0
        )
        rows.append((near, through(roof, touched, work.read, work.fresh), work.passes, start))
    return Parts(*np.array(rows).T)


def together(c, part: Parts):
    """Seconds of a kernel. Broadcasts."""
    near = c * part.near
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
    """Every point beside its forecast on `threads`, of which `device` is; `constants` False: by the
    ceilings alone, c = 1.
    """
    part = parts(session.found, roofs(device), threads)
    names = np.array([point.split(":")[0] for point in session.found])
    seconds = np.array([found.seconds for found in session.found.values()])
    rows = []
    for i, (point, found) in enumerate(session.found.items()):
        others = names == names[i]
        others[i] = False
        c = (
            slower(seconds[others], Parts(*(each[others] for each in part)))
            if constants and others.any()
            else 1.0
        )
        predicted = float(together(c, Parts(*(each[i] for each in part))))
        rows.append(
            Ran(
                names[i].item(), point.split(":")[1], threads, predicted, found.seconds, found.noise
            )
        )
    return rows


def bound(point: str, device: Device) -> float:
    """Seconds that no kernel of this work can beat under the measured roofs: arithmetic at the best
    rate; of what it touches, as much from each cache as that holds, the rest from memory.
    """
    _, work = work_of(point)
    left, below, seconds = work.read + work.fresh, 0.0, 0.0
    for level in (device.cache.get(name) for name in ("l1", "l2", "l3")):
        if level and level.bandwidth:
            part = min(left, max(0.0, float(level.capacity) - below))
            left, below, seconds = (
                left - part,
                float(level.capacity),
                seconds + part / float(level.bandwidth),
            )
    kind = "fp64" if point.startswith("fma64") else "fp32"
    return max(
        work.flops / float(device.peak_flops[kind]), seconds + left / float(device.memory.bandwidth)
    )


def above(rows: Iterable[Ran], device: Device) -> list[tuple[Ran, float]]:
    """Kernels that were faster than `bound` allows, and by what share: measured roofs have none
    beyond their noise.
    """
    found = [(row, bound(f"{row.op}:{row.size}", device) / row.measured_s - 1.0) for row in rows]
    return sorted((each for each in found if each[1] > 0.0), key=lambda each: -each[1])


def checked(rows: Iterable[Ran]) -> list[Ran]:
    """The rows that are no ceilings."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    return [row for row in rows if KERNELS[row.op].op not in ROOFS]


def by_class(rows: Iterable[Ran]) -> list[tuple[str, int, float, float]]:
    """Class of ops, points, median |error|, median noise."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    group: dict[str, list[Ran]] = {}
    for row in rows:
        group.setdefault(KERNELS[row.op].op, []).append(row)
    return [
        (op, len(some), median(abs(r.error) for r in some), median(r.noise for r in some))
        for op, some in sorted(group.items())
    ]
