"""How long a run with failures takes: the mean in closed form, and a seeded simulation.

Work is done in segments, each ended by a checkpoint. A failure costs what was done since the last
checkpoint, the time until it is detected, and the restart, which a failure may hit as well.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

EXPONENT = 600.0  # of a number that still is one
ROUNDS = 200  # failures up to which a run is simulated one by one


class Rhythm(NamedTuple):
    """Checkpoints and failures of a run; seconds."""

    segment_s: float  # work between two checkpoints
    stall_s: float  # for which a save stops the work
    late_s: float  # from the start of an asynchronous save until it counts
    detect_s: float  # from a failure until the restart begins
    restart_s: float  # until the work goes on
    between_s: float  # mean time between failures and preemptions together; inf: none
    preempted: float = 0.0  # share of the preemptions in them, which nobody has to notice
    wait_s: float = 0.0  # from a preemption until capacity is back and the restart begins

    @property
    def down_s(self) -> float:
        """Mean seconds from an interruption until the restart begins."""
        return (1.0 - self.preempted) * self.detect_s + self.preempted * self.wait_s


def mean_s(work_s: float, r: Rhythm) -> float:
    """Mean seconds of a run with `work_s` seconds of work [daly2006, the exact form]:

        T = n exp(R / M) (M + D) (exp((t + C) / M) - 1)

    n segments of t = work / n, C to save, M between failures, R to restart, D until detection, or
    until preempted capacity is back: the mean over both kinds of interruption. The restart is R
    each time, and M + D the mean cost of a failure before it. A segment whose
    asynchronous save takes L to count is undone by a failure within L, so that exp(L / M) as many
    are done. inf where a segment is never finished.

    >>> calm = Rhythm(3600.0, 40.0, 0.0, 300.0, 600.0, math.inf)
    >>> mean_s(36000.0, calm)
    36400.0
    """
    n = segments(work_s, r)
    each = work_s / n + r.stall_s
    if math.isinf(r.between_s):
        return n * each
    if max(each, r.restart_s) / r.between_s > EXPONENT:
        return math.inf
    again = math.expm1(each / r.between_s)  # failures per finished segment
    each_failure = (r.between_s + r.down_s) * math.exp(r.restart_s / r.between_s)
    return n * math.exp(r.late_s / r.between_s) * again * each_failure


def segments(work_s: float, r: Rhythm) -> int:
    """Checkpoints of a run, the last at its end."""
    return max(round(work_s / r.segment_s), 1) if r.segment_s > 0 else 1


def failures(work_s: float, r: Rhythm) -> float:
    """Mean number of failures, those of restarts among them."""
    if math.isinf(r.between_s):
        return 0.0
    n = segments(work_s, r)
    each = work_s / n + r.stall_s
    if max(each, r.restart_s) / r.between_s > EXPONENT:
        return math.inf
    return n * math.expm1(each / r.between_s) * math.exp((r.restart_s + r.late_s) / r.between_s)


def simulated_s(
    work_s: np.ndarray, r: Rhythm, between_s: np.ndarray, seed: int = 0, rounds: int = ROUNDS
) -> np.ndarray:
    """Seconds of one run per draw, failure by failure: the first result of `simulated`."""
    share = np.full(len(between_s), r.preempted)
    return simulated(work_s, r, between_s, share, seed, rounds)[0]


def simulated(
    work_s: np.ndarray,
    r: Rhythm,
    between_s: np.ndarray,
    preempted: np.ndarray,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of one run per draw, failure by failure, and those of them that wait for capacity.

    work_s, between_s, preempted: [draws], which may differ from draw to draw; `preempted` is the
    share of preemptions in the interruptions. Times between interruptions are exponential, and so
    are detection and waiting; the interval of checkpoints is the same for all. A draw in which more
    than `rounds` interruptions are expected is one of a normal distribution: the mean in closed
    form, and the variance of so many independent costs of an interruption.
    """
    random = np.random.default_rng(seed)
    work = np.asarray(work_s, float)
    n = np.maximum(np.round(work / r.segment_s), 1.0) if r.segment_s > 0 else np.ones(len(work))
    each = work / n + r.stall_s
    total, waited = np.zeros(len(work)), np.zeros(len(work))
    expected = [failures(w, r._replace(between_s=m)) for w, m in zip(work, between_s, strict=True)]
    left = n.copy()  # segments to do
    for i in np.flatnonzero(np.array(expected) > rounds):
        of = r._replace(between_s=float(between_s[i]), preempted=float(preempted[i]))
        mean = mean_s(float(work[i]), of)
        noise = _noise_s(expected[i], float(each[i]), of) * random.standard_normal()
        total[i], left[i] = max(mean + noise, n[i] * each[i]), 0.0
        waited[i] = expected[i] * of.preempted * of.wait_s
    at = np.flatnonzero(left > 0)
    up = np.zeros(len(work))  # of the restart that is under way
    while len(at):
        until = random.exponential(1.0, len(at)) * between_s[at]
        working = np.maximum(until - up[at], 0.0)
        done = np.minimum(np.floor(working / each[at]), left[at])
        if r.late_s > 0:  # a save that did not count yet is lost too
            late = np.floor(np.maximum(working - r.late_s, 0.0) / each[at])
            done = np.where(done < left[at], np.minimum(late, left[at]), done)
        finished = np.minimum(np.floor(working / each[at]), left[at]) >= left[at]
        down, taken = random.exponential(1.0, len(at)), np.zeros(len(at), bool)
        if preempted.any():
            taken = random.random(len(at)) < preempted[at]
        down *= np.where(taken, r.wait_s, r.detect_s)
        total[at] += np.where(finished, up[at] + left[at] * each[at], until + down)
        waited[at] += np.where(taken & ~finished, down, 0.0)
        left[at] = np.where(finished, 0.0, left[at] - done)
        up[at] = r.restart_s
        at = at[~finished]
    return total, waited


def _noise_s(expected: float, each_s: float, r: Rhythm) -> float:
    """Standard deviation of the time that so many independent interruptions cost: the work since
    the last checkpoint, uniform in a segment, and an exponential time until the restart.
    """
    kinds = (1.0 - r.preempted) * r.detect_s**2 + r.preempted * r.wait_s**2
    spread = 2.0 * kinds - r.down_s**2
    square = (each_s / 2 + r.down_s + r.restart_s) ** 2 + each_s**2 / 12 + spread
    return math.sqrt(expected * square)
