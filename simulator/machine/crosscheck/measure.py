"""Training steps and kernels timed on this machine, one thread, in a process of their own.

A process of its own, because what ruins such timings has to be set before numpy, numba and torch
are loaded: threads that spin while they wait (a libgomp region costs a scheduler slice of 8 to 24
ms where another process runs), one thread for every BLAS, and later torch's denormals (a tenth of
subnormal inputs slows a product 16 times).

Rounds are interleaved: each round runs every net for a moment, so that a slow minute of a shared
machine meets all of them. What is kept of a round is its least CPU time, of a net the median over
rounds; the noise is how far two halves of the rounds differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.machine.crosscheck.net_list import NETS, Net

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": (
        "0"
        # glibc otherwise gives tensors of over 32 MiB back and maps them anew each step, at an eighth
    ),
    "MALLOC_TRIM_THRESHOLD_": str(
        2**40
    ),  # of the bandwidth of memory: a page fault for every 4 KiB
}
MOMENT = 0.15  # s a net runs in one round, one step at least
# steps before the first round: compilation, and memory that the machine hands out for the first
# time
WARM = 3
MOST = 8  # steps in one round
SAMPLE, SAMPLES = 1e-3, 5  # s of calls of a kernel in one sample, samples in one round
PROBE = 768  # edge of the product that probes the arithmetic rate
# of each array of the bandwidth probes: beyond any share of a cache that a core gets
PROBE_BYTES = 256 * 2**20
POOLED = (8, 64, 56)  # images, channels and edge that a 2x2 max-pool is probed on
PROBES = {  # FLOPs, bytes, comparisons
    "gemm": 2.0 * PROBE**3, "scale": 2.0 * PROBE_BYTES, "triad": 3.0 * PROBE_BYTES,
    "mm": 2.0 * PROBE**3, "pool": float(POOLED[0] * POOLED[1] * POOLED[2] ** 2),
}  # fmt: skip


class Measured(NamedTuple):
    """Seconds: the median over rounds, and how far two halves of the rounds differ. CPU time of one
    thread, wall time of more.
    """

    seconds: float
    noise: float
    rounds: tuple[float, ...]


class Session(NamedTuple):
    """One run of the worker. The rate of a probe is PROBES / its seconds."""

    found: dict[str, Measured]  # by what was asked: key() of a net, or a kernel and its size
    # seconds of those of PROBES that could be asked; none beside kernels
    probes: dict[str, Measured]
    versions: dict[str, str]
    load: tuple[float, float]  # load average at the start and the end


def measured(samples: Iterable[float]) -> Measured:
    """Median over rounds; noise |median of the even rounds / median of the odd ones - 1|.

    >>> measured([1.0, 1.2, 1.0, 1.2]).noise
    0.19999999999999996
    """
    samples = tuple(samples)
    low, high = sorted((float(np.median(samples[::2])), float(np.median(samples[1::2] or samples))))
    return Measured(float(np.median(samples)), high / low - 1.0, samples)


def rate(session: Session, probe: str) -> float:
    """FLOP/s or bytes/s of a probe."""
    return PROBES[probe] / session.probes[probe].seconds


def key(net: Net) -> str:
    """A net and who runs it: two engines may train a net of one name."""
    return net.name if net.by == "numba" else f"{net.name} torch"


# ------------------------------------------------------------------ the side of the caller
def steps(
    nets: Iterable[Net],
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
    gpu: bool = False,
) -> Session:
    """Measure training steps; with `gpu`, of PyTorch's nets on the CUDA device. `progress` is told
    how many of how many are done.
    """
    return asked("nets-gpu" if gpu else "nets", [key(n) for n in nets], rounds, progress)


def asked(
    kind: str,
    names: Sequence[str],
    rounds: int,
    progress: Callable[[int, int], None],
    threads: int = 1,
) -> Session:
    """Let a process of its own measure the `names`: `nets` by their key, `kernels` as name:size, or
    `products` by their edge.
    """
    command = [
        sys.executable,
        "-m",
        "roofcast.simulator.machine.crosscheck.measure",
        kind,
        str(rounds),
    ]
    env = os.environ | QUIET | dict.fromkeys(THREADS, str(threads))
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        worker.stdin.write(json.dumps(list(names)))
        worker.stdin.close()
        return gathered(worker.stdout, len(names) * (rounds + 1), progress)
    finally:
        if worker.poll() is None:
            worker.terminate()
        worker.wait()


def gathered(lines: Iterable[str], wanted: int, progress: Callable[[int, int], None]) -> Session:
    """What a worker wrote, line by line, as a Session."""
    samples: dict[str, list[float]] = {}
    last: dict = {}
    done = 0
    for line in lines:
        said = json.loads(line)
        if "error" in said:
            raise BadInput(f"{said['name']}: cannot be measured: {said['error']}")
        if "versions" in said:
            last = said
            continue
        if said["name"] not in PROBES:
            done += 1
            progress(done, wanted)
        if said["seconds"] is not None:
            samples.setdefault(said["name"], []).append(said["seconds"])
    if not last:
        raise BadInput(
            "crosscheck: the measuring process ended early; is there enough memory? try --quick"
        )
    found = {name: measured(s) for name, s in samples.items()}
    probes = {name: found.pop(name) for name in PROBES if name in found}
    return Session(found, probes, last["versions"], tuple(last["load"]))


# ------------------------------------------------------------------ the side of the worker
def builder(net: Net, where: str = "cpu") -> Callable[[], float]:
    """The step of a net; PyTorch's may run on another device."""
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
    """The least time of a step in a moment of steps [s]: CPU time, all of the process, as autograd
    may run in a thread of its own.
    """
    best, begun = np.inf, time.perf_counter()
    for _ in range(MOST):
        start = clock()
        step()
        best = min(best, clock() - start)
        if time.perf_counter() - begun > moment:
            break
    return best


