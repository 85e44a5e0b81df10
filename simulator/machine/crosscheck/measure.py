"""Training steps and kernels measured on this machine: the side of the caller.

The measurements run in a process of their own (worker.py), because what would distort them has to
be set before numpy, numba and torch are loaded: threads that spin while they wait (a libgomp region
costs a scheduler slice of 8 to 24 ms while another process runs), and the number of threads of
every BLAS.

Rounds are interleaved: each round runs every net for a moment, so that other load on the machine
affects all of them alike. Of each round the least time counts, and of a net the median over rounds,
on several threads the best one; the noise is the difference between two halves of the rounds.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.machine.crosscheck.net_list import Net

THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
# glibc otherwise returns tensors of over 32 MiB to the system and maps them anew in each step, at
# an eighth of the memory bandwidth: a page fault for every 4 KiB.
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}
# turns for which libgomp's threads wait before they sleep: its default, as PyTorch's users have it.
# numba's threads and those of its BLAS would wait for one another.
SPIN = {"GOMP_SPINCOUNT": "300000"}
PROBE = 768  # edge of the product that measures the arithmetic rate
# bytes of each array of the bandwidth probes: more than any share of a cache that one core gets
PROBE_BYTES = 256 * 2**20
POOLED = (8, 64, 56)  # images, channels and edge of the 2x2 max-pool probe
PROBES = {  # FLOPs, bytes, comparisons, starts of all threads
    "gemm": 2.0 * PROBE**3, "scale": 2.0 * PROBE_BYTES, "triad": 3.0 * PROBE_BYTES,
    "mm": 2.0 * PROBE**3, "pool": float(POOLED[0] * POOLED[1] * POOLED[2] ** 2), "fork": 1.0,
}  # fmt: skip


class Measured(NamedTuple):
    """Seconds of a step or call: CPU time of one thread, or wall time of several."""

    seconds: float  # median over rounds, or the best round (`best`)
    noise: float  # relative difference between the even and the odd rounds
    rounds: tuple[float, ...]


class Session(NamedTuple):
    """The results of one run of the worker."""

    found: dict[str, Measured]  # by key() of a net, or kernel:size
    probes: dict[str, Measured]  # rate = PROBES / seconds; of kernels, the start of all threads
    versions: dict[str, str]
    load: tuple[float, float]  # load average at start and end


def measured(samples: Iterable[float]) -> Measured:
    """Median over rounds; noise |median of the even rounds / median of the odd ones - 1|.

    >>> measured([1.0, 1.2, 1.0, 1.2]).noise
    0.19999999999999996
    """
    samples = tuple(samples)
    low, high = sorted((float(np.median(samples[::2])), float(np.median(samples[1::2] or samples))))
    return Measured(float(np.median(samples)), high / low - 1.0, samples)


def rate(session: Session, probe: str) -> float:
    """FLOP/s, bytes/s, comparisons/s or starts/s of a probe."""
    return PROBES[probe] / session.probes[probe].seconds


def key(net: Net) -> str:
    """Name of a net and its software: both numba and torch may train a net of the same name."""
    return net.name if net.by == "numba" else f"{net.name} torch"


def steps(
    nets: Iterable[Net],
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
    gpu: bool = False,
    threads: int = 1,
) -> Session:
    """Measure training steps; with `gpu`, PyTorch's nets on the CUDA device.

    `progress` is called with the number of measurements done and their total. On several threads
    numba's and PyTorch's nets run in processes of their own: their threads wait in different ways.
    """
    nets = list(nets)
    if threads == 1 or gpu:
        names = [key(n) for n in nets]
        session = run_worker("nets-gpu" if gpu else "nets", names, rounds, progress, threads)
        return session if threads == 1 else best(session)
    total = len(nets) * (rounds + 1)
    apart: list[Session] = []
    for by in ("numba", "torch"):
        names = [key(n) for n in nets if n.by == by]
        before = sum(len(s.found) for s in apart) * (rounds + 1)
        if names:
            waits = SPIN if by == "torch" else {}
            told = functools.partial(_after, progress, before, total)
            apart.append(run_worker("nets", names, rounds, told, threads, waits))
    return best(joined(apart))


def _after(
    progress: Callable[[int, int], None], before: int, total: int, done: int, _: int
) -> None:
    """Progress of a worker, after the `before` measurements of the workers ahead of it."""
    progress(before + done, total)


def joined(sessions: Sequence[Session]) -> Session:
    """Several sessions as one; of a probe that two of them measured, the first counts."""
    found: dict[str, Measured] = {}
    probes: dict[str, Measured] = {}
    versions: dict[str, str] = {}
    for each in reversed(sessions):
        found, probes = found | each.found, probes | each.probes
        versions = versions | each.versions
    return Session(found, probes, versions, (sessions[0].load[0], sessions[-1].load[1]))


def best(session: Session) -> Session:
    """The same with the best round of each point: on several threads another process that takes a
    core stops all of them.
    """
    found, probes = (
        {name: each._replace(seconds=min(each.rounds)) for name, each in points.items()}
        for points in (session.found, session.probes)
    )
    return session._replace(found=found, probes=probes)


def run_worker(
    kind: str,
    names: Sequence[str],
    rounds: int,
    progress: Callable[[int, int], None],
    threads: int = 1,
    waits: Mapping[str, str] | None = None,
) -> Session:
    """Measure the `names` in a worker process.

    kind, names: "nets" or "nets-gpu" by key(), "kernels" as name:size, or "products" by their edge;
    waits: how threads wait, as variables of the environment.
    """
    module = "roofcast.simulator.machine.crosscheck.worker"
    command = [sys.executable, "-m", module, kind, str(rounds)]
    env = os.environ | QUIET | dict.fromkeys(THREADS, str(threads)) | dict(waits or {})
    pipe = subprocess.PIPE
    worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
    assert worker.stdin and worker.stdout, "both are pipes"
    try:
        worker.stdin.write(json.dumps(list(names)))
        worker.stdin.close()
        return read_session(worker.stdout, len(names) * (rounds + 1), progress)
    finally:
        if worker.poll() is None:
            worker.terminate()
        worker.wait()


def read_session(
    lines: Iterable[str], wanted: int, progress: Callable[[int, int], None]
) -> Session:
    """A Session from the lines that a worker prints.

    Raises BadInput if a net or kernel cannot be measured, or if the worker ended early.
    """
    samples: dict[str, list[float]] = {}
    last: dict = {}
    done = 0
    for line in lines:
        entry = json.loads(line)
        if "error" in entry:
            raise BadInput(f"{entry['name']}: cannot be measured: {entry['error']}")
        if "versions" in entry:
            last = entry
            continue
        if entry["name"] not in PROBES:
            done += 1
            progress(done, wanted)
        if entry["seconds"] is not None:
            samples.setdefault(entry["name"], []).append(entry["seconds"])
    if not last:
        raise BadInput(
            "crosscheck: the measuring process ended early; is there enough memory? try --quick"
        )
    found = {name: measured(s) for name, s in samples.items()}
    probes = {name: found.pop(name) for name in PROBES if name in found}
    return Session(found, probes, last["versions"], tuple(last["load"]))
