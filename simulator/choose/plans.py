"""Plans of jobs on a pool: how they are scored, the greedy one, and one moved up.

Every job runs without pause, alone on its devices. A plan is better that leaves less priority
unfinished, then by its goal: the makespan, or the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roofcast.simulator.choose.pairs import Mode

GOALS = ("makespan", "cost")
CLOSE = 1e-9  # relative difference of two times that are one


class Placed(NamedTuple):
    """A job in a plan."""

    job: int
    mode: Mode
    start_s: float

    @property
    def end_s(self) -> float:
        """When it is finished, from now [s]."""
        return self.start_s + self.mode.seconds


class Task(NamedTuple):
    """What a plan needs to know of a job."""

    modes: tuple[Mode, ...]
    deadline_s: float | None
    priority: float


Plan = tuple[Placed, ...]


def makespan(plan: Plan) -> float:
    """Seconds until the last job is finished."""
    return max((p.end_s for p in plan), default=0.0)


def cost(plan: Plan) -> float:
    """USD of the jobs whose price is known."""
    return sum(p.mode.usd or 0.0 for p in plan)


def unfinished(plan: Plan, tasks: Sequence[Task]) -> float:
    """Priority of the jobs that a plan leaves out."""
    done = {p.job for p in plan}
    return sum(task.priority for i, task in enumerate(tasks) if i not in done)


def score(plan: Plan, tasks: Sequence[Task], goal: str) -> tuple[float, float, float]:
    """What a plan is compared by, less is better: unfinished priority, the goal, the other goal."""
    both = {"makespan": makespan(plan), "cost": cost(plan)}
    other = next(name for name in GOALS if name != goal)
    return unfinished(plan, tasks), both[goal], both[other]


def earliest(placed: Sequence[Placed], mode: Mode, count: int) -> float:
    """The first time at which a mode's devices are free for as long as it takes [s]."""
    here = [p for p in placed if p.mode.kind == mode.kind]
    for start in sorted({0.0, *(p.end_s for p in here)}):
        end = start + mode.seconds
        over = [p for p in here if _before(p.start_s, end) and _before(start, p.end_s)]
        moments = [start, *(p.start_s for p in over if _before(start, p.start_s))]
        busy = max(
            sum(p.mode.devices for p in over if not _before(t, p.start_s) and _before(t, p.end_s))
            for t in moments
        )
        if busy + mode.devices <= count:
            return start
    raise AssertionError("behind all others a mode's devices are free")


def _before(a: float, b: float) -> bool:
    return a < b * (1.0 - CLOSE)


def greedy(tasks: Sequence[Task], counts: Sequence[int]) -> Plan:
    """Jobs by priority, then deadline, each where it is finished first; left out where that is
    behind its deadline.
    """
    order = sorted(
        range(len(tasks)),
        key=lambda i: (-tasks[i].priority, tasks[i].deadline_s or float("inf"), i),
    )
    plan: list[Placed] = []
    for i in order:
        task = tasks[i]
        each = [Placed(i, m, earliest(plan, m, counts[m.kind])) for m in task.modes]
        each = [p for p in each if in_time(p.end_s, task.deadline_s)]
        if each:
            plan.append(min(each, key=lambda p: (p.end_s, p.mode.usd or 0.0, p.mode.devices)))
    return tuple(plan)


def in_time(end_s: float, deadline_s: float | None) -> bool:
    """Whether a job that is finished then meets its deadline."""
    return deadline_s is None or end_s <= deadline_s * (1.0 + CLOSE)


def moved_up(plan: Plan, counts: Sequence[int]) -> Plan:
    """The plan with every job as early as it can be, in the order of their starts; no job ends
    later than before.
    """
    found: list[Placed] = []
    for p in sorted(plan, key=lambda p: (p.start_s, p.job)):
        found.append(p._replace(start_s=earliest(found, p.mode, counts[p.mode.kind])))
    return tuple(found)
