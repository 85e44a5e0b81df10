"""The measuring process: `python -m roofcast.simulator.machine.crosscheck.worker KIND ROUNDS`.

measure.py starts it and describes its method. It reads the names from stdin and prints one JSON
object per line: name and seconds (None in round 0, which compiles and warms up), and finally the
versions and the load average.

Denormals are flushed in PyTorch: a tenth of subnormal inputs slows a product 16 times.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from roofcast.simulator.machine.crosscheck.measure import POOLED, PROBE, PROBE_BYTES, key
from roofcast.simulator.machine.crosscheck.net_list import NETS, Net
from roofcast.simulator.machine.kernels.compiled import threads_set

MOMENT = 0.15  # s that a net, or a probe, runs in one round, one step at least
# steps before the first round: compilation, and memory that the system provides for the first time
WARM = 3
MOST = 8  # maximum number of steps in one round
SAMPLE, SAMPLES = 1e-3, 5  # s of one sample of a kernel, samples in one round
BETWEEN = 40  # kernels between two probes of the start of all threads


def builder(net: Net, where: str = "cpu") -> Callable[[], float]:
    """The training step of a net; PyTorch's nets may run on another device."""
    if net.by == "torch":
        from roofcast.simulator.machine.crosscheck import torch_nets

        return torch_nets.build(net, where)
    from roofcast.simulator.machine.crosscheck import nets

    return nets.build(net)


