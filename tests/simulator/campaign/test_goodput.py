"""Runs with failures: the closed form against the simulation, and the interval of checkpoints."""

import math
from itertools import product

import numpy as np
import pytest

from roofcast.simulator.campaign.checkpoints import available, best, daly, young
from roofcast.simulator.campaign.goodput import Rhythm, failures, mean_s, simulated_s

DAY = 86400.0
GRID = list(
    product(
        (7200.0, DAY / 2, 4 * DAY, 30 * DAY, 365 * DAY),  # between failures
        (1.0, 40.0, 300.0, 600.0, 1200.0),  # to save
        (120.0, 900.0),  # to restart
        ((0.0, 0.0), (600.0, 200.0)),  # until detection, and until an asynchronous save counts
    )
)


def test_closed_form_and_simulation_agree_within_a_point_on_a_grid_of_100():
    assert len(GRID) == 100
    for i, (between, save, restart, (detect, late)) in enumerate(GRID):
        every = max(best(save, between), late)
        work = 300 * every
        r = Rhythm(every, save, late, detect, restart, between)
        times = simulated_s(np.full(200, work), r, np.full(200, between), seed=i, rounds=20_000)
        assert work / times.mean() == pytest.approx(work / mean_s(work, r), abs=0.01)


@pytest.mark.parametrize(("between", "save"), [(2 * 3600.0, 60.0), (12 * 3600.0, 300.0)])
def test_best_interval_equals_brute_force_over_the_simulation(between, save):
    found = best(save, between)
    work, tried = 300 * found, found * np.geomspace(0.25, 4.0, 25)
    means = [
        simulated_s(
            np.full(300, work),
            Rhythm(t, save, 0.0, 60.0, 300.0, between),
            np.full(300, between),
            rounds=20_000,
        ).mean()
        for t in tried
    ]
    # the shortest of the tried intervals, by a parabola through the logarithms near the minimum
    a, b, _ = np.polyfit(np.log(tried / found), means, 2)
    assert math.exp(-b / (2 * a)) == pytest.approx(1.0, abs=0.25)
    r = Rhythm(found, save, 0.0, 60.0, 300.0, between)
    at_best = simulated_s(np.full(300, work), r, np.full(300, between), rounds=20_000).mean()
    assert at_best <= min(means) * 1.01


def test_best_interval_is_the_minimum_of_the_closed_form():
    for between, save in ((3600.0, 10.0), (3600.0, 1800.0), (1e6, 40.0)):
        found = best(save, between)

        def rate(t, between=between, save=save):
            return math.expm1((t + save) / between) / t

        assert rate(found) <= min(rate(0.99 * found), rate(1.01 * found))


def test_published_forms_of_the_interval():
    # Young's first order; Daly's higher order close to the exact one; Saxena et al.'s with recovery
    assert young(40.0, 360000.0) == pytest.approx(5366.6, abs=0.1)
    assert daly(40.0, 360000.0) == pytest.approx(best(40.0, 360000.0), rel=1e-3)
    assert daly(10.0, 4.0) == 4.0
    wanted = math.sqrt(2 * (360000.0 + 600.0) * 40.0 + 1600.0)
    assert available(40.0, 360000.0, 600.0) == pytest.approx(wanted)
    # where saving and recovery are short, all agree
    assert young(1.0, 1e6) == pytest.approx(available(1.0, 1e6, 10.0), rel=1e-2)


def test_without_failures_a_run_is_its_work_and_its_checkpoints():
    r = Rhythm(1000.0, 10.0, 0.0, 300.0, 300.0, math.inf)
    assert mean_s(10_000.0, r) == 10_100.0
    assert failures(10_000.0, r) == 0.0
    assert simulated_s(np.full(3, 10_000.0), r, np.full(3, math.inf)) == pytest.approx(10_100.0)


def test_more_failures_never_shorten_a_run():
    base = Rhythm(3600.0, 40.0, 0.0, 300.0, 300.0, math.inf)
    times = [mean_s(1e6, base._replace(between_s=m)) for m in (math.inf, 1e6, 1e5, 1e4, 4e3)]
    assert times == sorted(times)
    assert mean_s(1e6, base._replace(between_s=1.0)) == math.inf


def test_many_failures_are_a_normal_distribution_with_the_mean_and_spread_of_the_simulation():
    r = Rhythm(600.0, 10.0, 0.0, 300.0, 400.0, 7200.0)
    work, between = np.full(500, 2e6), np.full(500, 7200.0)
    one_by_one = simulated_s(work, r, between, seed=1, rounds=20_000)
    at_once = simulated_s(work, r, between, seed=2)
    assert at_once.mean() == pytest.approx(one_by_one.mean(), rel=0.005)
    assert at_once.std() == pytest.approx(one_by_one.std(), rel=0.2)
