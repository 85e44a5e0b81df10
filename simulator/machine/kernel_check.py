"""Forecasts of the numba kernels from the calibrated ceilings of one thread and one constant an op, on sizes that the constant has not
seen:

    t = ((c w)^p + m^p)^(1/p) + start ;  w = flops / P + special / S + traffic / D(L1) ;  m = traffic / D(set)

P, S, D: chains of multiply-adds, exponentials, and streams through the level that holds the set, interpolated between levels on
logarithmic scales. w is what the loop would take if all lay in the nearest cache; c is how much slower its code is, and is fitted to
the op's other sizes. Traffic is cache lines filled: bytes read, and bytes written that were not read; writing back what was updated
in place costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from hwdb.records import Device
from simulator.machine import measure
from simulator.machine.crosscheck import Ran, median
from simulator.machine.measure import Session

START = 2e-7  # s of a call from Python: the dispatcher's look at its arguments
NORM = 2.5  # p: arithmetic and traffic mostly overlap
SLOWER = np.exp(np.linspace(np.log(0.5), np.log(200.0), 240))  # values of c that are tried
ROOFS = ("fma", "stream", "special")  # classes that are ceilings themselves
MEMORY_SET = 256 * 2**20  # bytes of the set by which main memory is calibrated, and of the half and four times that caches are
HALF, PAST = 0.5, 4.0
OVER = 1.25  # of a cache: sets of which nothing is left when the next pass comes
FEW = 2  # sizes of a kernel with --quick


class Roofs(NamedTuple):
    """What one thread does at most."""

    flops: float  # FLOP/s
    special: float  # results/s
    sets: np.ndarray  # bytes touched, growing
    streams: np.ndarray  # bytes/s through each


def points(quick: bool) -> list[str]:
    """What is measured, as name:size. `quick` leaves out the larger sizes."""
    from simulator.machine.kernels.registry import KERNELS

    return [
        f"{name}:{'x'.join(map(str, size))}"
        for name, kernel in KERNELS.items()
        for size in (kernel.sizes[:FEW] if quick else kernel.sizes)
    ]  # fmt: skip


def measured(quick: bool, rounds: int, progress: Callable[[int, int], None]) -> Session:
    """All kernels, each at its sizes."""
    return measure.asked("kernels", points(quick), rounds, progress)


def work_of(point: str):
    """Kernel and Work of a point."""
    from simulator.machine.kernels.registry import KERNELS

    name, size = point.split(":")
    return KERNELS[name], KERNELS[name].work(tuple(int(n) for n in size.split("x")))


def roofs(device: Device) -> Roofs:
    """The ceilings in a calibrated device file, each cache's for sets of up to the size it was measured with."""
    levels = [level for level in (device.cache.get(name) for name in ("l1", "l2", "l3")) if level and level.bandwidth]
    sets, streams, below = [], [], 0.0
    for number, level in enumerate(levels):
        sets.append(min(HALF * level.capacity, PAST * below) if number == 2 else HALF * level.capacity)
        streams.append(float(level.bandwidth))
        if number + 1 < len(levels):  # what is a little too large for a cache is streamed through the next
            sets.append(OVER * level.capacity)
            streams.append(float(levels[number + 1].bandwidth))
        below = float(level.capacity)
    streams.append(float(device.memory.bandwidth))
    special = device.achieved.get("exp") or device.vector_flops["fp32"] / 16.0
    return Roofs(float(device.vector_flops["fp32"]), float(special), np.array([*sets, MEMORY_SET]), np.array(streams))


def parts(point: str, roof: Roofs) -> tuple[float, float]:
    """w and m of a point [s]."""
    _, work = work_of(point)
    touched = work.read + work.fresh
    stream = np.exp(np.interp(np.log(max(touched, 1.0)), np.log(roof.sets), np.log(roof.streams)))
    return work.flops / roof.flops + work.special / roof.special + touched / roof.streams[0], touched / stream


def together(c, w, m):
    """Seconds of a kernel, its call apart. Broadcasts."""
    return ((c * w) ** NORM + m**NORM) ** (1.0 / NORM)


def slower(seconds: np.ndarray, w: np.ndarray, m: np.ndarray) -> float:
    """The c with the least sum of |ln(predicted / measured)|."""
    off = np.abs(np.log((together(SLOWER[:, None], w, m) + START) / seconds)).sum(1)
    return float(SLOWER[off.argmin()])


def forecasts(session: Session, device: Device, constants: bool = True) -> list[Ran]:
    """Every point beside its forecast; `constants` False: by the ceilings alone, c = 1."""
    roof = roofs(device)
    names = np.array([point.split(":")[0] for point in session.found])
    seconds = np.array([found.seconds for found in session.found.values()])
    w, m = np.array([parts(point, roof) for point in session.found]).T
    rows = []
    for i, (point, found) in enumerate(session.found.items()):
        others = names == names[i]
        others[i] = False
        c = slower(seconds[others], w[others], m[others]) if constants and others.any() else 1.0
        rows.append(Ran(names[i].item(), point.split(":")[1], 1, float(together(c, w[i], m[i])) + START, found.seconds, found.noise))
    return rows


def checked(rows: Iterable[Ran]) -> list[Ran]:
    """The rows that are no ceilings."""
    from simulator.machine.kernels.registry import KERNELS

    return [row for row in rows if KERNELS[row.op].op not in ROOFS]


def by_class(rows: Iterable[Ran]) -> list[tuple[str, int, float, float]]:
    """Class of ops, points, median |error|, median noise."""
    from simulator.machine.kernels.registry import KERNELS

    group: dict[str, list[Ran]] = {}
    for row in rows:
        group.setdefault(KERNELS[row.op].op, []).append(row)
    return [(op, len(some), median(abs(r.error) for r in some), median(r.noise for r in some)) for op, some in sorted(group.items())]