def shortest(
    step: Callable[[], object],
    moment: float = MOMENT,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """The shortest of the steps that fit into a moment [s].

    By default the CPU time of the whole process, as autograd may run in a thread of its own.
    """
    best, begun = np.inf, time.perf_counter()
    for _ in range(MOST):
        start = clock()
        step()
        best = min(best, clock() - start)
        if time.perf_counter() - begun > moment:
            break
    return best


def lasting(
    probe: Callable[[], object],
    moment: float = MOMENT,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """The mean of the calls of a probe that fill a moment [s]: the rate of a time like a step's.

    The shortest of many short calls finds moments in which the other hyper-thread of the core is
    idle, which no step is short enough to lie in.
    """
    start, begun, calls = clock(), time.perf_counter(), 0
    while not calls or time.perf_counter() - begun < moment:
        probe()
        calls += 1
    return (clock() - start) / calls


def load() -> float:
    """Load average of the last minute; 0 where the system does not report one."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def train(names: list[str], rounds: int, where: str = "cpu") -> Iterator[dict]:
    """Measure nets: one dictionary per net and round.

    On several threads, or on a device other than the CPU, the time is wall time. For such a device
    there are no probes: the ceilings are those of its calibration.
    """
    begun, clock = load(), clock_of(threads_set()) if where == "cpu" else time.perf_counter
    wanted = [n for n in NETS if key(n) in names]
    versions = _prepared({n.by for n in wanted})
    made = {}
    for net in wanted:
        try:
            made[key(net)] = builder(net, where)
            for _ in range(WARM):
                made[key(net)]()
        except Exception as error:
            yield {"name": key(net), "error": " ".join(f"{type(error).__name__}: {error}".split())}
            return
        yield {"name": key(net), "seconds": None}
    probes = probing() if where == "cpu" else {}
    if where == "cpu" and "torch" in versions:
        probes |= probing_torch()
    for _ in range(rounds):
        for name, step in made.items():
            yield {"name": name, "seconds": shortest(step, clock=clock)}
        for name, probe in probes.items():
            yield {"name": name, "seconds": lasting(probe, clock=clock)}
    yield {"versions": versions, "load": [begun, load()]}


def _prepared(software: set[str]) -> dict[str, str]:
    """Load the software that trains the nets; its versions."""
    versions = {"numpy": np.__version__, "python": sys.version.split()[0]}
    if "torch" in software:
        import torch

        torch.set_num_threads(threads_set())
        torch.set_flush_denormal(True)
        versions["torch"] = torch.__version__
    if "numba" in software:
        from roofcast.simulator.machine.kernels.compiled import numba

        versions["numba"] = numba.__version__
    return versions


def run(names: list[str], rounds: int) -> Iterator[dict]:
    """Measure kernels: one dictionary per kernel and round, and of several threads one per round
    for their start, which depends on what the system does with idle processors.

    Arguments are made anew in each round: all of them together would not fit a small machine.
    """
    begun, threads = load(), threads_set()
    from roofcast.simulator.machine.kernels import ceilings
    from roofcast.simulator.machine.kernels.compiled import numba
    from roofcast.simulator.machine.kernels.registry import KERNELS

    idle = np.zeros(threads, np.float32)
    python = sys.version.split()[0]
    versions = {"numpy": np.__version__, "numba": numba.__version__, "python": python}
    for number in range(rounds + 1):
        starts = []
        for place, point in enumerate(names):
            if number and threads > 1 and place % BETWEEN == 0:
                starts.append(repeated(ceilings.fork.all, (idle, threads), clock_of(threads)))
            name, size = point.split(":")
            kernel = KERNELS[name]
            call = kernel.run.one if threads == 1 else kernel.run.all
            arguments = kernel.make(tuple(int(n) for n in size.split("x")), threads)
            call(*arguments)
            seconds = repeated(call, arguments, clock_of(threads)) if number else None
            yield {"name": point, "seconds": seconds}
        if starts:
            yield {"name": "fork", "seconds": float(np.median(starts))}
    yield {"versions": versions, "load": [begun, load()]}


def products(names: list[str], rounds: int) -> Iterator[dict]:
    """Measure numpy's matrix products, named by their edge, on the threads set by the caller."""
    begun, clock = load(), clock_of(threads_set())
    for number in range(rounds + 1):
        for name in names:
            a, b, c = (np.full((int(name), int(name)), 0.5, np.float32) for _ in range(3))
            np.matmul(a, b, out=c)
            seconds = repeated(np.matmul, (a, b, c), clock) if number else None
            yield {"name": name, "seconds": seconds}
    yield {"versions": {"numpy": np.__version__}, "load": [begun, load()]}


def clock_of(threads: int) -> Callable[[], float]:
    """The clock: CPU time of the process for one thread, wall time for more."""
    return time.process_time if threads == 1 else time.perf_counter


def repeated(
    call: Callable, arguments: tuple, clock: Callable[[], float] = time.process_time
) -> float:
    """The least time of a call [s] over SAMPLES samples of about SAMPLE seconds each."""
    start = clock()
    call(*arguments)
    many = max(1, int(SAMPLE / max(clock() - start, 1e-7)))
    best = np.inf
    for _ in range(SAMPLES):
        start = clock()
        for _ in range(many):
            call(*arguments)
        best = min(best, (clock() - start) / many)
    return best


def probing() -> dict[str, Callable[[], object]]:
    """Probes of numpy's product and of the memory bandwidth, run in the same rounds as the nets.

    scale   x = c x in place: the highest bandwidth of main memory
    triad   z = x + y: three arrays, as in STREAM, whose written lines are read first
    """
    a, b, c = (np.full((PROBE, PROBE), 0.5, np.float32) for _ in range(3))
    x, y, z = (np.full(PROBE_BYTES // 4, 1.0, np.float32) for _ in range(3))
    one = np.float32(1.0)
    return {
        "gemm": lambda: np.matmul(a, b, out=c),
        "scale": lambda: np.multiply(x, one, out=x),
        "triad": lambda: np.add(x, y, out=z),
    }


def probing_torch() -> dict[str, Callable[[], object]]:
    """Probes of PyTorch's own libraries.

    mm      its product, possibly from another BLAS than numpy's
    pool    its max-pool, which compares one number after another
    """
    import torch

    a, b, c = (torch.full((PROBE, PROBE), 0.5) for _ in range(3))
    images, channels, edge = POOLED
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(images, channels, edge, edge, generator=seeded)
    return {
        "mm": lambda: torch.mm(a, b, out=c),
        "pool": lambda: torch.nn.functional.max_pool2d(x, 2, return_indices=True),
    }


WORK = {
    "nets": train,
    "nets-gpu": lambda names, rounds: train(names, rounds, "cuda"),
    "kernels": run,
    "products": products,
}

if __name__ == "__main__":
    kind, count = sys.argv[1:]
    try:
        for line in WORK[kind](json.load(sys.stdin), int(count)):
            print(json.dumps(line), flush=True)
    except (KeyboardInterrupt, BrokenPipeError):  # the caller was interrupted, and reports it
        os._exit(130)
