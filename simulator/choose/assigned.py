"""The answer of `roofcast assign`: the plan, the greedy one beside it, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.market import RENTS
from roofcast.simulator.choose.assign import solve
from roofcast.simulator.choose.jobs import Job, Pooled, read_jobs, read_pool
from roofcast.simulator.choose.pairs import Mode, Pairs, pairs
from roofcast.simulator.choose.plans import GOALS, Plan, Task, cost, in_time, makespan, unfinished

DAY = 86400.0
ASSUMED = (
    "every job runs without pause, alone on its devices, from its start to its end; a node may be"
    " shared by jobs of a part of it each",
    "time: steps only, without failures, checkpoints, evaluation and start",
    "layouts: a coarse grid (roofcast search tries more); numbers of devices: parts of a node, then"
    " whole nodes by powers of two and three times these",
    "nodes and network: those of the usual system of each device",
)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the plan. SI units and USD; None where unknown."""

    job: str
    device: str
    devices: int
    start_s: float
    end_s: float
    time_s: float
    deadline_s: float | None = None
    priority: float
    cost_usd: float | None = None
    batch: int
    options: dict[str, Any]  # layout, as predict takes it


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A job that the plan leaves unfinished, and why."""

    job: str
    priority: float
    why: str
    refused: bool  # whether the pool cannot do it at all; else others go before it


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan comes to."""

    makespan_s: float
    cost_usd: float | None  # None: a price of a device that it uses is unknown
    finished: int  # jobs
    unfinished_priority: float


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind in the pool, and how much of the makespan they work."""

    device: str
    count: int
    used: float  # of the device-hours of the plan
    usd_per_hour: float | None
    price: str  # what it is the price of


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """What roofcast assign found."""

    goal: str
    plan: tuple[Run, ...]
    left: tuple[Left, ...]
    total: Total
    greedy: Total
    greedy_plan: tuple[Run, ...]
    pool: tuple[Held, ...]
    best: bool  # whether the plan is proven the best, times being rounded up to slots
    gap: float | None  # how far a better plan could lie below, of the goal
    slot_s: float
    layouts: int  # forecast
    assumptions: tuple[str, ...]


def assign_files(jobs: str | Path, pool: str | Path, goal: str = "makespan") -> Assigned:
    """The plan of the jobs of a file on the devices of another. Raises BadInput or UnknownName."""
    return assign(read_jobs(jobs), read_pool(pool), goal)


def assign(jobs: Sequence[Job], pool: Sequence[Pooled], goal: str = "makespan") -> Assigned:
    """Which job on which devices when. goal: what is least once the most priority is finished:
    "makespan" or "cost". Raises BadInput where no job can run on the pool.
    """
    if goal not in GOALS:
        raise unknown("goal", goal, GOALS, f"known: {', '.join(GOALS)}")
    found = pairs(jobs, pool)
    if not any(found.modes):
        first = _why(jobs[0], found, 0, pool)
        raise BadInput(f"job {jobs[0].name}: no device of the pool can run it: {first}")
    if goal == "cost":
        _check_prices(found, pool)
    tasks = [
        Task(modes, job.deadline_s, job.priority)
        for job, modes in zip(jobs, found.modes, strict=True)
    ]
    solved = solve(tasks, [entry.devices for entry in pool], goal)
    runs = _runs(solved.plan, jobs, pool, found)
    done = {p.job for p in solved.plan}
    left = tuple(_left(i, jobs[i], found, pool) for i in range(len(jobs)) if i not in done)
    whole = makespan(solved.plan)
    slots = f"times are rounded up to slots of {solved.slot_s / 3600:.3g} h to plan"
    return Assigned(
        goal=goal,
        plan=runs,
        left=left,
        total=_total(solved.plan, tasks),
        greedy=_total(solved.greedy, tasks),
        greedy_plan=_runs(solved.greedy, jobs, pool, found),
        pool=tuple(_held(i, entry, solved.plan, whole) for i, entry in enumerate(pool)),
        best=solved.best,
        gap=solved.gap,
        slot_s=solved.slot_s,
        layouts=found.layouts,
        assumptions=(*found.assumptions, *ASSUMED, f"{slots}; then each starts as early as it can"),
    )


def _check_prices(found: Pairs, pool: Sequence[Pooled]) -> None:
    used = {mode.kind for modes in found.modes for mode in modes if mode.usd is None}
    missing = [pool[i].device.id for i in sorted(used)]
    if missing:
        raise BadInput(
            f"--for cost: no price is known of {', '.join(missing)}; give it in the pool, for"
            f" example {missing[0]} = {{count = 8, usd-per-hour = 1.5}}"
        )


def _runs(plan: Plan, jobs: Sequence[Job], pool: Sequence[Pooled], found: Pairs) -> tuple[Run, ...]:
    return tuple(
        Run(
            job=jobs[p.job].name,
            device=pool[p.mode.kind].device.typed,
            devices=p.mode.devices,
            start_s=p.start_s,
            end_s=p.end_s,
            time_s=p.mode.seconds,
            deadline_s=jobs[p.job].deadline_s,
            priority=jobs[p.job].priority,
            cost_usd=p.mode.usd,
            batch=found.batches[p.job],
            options=p.mode.options,
        )
        for p in plan
    )


def _total(plan: Plan, tasks: Sequence[Task]) -> Total:
    known = all(p.mode.usd is not None for p in plan)
    return Total(
        makespan_s=makespan(plan),
        cost_usd=cost(plan) if known else None,
        finished=len(plan),
        unfinished_priority=unfinished(plan, tasks),
    )


def _held(kind: int, entry: Pooled, plan: Plan, whole: float) -> Held:
    busy = sum(p.mode.devices * p.mode.seconds for p in plan if p.mode.kind == kind)
    p = entry.price
    said = "no price is known"
    if p is not None:
        said = {"yours": "your price", "listed": "of the device's file"}.get(
            p.of_class,
            f"{RENTS[0]}, median of {p.providers} of class {p.of_class}, newest"
            f" {p.newest or 'not dated'}, hwdb/prices",
        )
    return Held(
        device=entry.device.id,
        count=entry.devices,
        used=busy / (entry.devices * whole) if whole else 0.0,
        usd_per_hour=entry.usd_per_hour,
        price=said,
    )


def _left(i: int, job: Job, found: Pairs, pool: Sequence[Pooled]) -> Left:
    modes = found.modes[i]
    refused, why = False, "jobs of more priority use the devices that it needs by its deadline"
    if not modes:
        refused, why = True, f"no device of the pool can run it: {_why(job, found, i, pool)}"
    elif not any(in_time(m.seconds, job.deadline_s) for m in modes):
        refused, why = True, _too_late(job, modes, pool)
    return Left(job=job.name, priority=job.priority, why=why, refused=refused)


def _too_late(job: Job, modes: Sequence[Mode], pool: Sequence[Pooled]) -> str:
    assert job.deadline_s is not None, "a job without a deadline is never late"
    fastest = min(modes, key=lambda m: m.seconds)
    entry, days = pool[fastest.kind], fastest.seconds / DAY
    wanted = -(-fastest.devices * fastest.seconds // job.deadline_s)
    return (
        f"the pool is too small for its deadline of {job.deadline_s / DAY:.3g} days:"
        f" {fastest.devices:,} {entry.device.id}, the fastest of it, take {days:.3g} days; about"
        f" {wanted:,.0f} of them would do"
    )


def _why(job: Job, found: Pairs, i: int, pool: Sequence[Pooled]) -> str:
    each = found.unable[i]
    why = {d.typed: each.get(d.id, each.get(d.typed, "")) for d in (entry.device for entry in pool)}
    return "; ".join(f"{device}: {text}" for device, text in why.items())
