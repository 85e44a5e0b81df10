"""The jobs of a calibration: which kernel, on how much memory, on how many threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from roofcast.simulator.machine.host import Host
from roofcast.simulator.machine.kernels import ceilings
from roofcast.simulator.machine.kernels.arrays import aligned
from roofcast.simulator.machine.kernels.compiled import VECTOR_BYTES, Pair
from roofcast.simulator.machine.kernels.gemm import gemm
from roofcast.simulator.machine.sampling import Job

STREAMS = {"read": 1, "fill": 1, "copy": 2, "scale": 2, "triad": 3}  # number of arrays
FUNCTIONS = ("exp", "erf", "tanh", "div")
LARGEST = 256 * 2**20  # bytes of the working sets that exceed every cache
HALF = 0.5  # of a cache's capacity, used by its working set
# Maximum working set in a shared cache, as a multiple of the caches below it: other processes may
# hold the rest.
PAST = 4
LINE = 16  # fp32 numbers per cache line
CALL_ARRAYS = 3  # arguments of the call that is timed
# MiB, working sets between the shared cache and main memory: how much of the shared cache this
# process can use is not known
FAR = (32, 64, 128)


def sets(host: Host, threads: int) -> dict[str, int]:
    """Total bytes of a stream's arrays for each level of memory, nearest level first.

    Half of a private cache per thread; of a shared cache, at most PAST times the levels below it.
    """
    found: dict[str, int] = {}
    below = 0
    for level, cache in host.caches.items():
        capacity = cache.bytes * min(cache.instances, threads)
        size = int(HALF * capacity)
        if level == "l3" and below:
            size = min(size, PAST * below)
        found[level] = size
        below = capacity
    found["memory"] = min(LARGEST, (host.memory or 4 * LARGEST) // 4)
    return found


def _variant(pair: Pair, threads: int) -> Any:
    return pair.one if threads == 1 else pair.all


def _stream(name: str, level: str, size: int, threads: int, pool: np.ndarray) -> Job:
    arrays = STREAMS[name]
    n = max(LINE, size // (4 * arrays) // threads // LINE * LINE) * threads
    held = [pool[i * (n + LINE) : i * (n + LINE) + n] for i in range(arrays)]
    if name == "read":
        held.append(np.zeros(threads, np.float32))
    run = _variant(getattr(ceilings, name), threads)
    key, amount = f"{level} {name}", 4.0 * arrays * n
    return Job(key, threads, amount, lambda repeats: run(*held, threads, repeats))


def _function(name: str, threads: int, pool: np.ndarray) -> Job:
    n = 2048 * threads
    run, x, y = _variant(getattr(ceilings, name), threads), pool[:n], pool[n : 2 * n]
    return Job(name, threads, float(n), lambda repeats: run(x, y, threads, repeats))


def _chain(name: str, dtype: type, threads: int) -> Job:
    run = _variant(getattr(ceilings, name), threads)
    out: np.ndarray = np.zeros(threads, dtype)
    flops = 2.0 * ceilings.CHAINS * VECTOR_BYTES / out.itemsize * threads * 1000
    return Job(name, threads, flops, lambda repeats: run(out, threads, 1000 * repeats))


def _gemm(edge: int, threads: int, pool: np.ndarray) -> Job:
    a, b, c = (pool[i * edge * edge : (i + 1) * edge * edge].reshape(edge, edge) for i in range(3))
    run = _variant(gemm, threads)

    def times(repeats: int) -> None:
        for _ in range(repeats):
            run(a, b, c, False, False, False)

    return Job(f"gemm {edge}", threads, 2.0 * edge**3, times)


def _loop(pool: np.ndarray) -> Job:
    x, out = pool[:4096], pool[4096 : 4096 + 4096 // LINE]
    return Job("loop", 1, float(out.size), lambda repeats: ceilings.loop.one(x, out, LINE, repeats))


def _call(pool: np.ndarray) -> Job:
    held = [pool[i * LINE : (i + 1) * LINE] for i in range(CALL_ARRAYS)]

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
    """The jobs for every ceiling, on one thread and, on a machine with more, on all of them.

    `quick` omits copies, erf, working sets between caches and memory, and the larger product.
    """
    pool = aligned((LARGEST // 4 + 64 * LINE,))
    pool += np.float32(0.5)
    found = []
    for threads in sorted({1, host.threads}):
        found += _jobs_on(threads, host, quick, pool)
    found += [_loop(pool), _call(pool)]
    return [*found, _fork(host.threads)] if host.threads > 1 else found


def _jobs_on(threads: int, host: Host, quick: bool, pool: np.ndarray) -> list[Job]:
    """The jobs that are measured on one number of threads."""
    sizes = sets(host, threads)
    streams = [name for name in STREAMS if not quick or name != "copy"]
    functions = [name for name in FUNCTIONS if not quick or name != "erf"]
    far = [] if quick else [mib for mib in FAR if mib * 2**20 < sizes["memory"]]
    return [
        _chain("fma32", np.float32, threads),
        _chain("fma64", np.float64, threads),
        *(_gemm(edge, threads, pool) for edge in ((512,) if quick else (512, 1024))),
        *(
            _stream(name, level, size, threads, pool)
            for level, size in sizes.items()
            for name in streams
        ),
        *(
            _stream(name, f"{mib}mib", mib * 2**20, threads, pool)
            for mib in far
            for name in ("read", "fill")
        ),
        *(_function(name, threads, pool) for name in functions),
    ]
