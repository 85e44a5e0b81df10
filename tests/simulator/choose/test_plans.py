"""Plans of jobs on a pool: the integer program against every plan there is."""

import itertools
from random import Random

import pytest

from roofcast.simulator.choose.assign import solve
from roofcast.simulator.choose.pairs import Mode
from roofcast.simulator.choose.plans import (
    GOALS,
    Placed,
    Task,
    earliest,
    greedy,
    in_time,
    makespan,
    moved_up,
    score,
)


def pool(seed):
    """Tasks with whole times, and how many devices of each kind there are."""
    random = Random(seed)
    kinds = random.choice([1, 2, 2, 3])
    counts = [random.choice([1, 2, 2, 4]) for _ in range(kinds)]
    tasks = []
    for _ in range(random.choice([2, 3, 3, 4])):
        modes = []
        for kind, count in enumerate(counts):
            work = random.randint(1, 6)
            for n in (1, 2, 4):
                if n <= count and random.random() < 0.7:
                    time = float(-(-work // n))
                    modes.append(Mode(kind, n, time, n * time * random.choice([1, 2, 3])))
        deadline = random.choice([None, None, 2.0, 3.0, 4.0, 6.0])
        tasks.append(Task(tuple(modes), deadline, float(random.choice([1, 1, 2, 5]))))
    return tasks, counts


def best_of_all(tasks, counts, goal):
    """The best score of any plan: every order of the jobs, each in every mode or left out, as early
    as it can be. One of these is the best, since neither goal gains by waiting.
    """
    best = None
    for order in itertools.permutations(range(len(tasks))):
        for modes in itertools.product(*([None, *tasks[i].modes] for i in order)):
            plan = []
            for i, mode in zip(order, modes, strict=True):
                if mode is not None:
                    plan.append(Placed(i, mode, earliest(plan, mode, counts[mode.kind])))
            if all(in_time(p.end_s, tasks[p.job].deadline_s) for p in plan):
                found = score(tuple(plan), tasks, goal)
                best = found if best is None else min(best, found)
    return best


def is_possible(plan, tasks, counts):
    for p in plan:
        assert p.mode in tasks[p.job].modes and p.start_s >= 0
        assert in_time(p.end_s, tasks[p.job].deadline_s)
        for kind, count in enumerate(counts):
            here = [q for q in plan if q.mode.kind == kind]
            busy = sum(q.mode.devices for q in here if q.start_s <= p.start_s < q.end_s - 1e-6)
            assert busy <= count
    assert len({p.job for p in plan}) == len(plan)


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_is_as_good_as_the_best_of_all_plans_and_never_worse_than_greedy(seed):
    tasks, counts = pool(seed)
    for goal in GOALS:
        found = solve(tasks, counts, goal, slot_s=1.0)
        is_possible(found.plan, tasks, counts)
        is_possible(found.greedy, tasks, counts)
        ours, best = score(found.plan, tasks, goal), best_of_all(tasks, counts, goal)
        assert ours[:2] == pytest.approx(best[:2], abs=1e-6)
        assert ours <= score(found.greedy, tasks, goal)


@pytest.mark.parametrize("seed", range(8))
def test_slots_of_no_whole_length_make_a_possible_plan_no_worse_than_greedy(seed):
    random = Random(seed)
    tasks, counts = pool(seed)
    tasks = [
        t._replace(modes=tuple(m._replace(seconds=m.seconds * random.uniform(0.5, 1.5))
                               for m in t.modes))
        for t in tasks
    ]  # fmt: skip
    found = solve(tasks, counts, "makespan")
    is_possible(found.plan, tasks, counts)
    assert score(found.plan, tasks, "makespan") <= score(found.greedy, tasks, "makespan")


def test_moving_up_ends_no_job_later():
    one = Mode(0, 1, 2.0, 1.0)
    late = (Placed(0, one, 3.0), Placed(1, one, 3.0), Placed(2, one, 7.0))
    early = moved_up(late, [1])
    assert [p.start_s for p in early] == [0.0, 2.0, 4.0]
    assert [p.start_s for p in moved_up(late, [2])] == [0.0, 0.0, 2.0]


def test_greedy_takes_the_first_by_priority_and_leaves_out_what_is_late():
    one = Mode(0, 1, 2.0, 1.0)
    tasks = [Task((one,), 2.0, 1.0), Task((one,), 2.0, 5.0)]
    (placed,) = greedy(tasks, [1])
    assert placed.job == 1 and makespan((placed,)) == 2.0
