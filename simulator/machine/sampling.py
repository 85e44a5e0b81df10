"""Timing of short jobs on a machine that other processes use too.

Jobs are sampled in rounds, one after the other, so that other load affects all of them alike.

- One thread: CPU time of the calling thread, which excludes waiting for a processor. The best
  sample of each round counts, and the median over rounds.
- All threads: wall time, and the best sample of all rounds. The fraction of the processors' time
  that the threads got shows whether other processes ran throughout.

The even and the odd rounds are compared; where they differ, the measurement is noisy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

SAMPLE = 1.5e-3  # minimum duration of one sample [s]
SAMPLES = 5  # samples per job and round; 2 for long jobs
LONG = 0.02  # duration of a long job [s]
ROUNDS = 10  # rounds that suffice if the halves agree
AGREE = 0.10  # maximum relative difference between the halves
OURS = 0.90  # minimum fraction of the processors' time for the threads


class Job(NamedTuple):
    """Something to time: `run(repeats)` does `amount` of work `repeats` times."""

    key: str
    threads: int  # 1: the calling thread
    amount: float  # FLOPs, bytes, results or calls
    run: Callable[[int], object]


class Clock(NamedTuple):
    """Clocks in seconds: CPU time of the calling thread, wall time, CPU time of all threads."""

    cpu: Callable[[], float] = time.thread_time
    wall: Callable[[], float] = time.perf_counter
    process: Callable[[], float] = time.process_time


class Sample(NamedTuple):
    """One timing; samples compare by their seconds."""

    seconds: float
    share: float  # CPU time / (seconds x threads)


class Rate(NamedTuple):
    """The measured rate of a job."""

    value: float  # amount per second
    differ: float  # |half of the rounds - other half| / value; infinite for one round
    rounds: int
    share: float = 1.0  # fraction of the processors' time that the threads got in the best sample

    @property
    def noisy(self) -> bool:
        """Whether the halves of the rounds differ by more than AGREE."""
        return self.differ > AGREE


def sample(
    jobs: Sequence[Job],
    seconds: float,
    clock: Clock | None = None,
    step: Callable[[str], None] = lambda what: None,
) -> list[Rate]:
    """The rate of each job, measured in about `seconds` at most, compilation included.

    The rounds take between a quarter and a half of that time, however long compilation took.
    `step` is called with a description of what runs next: twice per job before the rounds, then
    once per job and round.
    """
    clock = clock or Clock()
    begin = clock.wall()
    repeats = []
    for job in jobs:
        step(f"compile {job.key}")
        job.run(1)
    for job in jobs:
        step(f"try {job.key}")
        repeats.append(_repeats(job, clock))
    end = clock.wall() + min(seconds / 2, max(seconds / 4, begin + seconds - clock.wall()))
    rounds: list[list[Sample]] = []
    slowest = 0.0
    while len(rounds) < 2 or (clock.wall() + slowest < end and not _enough(jobs, rounds)):
        before = clock.wall()
        rounds.append([])
        for job, times in zip(jobs, repeats, strict=True):
            step(job.key)
            rounds[-1].append(_best(job, times, clock))
        slowest = max(slowest, clock.wall() - before)
    return rates(jobs, rounds)


def rates(jobs: Sequence[Job], rounds: Sequence[Sequence[Sample]]) -> list[Rate]:
    """The rate of each job from its samples, rounds x jobs, in seconds per unit of `amount`."""
    found = []
    for job, column in zip(jobs, zip(*rounds, strict=True), strict=True):
        summary = median if job.threads == 1 else min
        seconds = [each.seconds for each in column]
        value, differ = summary(seconds), float("inf")
        if len(column) > 1:
            differ = abs(summary(seconds[::2]) - summary(seconds[1::2])) / value
        share = 1.0 if job.threads == 1 else min(column).share
        found.append(Rate(1.0 / value, differ, len(column), share))
    return found


def _enough(jobs: Sequence[Job], rounds: Sequence[Sequence[Sample]]) -> bool:
    return (
        len(rounds) >= ROUNDS
        and len(rounds) % 2 == 0
        and not any(rate.noisy for rate in rates(jobs, rounds))
    )


def _time(job: Job, repeats: int, clock: Clock) -> Sample:
    if job.threads == 1:
        before = clock.cpu()
        job.run(repeats)
        return Sample(max(clock.cpu() - before, 1e-9), 1.0)
    before, spent = clock.wall(), clock.process()
    job.run(repeats)
    seconds, spent = max(clock.wall() - before, 1e-9), clock.process() - spent
    return Sample(seconds, min(1.0, spent / (seconds * job.threads)))


def _repeats(job: Job, clock: Clock) -> int:
    """The number of repeats with which a sample takes at least SAMPLE seconds."""
    repeats = 1
    while (seconds := _time(job, repeats, clock).seconds) < SAMPLE / 4 and repeats < 2**24:
        repeats *= 8 if seconds < SAMPLE / 32 else 2
    return max(1, round(repeats * SAMPLE / seconds)) if seconds < SAMPLE else repeats


def _best(job: Job, repeats: int, clock: Clock) -> Sample:
    """The fastest sample of a round, in seconds per unit of `amount`."""
    first = _time(job, repeats, clock)
    more = (SAMPLES if first.seconds < LONG else 2) - 1
    best = min(first, *(_time(job, repeats, clock) for _ in range(more)))
    return best._replace(seconds=best.seconds / (repeats * job.amount))
