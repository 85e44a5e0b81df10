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

SLOTS = 48  # of the horizon
LIMIT_S = 12.0  # of each of the two programs
GAP = 1e-6  # relative, within which a plan is the best
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

    slot_s: length of a slot [s]. Default: the horizon, over SLOTS.
    """
    first = greedy(tasks, counts)
    last = _horizon(tasks, counts, first, goal)
    if not first and not any(t.modes for t in tasks):
        return Solved((), (), 0.0, True, 0.0)
    slot = slot_s or last / SLOTS
    program = _Program(tasks, counts, slot, int(np.ceil(last / slot * (1.0 - ROUND))))
    found = program.solve(goal)
    plan, best, gap = first, False, None
    if found is not None:
        starts, best, gap = found
        mine = moved_up(
            tuple(Placed(v.job, tasks[v.job].modes[v.mode], v.slot * slot) for v in starts), counts
        )
        if score(mine, tasks, goal) <= score(first, tasks, goal):
            plan = mine
    return Solved(tuple(sorted(plan, key=lambda p: (p.start_s, p.job))), first, slot, best, gap)


def _horizon(tasks: Sequence[Task], counts: Sequence[int], first: Plan, goal: str) -> float:
    """Seconds within which the best plan ends: where the greedy one finishes all jobs, its end;
    else long enough for the jobs that it left out too. For the least cost long enough for every
    job in its cheapest mode.
    """
    left = set(range(len(tasks))) - {p.job for p in first}
    open_ = [
        i for i in left if any(in_time(m.seconds, tasks[i].deadline_s) for m in tasks[i].modes)
    ]
    last = makespan(first)
    if goal == "cost":
        cheapest = [
            Task(tuple(sorted(t.modes, key=lambda m: (m.usd or 0.0, m.seconds))[:1]), None, 1.0)
            for t in tasks
        ]
        last = max(last, makespan(greedy(cheapest, counts)))
    if not open_:
        return last or 1.0
    every = greedy([t._replace(deadline_s=None) for t in tasks], counts)
    return max(last, makespan(every))


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

    def solve(self, goal: str) -> tuple[list[_Start], bool, float | None] | None:
        """The starts of the best plan, whether it is proven the best, and its gap; None where no
        plan was found in time.
        """
        if not self.starts:
            return None
        jobs = np.array([v.job for v in self.starts])
        priority = np.array([self.tasks[j].priority for j in jobs])
        scaled = priority / priority.max()
        rows = [*self._once(jobs), *self._devices()]
        first = _milp(-scaled, rows, len(self.starts))
        if first is None:
            return None
        done = float(-(scaled @ first.x))
        kept = (scaled, -done - 1e-6, np.inf)
        usd = np.array([self._mode(v).usd or 0.0 for v in self.starts])
        ends = np.array([v.slot * self.slot + self._mode(v).seconds for v in self.starts])
        ends, usd = ends / (self.slot * self.slots), usd / max(usd.max(), 1e-30)
        if goal == "cost":
            second = _milp(usd + 1e-6 * ends, [*rows, kept], len(self.starts))
        else:
            second = self._makespan(jobs, ends, [*rows, kept])
        last = second or first
        chosen = [
            v for v, x in zip(self.starts, last.x[: len(self.starts)], strict=True) if x > 0.5
        ]
        gap = float(last.gap) if second is not None else None
        proven = first.proven and second is not None and second.proven
        return chosen, proven, gap

    def _mode(self, v: _Start) -> Any:
        return self.tasks[v.job].modes[v.mode]

    def _once(self, jobs: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
        return [((jobs == j).astype(float), 0.0, 1.0) for j in sorted(set(jobs.tolist()))]

    def _devices(self) -> list[tuple[np.ndarray, float, float]]:
        kinds = np.array([self._mode(v).kind for v in self.starts])
        wanted = np.array([float(self._mode(v).devices) for v in self.starts])
        begin = np.array([v.slot for v in self.starts])
        end = begin + np.array([v.slots for v in self.starts])
        rows = []
        for kind in sorted(set(kinds.tolist())):
            for t in range(self.slots):
                row = np.where((kinds == kind) & (begin <= t) & (t < end), wanted, 0.0)
                if row.sum() > self.counts[kind]:
                    rows.append((row, 0.0, float(self.counts[kind])))
        return rows

    def _makespan(
        self, jobs: np.ndarray, ends: np.ndarray, rows: list[tuple[np.ndarray, float, float]]
    ) -> _Result | None:
        """The program with the makespan as one more variable."""
        wide = [(np.append(row, 0.0), low, high) for row, low, high in rows]
        for j in sorted(set(jobs.tolist())):
            wide.append((np.append(np.where(jobs == j, ends, 0.0), -1.0), -np.inf, 0.0))
        usd = np.array([self._mode(v).usd or 0.0 for v in self.starts])
        tie = 1e-6 * usd / max(usd.max() * len(self.tasks), 1e-30)
        return _milp(np.append(tie, 1.0), wide, len(self.starts))


class _Result(NamedTuple):
    """What HiGHS found."""

    x: np.ndarray
    proven: bool
    gap: float


def _milp(
    objective: np.ndarray, rows: list[tuple[np.ndarray, float, float]], whole: int
) -> _Result | None:
    """The least of a linear objective, the first `whole` variables being 0 or 1; None where
    nothing was found.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    matrix = csr_array(np.array([row for row, _, _ in rows]))
    limits = LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows])
    integral = np.zeros(len(objective))
    integral[:whole] = 1
    upper = np.where(integral > 0, 1.0, np.inf)
    found = milp(
        objective,
        integrality=integral,
        bounds=Bounds(np.zeros(len(objective)), upper),
        constraints=limits,
        options={"time_limit": LIMIT_S, "mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    return _Result(found.x, found.status == 0, float(found.mip_gap or 0.0))
