"""The jobs of a calibration: which kernel, over how much memory, on how many threads."""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.host import Host
from roofcast.simulator.machine.kernels import ceilings
from roofcast.simulator.machine.kernels.arrays import aligned
from roofcast.simulator.machine.kernels.compiled import VECTOR_BYTES, Pair
from roofcast.simulator.machine.kernels.gemm import gemm
from roofcast.simulator.machine.sampling import Job

STREAMS = {"read": 1, "fill": 1, "copy": 2, "scale": 2, "triad": 3}  # arrays each goes over
FUNCTIONS = ("exp", "erf", "tanh", "div")
LARGEST = 256 * 2**20  # bytes of the sets that should lie in main memory
HALF = 0.5  # of a cache that a set fills
# times the caches below that a set in a shared cache holds: more of it than this may not be ours
PAST = 4
LINE = 16  # fp32 numbers
CALLED = 3  # arrays of the call that is timed
# MiB of sets between the shared cache and main memory: how much of that cache is ours, nobody says
FAR = (32, 64, 128)


def sets(host: Host, threads: int) -> dict[str, int]:
    """Bytes that the arrays of a stream hold together, a level of memory, nearest first.

    A cache of each core is half filled by each thread; a shared one is filled up to four times what
    lies below it.
    """
    found: dict[str, int] = {}
    below = 0
    for level, cache in host.caches.items():
        instances = min(cache.instances, threads)
        whole = cache.bytes * instances
        bytes_ = int(HALF * whole)
        if level == "l3":
            bytes_ = min(bytes_, PAST * below) if below else bytes_
        found[level] = bytes_
        below = whole
    found["memory"] = min(LARGEST, (host.memory or 4 * LARGEST) // 4)
    return found


def _of(pair: Pair, threads: int):
    return pair.one if threads == 1 else pair.all


def _stream(name: str, level: str, bytes_: int, threads: int, pool: np.ndarray) -> Job:
    arrays = STREAMS[name]
    n = max(LINE, bytes_ // (4 * arrays) // threads // LINE * LINE) * threads
    held = [pool[i * (n + LINE) : i * (n + LINE) + n] for i in range(arrays)]
    run, more = (
        _of(getattr(ceilings, name), threads),
        (np.zeros(threads, np.float32),) if name == "read" else (),
    )
    return Job(
        f"{level} {name}",
        threads,
        4.0 * arrays * n,
        lambda repeats: run(*held, *more, threads, repeats),
    )


def _function(name: str, threads: int, pool: np.ndarray) -> Job:
    n = 2048 * threads
    run, x, y = _of(getattr(ceilings, name), threads), pool[:n], pool[n : 2 * n]
    return Job(name, threads, float(n), lambda repeats: run(x, y, threads, repeats))


def _chain(name: str, kind: type, threads: int) -> Job:
    run, out = _of(getattr(ceilings, name), threads), np.zeros(threads, kind)
    flops = 2.0 * ceilings.CHAINS * VECTOR_BYTES / kind().itemsize * threads * 1000
    return Job(name, threads, flops, lambda repeats: run(out, threads, 1000 * repeats))


def _gemm(edge: int, threads: int, pool: np.ndarray) -> Job:
    a, b, c = (pool[i * edge * edge : (i + 1) * edge * edge].reshape(edge, edge) for i in range(3))
    run = _of(gemm, threads)

    def times(repeats: int) -> None:
        for _ in range(repeats):
            run(a, b, c, False, False, False)

    return Job(f"gemm {edge}", threads, 2.0 * edge**3, times)


def _loop(pool: np.ndarray) -> Job:
    x, out = pool[:4096], pool[4096 : 4096 + 4096 // LINE]
    return Job("loop", 1, float(out.size), lambda repeats: ceilings.loop.one(x, out, LINE, repeats))


def _call(pool: np.ndarray) -> Job:
    held = [pool[i * LINE : (i + 1) * LINE] for i in range(CALLED)]

    def times(repeats: int) -> None:
        for _ in range(repeats):
            ceilings.call.one(*held)

    return Job("call", 1, 1.0, times)


def _fork(threads: int) -> Job:
    out = np.zeros(threads, np.float32)

    def times(repeats: int) -> None:
        for _ in range(repeats):
            ceilings.fork.all(out, threads)

    return Job("fork", threads, 1.0, times)


def jobs(host: Host, quick: bool = False) -> list[Job]:
    """Every ceiling, on one thread and, where there are more, on all. `quick` leaves out copies,
    erf, sets between caches and memory, and the larger product.
    """
    pool = aligned((LARGEST // 4 + 64 * LINE,))
    pool += np.float32(0.5)
    streams = [name for name in STREAMS if not quick or name != "copy"]
    found = []
    for threads in sorted({1, host.threads}):
        found += [_chain("fma32", np.float32, threads), _chain("fma64", np.float64, threads)]
        found += [_gemm(edge, threads, pool) for edge in ((512,) if quick else (512, 1024))]
        found += [
            _stream(name, level, bytes_, threads, pool)
            for level, bytes_ in sets(host, threads).items()
            for name in streams
        ]
        found += [
            _stream(name, f"{far}mib", far * 2**20, threads, pool)
            for far in FAR
            if far * 2**20 < sets(host, threads)["memory"]
            for name in ("read", "fill")
            if not quick
        ]
        found += [
            _function(name, threads, pool) for name in FUNCTIONS if not quick or name != "erf"
        ]
    found += [_loop(pool), _call(pool)]
    return [*found, _fork(host.threads)] if host.threads > 1 else found
