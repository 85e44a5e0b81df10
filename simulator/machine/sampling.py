"""Rates of short jobs on a machine that others use too.

Jobs are sampled in rounds, one after the other, so that a busy moment strikes all of them alike and
none altogether. On one thread the CPU time of the thread is taken: waiting for a processor does not
count. Of a round the best sample stands; of all rounds the median. On all threads only the wall
clock tells, and the best of all rounds stands; the share of the processors' time that it had says
whether others were at work all the while. The even and the odd rounds must agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

SAMPLE = 1.5e-3  # seconds that one sample should take at least
SAMPLES = 5  # of a job a round; two of a long one
LONG = 0.02  # seconds
ROUNDS = 10  # that are enough where the halves agree
AGREE = 0.10  # the most by which halves may differ
OURS = 0.90  # the least share of the processors' time that threads should have


class Job(NamedTuple):
    """Something to time: `run(repeats)` does `amount` of work (FLOPs, bytes, results, calls)
    `repeats` times.
    """

    key: str
    threads: int  # one is the calling thread
    amount: float
    run: Callable[[int], object]


class Clock(NamedTuple):
    """Seconds: of the calling thread's CPU time, of the day, and of the CPU time of all threads."""

    cpu: Callable[[], float] = time.thread_time
    wall: Callable[[], float] = time.perf_counter
    process: Callable[[], float] = time.process_time


class Sample(NamedTuple):
    """One timing; the better of two is the lesser."""

    seconds: float
    share: float  # CPU time / (seconds x threads)


class Rate(NamedTuple):
    """What a job reached."""

    value: float  # a second
    differ: float  # |half of the rounds - other half| / value; infinite of one round
    rounds: int
    share: float = 1.0  # of the processors' time that the threads had in the sample that stands

    @property
    def noisy(self) -> bool:
        """Do halves of the rounds differ by more than AGREE?"""
        return self.differ > AGREE


def sample(
    jobs: Sequence[Job],
    seconds: float,
    clock: Clock | None = None,
    step: Callable[[str], None] = lambda what: None,
) -> list[Rate]:
    """The rate of each job, in at most about `seconds`, the first run of each (its compilation)
    among them.

    The rounds take no more than half of that, and no less than a quarter, however long compilation
    took. `step` is told what is done next: twice a job before the rounds, then once a job and
    round.
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
    """From seconds a unit of `amount`, by round and job, to rates."""
    found = []
    for job, column in zip(jobs, zip(*rounds, strict=True), strict=True):
        stand = median if job.threads == 1 else min
        seconds = [each.seconds for each in column]
        value = stand(seconds)
        differ = (
            abs(stand(seconds[::2]) - stand(seconds[1::2])) / value
            if len(column) > 1
            else float("inf")
        )
        found.append(
            Rate(1.0 / value, differ, len(column), 1.0 if job.threads == 1 else min(column).share)
        )
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
    """So many that a sample takes SAMPLE."""
    repeats = 1
    while (seconds := _time(job, repeats, clock).seconds) < SAMPLE / 4 and repeats < 2**24:
        repeats *= 8 if seconds < SAMPLE / 32 else 2
    return max(1, round(repeats * SAMPLE / seconds)) if seconds < SAMPLE else repeats


def _best(job: Job, repeats: int, clock: Clock) -> Sample:
    """The sample of the least seconds, a unit of amount."""
    first = _time(job, repeats, clock)
    more = (SAMPLES if first.seconds < LONG else 2) - 1
    best = min(first, *(_time(job, repeats, clock) for _ in range(more)))
    return best._replace(seconds=best.seconds / (repeats * job.amount))
