"""`roofcast assign`: which job on which devices when, by an integer program.

    x[j, m, s] = 1 where job j starts in mode m in slot s of the horizon
    sum over m, s of x[j, m, s] <= 1                                     for every job
    sum of devices of m over the x that run in slot t <= devices there   for every kind and slot

First the most priority is finished (by its deadline), then the goal is least: the makespan C, with
C >= end of every job, or the cost. Times are rounded up to slots, so that a plan is possible; then
every job is moved as early as it can be, with its own seconds. The program is solved by HiGHS
[huangfu2018].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from roofcast.simulator.choose.plans import (
    Placed,
    Plan,
    Task,
    greedy,
    in_time,
    makespan,
    moved_up,
    score,
)

SLOTS, FEWEST = 48, 12  # of the horizon, at most and at least
VARIABLES = 20_000  # of a program, about: a job may start in every slot in every mode
LIMIT_S = 10.0  # of HiGHS for each of the two goals
GAP = 1e-6  # relative, within which a plan is the best
TIE = 1e-6  # of the goal: decides between plans that are as good
ROUND = 1e-9  # relative: a time that ends with its slot does not need the next


class Solved(NamedTuple):
    """A plan, the greedy one beside it, and how good the plan is proven to be."""

    plan: Plan
    greedy: Plan
    slot_s: float
    best: bool  # proven the best on its slots
    gap: float | None  # how far below the plan's goal its bound lies, of the goal; None: unknown


class _Start(NamedTuple):
    """A variable of the program: a job starts in a mode in a slot."""

    job: int
    mode: int
    slot: int
    slots: int  # that it takes


def solve(
    tasks: Sequence[Task], counts: Sequence[int], goal: str, slot_s: float | None = None
) -> Solved:
    """The best plan of tasks on a pool with so many devices of each kind.

    slot_s: length of a slot [s]. Default: the horizon, over SLOTS, or fewer where there are many
    modes.
    """
    plan = first = greedy(tasks, counts)
    modes = sum(len(t.modes) for t in tasks)
    if not modes:
        return Solved((), (), 0.0, True, 0.0)
    best, gap, slot = False, None, 0.0
    each = min(max(VARIABLES // modes, FEWEST), SLOTS)
    horizons = _horizons(tasks, counts, first, goal)
    for last in horizons:
        slot = slot_s or last / each
        program = _Program(tasks, counts, slot, int(np.ceil(last / slot * (1.0 - ROUND))))
        found = program.solve(goal, LIMIT_S / len(horizons))
        if found is None:
            best, gap = False, None
            continue
        starts, proven, left = found
        mine = moved_up(
            tuple(Placed(v.job, tasks[v.job].modes[v.mode], v.slot * slot) for v in starts), counts
        )
        better = score(mine, tasks, goal) <= score(plan, tasks, goal)
        plan, best, gap = (mine, proven, left) if better else (plan, False, None)
    return Solved(tuple(sorted(plan, key=lambda p: (p.start_s, p.job))), first, slot, best, gap)


def _horizons(
    tasks: Sequence[Task], counts: Sequence[int], first: Plan, goal: str
) -> tuple[float, ...]:
    """Seconds within which the best plan ends: where the greedy one finishes all jobs, its end;
    else long enough for the jobs that it left out too. The least cost may need longer, for every
    job in its cheapest mode: that is tried second, with longer slots.
    """
    left = set(range(len(tasks))) - {p.job for p in first}
    last = makespan(first)
    if any(in_time(m.seconds, tasks[i].deadline_s) for i in left for m in tasks[i].modes):
        every = greedy([t._replace(deadline_s=None) for t in tasks], counts)
        last = max(last, makespan(every))
    last = last or 1.0
    if goal != "cost":
        return (last,)
    cheapest = [
        Task(tuple(sorted(t.modes, key=lambda m: (m.usd or 0.0, m.seconds))[:1]), None, 1.0)
        for t in tasks
    ]
    longer = makespan(greedy(cheapest, counts))
    return (last, longer) if longer > last else (last,)


class _Program:
    """The integer program of a plan."""

    def __init__(
        self, tasks: Sequence[Task], counts: Sequence[int], slot: float, slots: int
    ) -> None:
        self.tasks, self.counts, self.slot, self.slots = tasks, counts, slot, slots
        self.starts = [
            _Start(j, m, s, taken)
            for j, task in enumerate(tasks)
            for m, mode in enumerate(task.modes)
            for taken in [max(int(np.ceil(mode.seconds / slot * (1.0 - ROUND))), 1)]
            for s in range(slots - taken + 1)
            if in_time(s * slot + mode.seconds, task.deadline_s)
        ]

    def solve(self, goal: str, limit_s: float) -> tuple[list[_Start], bool, float | None] | None:
        """The starts of the best plan, whether it is proven the best, and its gap; None where no
        plan was found in time.
        """
        if not self.starts:
            return None
        jobs = np.array([v.job for v in self.starts])
        priority = np.array([self.tasks[j].priority for j in jobs])
        scaled = priority / priority.max()
        rows = self._once(jobs) + self._devices()
        first = _milp(-scaled, rows, len(self.starts), limit_s)
        if first is None:
            return None
        kept = _Row(np.arange(len(jobs)), scaled, float(scaled @ first.x) - 1e-6, np.inf)
        usd = np.array([self._mode(v).usd or 0.0 for v in self.starts])
        usd = usd / max(usd.max(), 1e-30)
        ends = np.array([v.slot * self.slot + self._mode(v).seconds for v in self.starts])
        ends = ends / (self.slot * self.slots)
        if goal == "cost":
            objective, rows = usd + TIE * ends, [*rows, kept]
        else:  # the makespan is one more variable
            objective, rows = np.append(TIE * usd, 1.0), [*rows, kept, *_behind(jobs, ends)]
        second = _milp(objective, rows, len(self.starts), limit_s)
        last = second or first
        chosen = [v for v, x in zip(self.starts, last.x, strict=False) if x > 0.5]
        if second is None:
            return chosen, False, None
        return chosen, first.proven and second.proven, second.gap

    def _mode(self, v: _Start) -> Any:
        return self.tasks[v.job].modes[v.mode]

    def _once(self, jobs: np.ndarray) -> list[_Row]:
        """A job starts once at most."""
        each = (np.flatnonzero(jobs == j) for j in sorted(set(jobs.tolist())))
        return [_Row(places, np.ones(len(places)), 0.0, 1.0) for places in each]

    def _devices(self) -> list[_Row]:
        """Devices that run, of every kind in every slot."""
        kinds = np.array([self._mode(v).kind for v in self.starts])
        wanted = np.array([float(self._mode(v).devices) for v in self.starts])
        begin = np.array([v.slot for v in self.starts])
        end = begin + np.array([v.slots for v in self.starts])
        rows = []
        for kind in sorted(set(kinds.tolist())):
            for t in range(self.slots):
                places = np.flatnonzero((kinds == kind) & (begin <= t) & (t < end))
                if wanted[places].sum() > self.counts[kind]:
                    rows.append(_Row(places, wanted[places], 0.0, float(self.counts[kind])))
        return rows


class _Row(NamedTuple):
    """A constraint: low <= values at the places of the variables <= high."""

    places: np.ndarray
    values: np.ndarray
    low: float
    high: float


def _behind(jobs: np.ndarray, ends: np.ndarray) -> list[_Row]:
    """The makespan, the last variable, is behind the end of every job."""
    rows = []
    for j in sorted(set(jobs.tolist())):
        places = np.flatnonzero(jobs == j)
        values = np.append(ends[places], -1.0)
        rows.append(_Row(np.append(places, len(jobs)), values, -np.inf, 0.0))
    return rows


class _Result(NamedTuple):
    """What HiGHS found."""

    x: np.ndarray
    proven: bool
    gap: float


def _milp(objective: np.ndarray, rows: list[_Row], whole: int, limit_s: float) -> _Result | None:
    """The least of a linear objective, the first `whole` variables being 0 or 1; None where
    nothing was found.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    values = np.concatenate([row.values for row in rows])
    places = np.concatenate([row.places for row in rows])
    begins = np.concatenate([[0], np.cumsum([len(row.places) for row in rows])])
    matrix = csr_array((values, places, begins), shape=(len(rows), len(objective)))
    limits = LinearConstraint(matrix, [row.low for row in rows], [row.high for row in rows])
    integral = np.zeros(len(objective))
    integral[:whole] = 1
    upper = np.where(integral > 0, 1.0, np.inf)
    found = milp(
        objective,
        integrality=integral,
        bounds=Bounds(np.zeros(len(objective)), upper),
        constraints=limits,
        options={"time_limit": limit_s, "mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    return _Result(found.x, found.status == 0, float(found.mip_gap or 0.0))
