"""Measure this machine: jobs -> rates -> two device files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from roofcast.simulator.machine import device_file
from roofcast.simulator.machine.host import Host, find, load
from roofcast.simulator.machine.sampling import AGREE, OURS, Clock, Job, Rate, Sample, rates, sample

# for all rounds and compilations; the last round may run a little over
SECONDS, QUICK_SECONDS = (48.0, 13.0)
BLAS_EDGES, BLAS_ROUNDS = (512, 1024), 6  # of the products that numpy's library is asked for


class Calibration(NamedTuple):
    """What was measured, and the files that say so."""

    host: Host
    alone: dict[str, Rate]  # one thread, by key of its job
    together: dict[str, Rate]  # all threads; the same where there is one
    files: dict[str, str]  # name as in hwdb.names.THIS_MACHINE -> text

    @property
    def differ(self) -> float:
        """By how much halves of the rounds differ: the worse of the two medians."""
        return max(device_file.disagreement(self.alone), device_file.disagreement(self.together))

    @property
    def share(self) -> float:
        """Of the processors' time that the threads had, median over the ceilings."""
        return device_file.share(self.together)

    @property
    def noisy(self) -> bool:
        """Do halves of the rounds differ by more than AGREE, or had the threads less than OURS of
        the processors' time?
        """
        return self.differ > AGREE or self.share < OURS


def calibrate(
    quick: bool = False,
    step: Callable[[str], None] = lambda what: None,
    clock: Clock | None = None,
    host: Host | None = None,
    jobs: Sequence[Job] | None = None,
    library: Callable[[int], dict[str, Rate]] | None = None,
) -> Calibration:
    """Measure the ceilings. `step` is told of every job that is next; clock, host, jobs and the
    `library` of products (threads -> rates) are those of the machine unless given.
    """
    host = host or find()
    busy = load()
    if jobs is None:
        jobs, library = prepared(host, quick), library or blas
    found = list(
        zip(jobs, sample(jobs, QUICK_SECONDS if quick else SECONDS, clock, step), strict=True)
    )
    alone = {job.key: rate for job, rate in found if job.threads == 1}
    together = {job.key: rate for job, rate in found if job.threads > 1} or alone
    together = {
        key: alone[key] for key in ("loop", "call") if key in alone
    } | together  # what one thread does has no ceiling of all
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
    """What numpy's library of products reaches, in a process of its own: how many threads it has is
    set before it is loaded.
    """
    from roofcast.simulator.machine.crosscheck import measure

    found = measure.asked(
        "products", [str(edge) for edge in BLAS_EDGES], BLAS_ROUNDS, lambda done, of: None, threads
    ).found
    jobs = [Job(f"blas {edge}", threads, 2.0 * int(edge) ** 3, print) for edge in found]
    columns = [
        [Sample(s / job.amount, 1.0) for s in each.rounds]
        for job, each in zip(jobs, found.values(), strict=True)
    ]
    return dict(
        zip((job.key for job in jobs), rates(jobs, list(zip(*columns, strict=True))), strict=True)
    )


def prepared(host: Host, quick: bool) -> list[Job]:
    """The jobs, and as many threads as the host may use."""
    from roofcast.simulator.machine.jobs import jobs
    from roofcast.simulator.machine.kernels.compiled import numba

    host_threads = min(host.threads, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(host_threads)
    return jobs(host._replace(threads=host_threads), quick)
