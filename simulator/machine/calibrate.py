"""Calibrate the local machine: run the jobs, get the rates, make the two device files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from roofcast.simulator.machine import device_file
from roofcast.simulator.machine.find import find, load
from roofcast.simulator.machine.host import Host
from roofcast.simulator.machine.sampling import AGREE, OURS, Clock, Job, Rate, Sample, rates, sample

# s, compilation included; the last round may run a little over
SECONDS, QUICK_SECONDS = 48.0, 13.0
BLAS_EDGES, BLAS_ROUNDS = (512, 1024), 6  # sizes of numpy's matrix products


class Calibration(NamedTuple):
    """The measured rates, and the device files that hold them."""

    host: Host
    alone: dict[str, Rate]  # one thread, by job key
    together: dict[str, Rate]  # all threads; the same as `alone` on a machine with one thread
    files: dict[str, str]  # text by name, as in hwdb.names.THIS_MACHINE

    @property
    def differ(self) -> float:
        """Relative difference between the halves of the rounds: the larger of the two medians."""
        return max(device_file.disagreement(self.alone), device_file.disagreement(self.together))

    @property
    def share(self) -> float:
        """Fraction of the processors' time that the threads got, median over the ceilings."""
        return device_file.share(self.together)

    @property
    def noisy(self) -> bool:
        """Whether the halves differ by more than AGREE, or the threads got less than OURS."""
        return self.differ > AGREE or self.share < OURS


def calibrate(
    quick: bool = False,
    step: Callable[[str], None] = lambda what: None,
    clock: Clock | None = None,
    host: Host | None = None,
    jobs: Sequence[Job] | None = None,
    library: Callable[[int], dict[str, Rate]] | None = None,
) -> Calibration:
    """Measure the ceilings of the local machine.

    `step` is called with the name of each job before it runs. For tests, the clock, the host, the
    jobs and the `library` of matrix products (threads -> rates) can be replaced.
    """
    host = host or find()
    busy = load()
    if jobs is None:
        jobs, library = prepared(host, quick), library or blas
    found = sample(jobs, QUICK_SECONDS if quick else SECONDS, clock, step)
    by_job = list(zip(jobs, found, strict=True))
    alone = {job.key: rate for job, rate in by_job if job.threads == 1}
    together = {job.key: rate for job, rate in by_job if job.threads > 1} or alone
    # loops and calls are measured on one thread only
    together = {key: alone[key] for key in ("loop", "call") if key in alone} | together
    if library:
        step("products of numpy")
        together = together | library(host.threads)
        alone = together if host.threads == 1 else alone | library(1)
    stamp = device_file.versions(busy)
    files = {
        "this-machine": device_file.text(host, together, False, stamp),
        "this-machine-1": device_file.text(host, alone, True, stamp),
    }
    return Calibration(host, alone, together, files)


def blas(threads: int) -> dict[str, Rate]:
    """Rates of numpy's matrix product, measured in a process of its own.

    The number of BLAS threads must be set before numpy is loaded.
    """
    from roofcast.simulator.machine.crosscheck import measure

    edges = [str(edge) for edge in BLAS_EDGES]
    found = measure.run_worker("products", edges, BLAS_ROUNDS, lambda done, of: None, threads).found
    jobs = [Job(f"blas {edge}", threads, 2.0 * int(edge) ** 3, print) for edge in found]
    columns = [
        [Sample(seconds / job.amount, 1.0) for seconds in each.rounds]
        for job, each in zip(jobs, found.values(), strict=True)
    ]
    by_job = rates(jobs, list(zip(*columns, strict=True)))
    return {job.key: rate for job, rate in zip(jobs, by_job, strict=True)}


def prepared(host: Host, quick: bool) -> list[Job]:
    """The jobs of this machine; sets numba's number of threads to that of the host."""
    from roofcast.simulator.machine.jobs import jobs
    from roofcast.simulator.machine.kernels.compiled import numba

    threads = min(host.threads, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    return jobs(host._replace(threads=threads), quick)