def load() -> float:
    """Load average of the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def train(names: list[str], rounds: int, where: str = "cpu") -> Iterator[dict]:
    """What the worker writes of nets: one dictionary a net and round, round 0 builds and warms up.
    On a device that is no CPU the wall clock tells, and there are no probes: its ceilings are those
    of its calibration.
    """
    begun, clock = load(), time.process_time if where == "cpu" else time.perf_counter
    versions = {"numpy": np.__version__, "python": sys.version.split()[0]}
    wanted = [n for n in NETS if key(n) in names]
    if any(n.by == "torch" for n in wanted):
        import torch

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        versions["torch"] = torch.__version__
    if any(n.by == "numba" for n in wanted):
        from roofcast.simulator.machine.kernels.compiled import numba

        versions["numba"] = numba.__version__
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
    probes = (
        (probing() | (probing_torch() if "torch" in versions else {})) if where == "cpu" else {}
    )
    for _ in range(rounds):
        for name, step in made.items():
            yield {"name": name, "seconds": shortest(step, clock=clock)}
        for name, probe in probes.items():
            yield {"name": name, "seconds": shortest(probe, 0.05)}
    yield {"versions": versions, "load": [begun, load()]}


def run(names: list[str], rounds: int) -> Iterator[dict]:
    """What the worker writes of kernels. Arguments are made anew each round: all of them at once
    would not fit a small machine.
    """
    begun, threads = load(), threads_set()
    from roofcast.simulator.machine.kernels.compiled import numba
    from roofcast.simulator.machine.kernels.registry import KERNELS

    for number in range(rounds + 1):
        for asked_for in names:
            name, size = asked_for.split(":")
            kernel = KERNELS[name]
            call = kernel.run.one if threads == 1 else kernel.run.all
            arguments = kernel.make(tuple(int(n) for n in size.split("x")), threads)
            call(*arguments)
            yield {
                "name": asked_for,
                "seconds": repeated(call, arguments, clock_of(threads)) if number else None,
            }
    yield {
        "versions": {
            "numpy": np.__version__,
            "numba": numba.__version__,
            "python": sys.version.split()[0],
        },
        "load": [begun, load()],
    }


def products(names: list[str], rounds: int) -> Iterator[dict]:
    """What the worker writes of numpy's products, named by their edge, on as many threads as its
    surroundings set.
    """
    begun, clock = load(), clock_of(threads_set())
    for number in range(rounds + 1):
        for name in names:
            a, b, c = (np.full((int(name), int(name)), 0.5, np.float32) for _ in range(3))
            np.matmul(a, b, out=c)
            yield {
                "name": name,
                "seconds": repeated(np.matmul, (a, b, c), clock) if number else None,
            }
    yield {"versions": {"numpy": np.__version__}, "load": [begun, load()]}


def threads_set() -> int:
    """Threads that the caller gave the worker."""
    return int(os.environ.get("NUMBA_NUM_THREADS", "1"))


def clock_of(threads: int) -> Callable[[], float]:
    """CPU time of the process for one thread, else the time of the day."""
    return time.process_time if threads == 1 else time.perf_counter


def repeated(
    call: Callable, arguments: tuple, clock: Callable[[], float] = time.process_time
) -> float:
    """The least time of a call [s], from SAMPLES of as many calls as fill SAMPLE seconds."""
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
    """What the machine can do, asked in the same rounds: numpy's product, and its bandwidth in two
    ways.

    scale   x = c x in place: the most that main memory gives
    triad   z = x + y: three arrays, as STREAM has it, whose written lines are read first
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
    """The same of PyTorch's own libraries.

    mm      its product, which may be another BLAS than numpy's
    pool    its max-pool, which compares one number after another
    """
    import torch

    a, b, c = (torch.full((PROBE, PROBE), 0.5) for _ in range(3))
    x = torch.randn(
        POOLED[0], POOLED[1], POOLED[2], POOLED[2], generator=torch.Generator().manual_seed(0)
    )
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
    asked_kind, asked_rounds = sys.argv[1:]
    try:
        for told in WORK[asked_kind](json.load(sys.stdin), int(asked_rounds)):
            print(json.dumps(told), flush=True)
    except (KeyboardInterrupt, BrokenPipeError):  # the caller has been interrupted, and says so
        os._exit(130)
