"""Ageing of a cluster, and waiting for preempted capacity: laws, and wrong input."""

from itertools import pairwise, product

import numpy as np
import pytest

from roofcast.hwdb import failures
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.campaign.checkpoints import best
from roofcast.simulator.campaign.goodput import Rhythm, mean_s, simulated, simulated_s
from roofcast.simulator.campaign.terms import terms
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

HOUR, DAY = 3600.0, 86400.0
GRID = list(
    product(
        (2 * HOUR, DAY / 2, 4 * DAY, 30 * DAY),  # between interruptions
        (40.0, 600.0),  # to save
        (0.2, 0.9, 1.0),  # share of preemptions
        (600.0, 4 * HOUR),  # until capacity is back
    )
)
LIFE = 1461.0


def run_of(devices=512, **campaign):
    price = None if campaign.get("owned") else 1.5
    s = Scenario(model="gpt2", device="a100-sxm4-80gb", devices=devices, batch=512, tokens=3e12,
                 price_per_hour=price, campaign=campaign)  # fmt: skip
    return forecast(s)


@pytest.mark.parametrize("late", [0.0, 200.0])
def test_closed_form_and_simulation_agree_within_a_point_with_waiting(late):
    for i, (between, save, share, wait) in enumerate(GRID):
        every = max(best(save, between), late)
        work = 300 * every
        r = Rhythm(every, save, late, 300.0, 600.0, between, share, wait)
        times = simulated_s(np.full(200, work), r, np.full(200, between), seed=i, rounds=20_000)
        assert work / times.mean() == pytest.approx(work / mean_s(work, r), abs=0.01)


def test_many_interruptions_are_a_normal_distribution_with_waiting_too():
    r = Rhythm(600.0, 10.0, 0.0, 300.0, 400.0, 7200.0, 0.5, 2400.0)
    work, between, share = np.full(500, 2e6), np.full(500, 7200.0), np.full(500, 0.5)
    one_by_one, waited = simulated(work, r, between, share, seed=1, rounds=20_000)
    at_once, expected = simulated(work, r, between, share, seed=2)
    assert at_once.mean() == pytest.approx(one_by_one.mean(), rel=0.01)
    assert at_once.std() == pytest.approx(one_by_one.std(), rel=0.2)
    assert expected.mean() == pytest.approx(waited.mean(), rel=0.02) and waited.min() > 0


def test_waiting_lengthens_a_run_and_is_not_paid():
    found = [run_of(preemptions_per_hour=0.1, **more).campaign
             for more in ({}, {"wait": "0 s"}, {"wait": "10min"}, {"wait": "3 h"})]  # fmt: skip
    assert found[0] == found[1] and found[0].wait_s == 0.0
    assert all(a.time_s < b.time_s and a.days_high < b.days_high for a, b in pairwise(found[1:]))
    for c in found:
        parts = (c.steps_s, c.slow_s, c.eval_s, c.checkpoint_s, c.lost_s, c.detection_s, c.wait_s,
                 c.restart_s, c.start_s)  # fmt: skip
        assert sum(parts) == pytest.approx(c.time_s)
        held = c.time_s - c.wait_s
        assert c.device_hours == pytest.approx(c.devices * held / HOUR)
        assert c.cost_usd == pytest.approx(1.5 * c.device_hours, abs=0.01)
        assert c.cost_usd == pytest.approx(found[0].cost_usd, rel=1e-6)
    assert found[3].wait_s == pytest.approx(3 * HOUR * found[3].failures.preemptions)
    assert found[3].device_hours_low < found[3].device_hours < found[3].device_hours_high


def test_what_is_owned_loses_value_while_it_waits():
    short, long = (run_of(preemptions_per_hour=0.1, owned=True, wait=wait).campaign
                   for wait in ("0 s", "3 h"))  # fmt: skip
    assert long.device_hours == pytest.approx(short.device_hours, rel=1e-6)
    (fewer, less), (more, same) = ([line.usd for line in c.invoice] for c in (short, long))
    assert more / fewer == pytest.approx(long.time_s / short.time_s, rel=1e-4)
    assert same == pytest.approx(less, rel=1e-4)  # electricity, of devices that work


def test_failures_become_rarer_as_a_cluster_ages():
    plain = run_of()
    aged = [run_of(cluster_age=age) for age in (0, "30 d", "1 year", "4 years", "20years")]
    expected = [f.campaign.failures.expected for f in aged]
    assert expected == sorted(expected, reverse=True) and expected[0] > expected[-1]
    assert expected[0] > plain.campaign.failures.expected > expected[-1]
    times = [f.campaign.time_s for f in aged]
    assert times == sorted(times, reverse=True)
    said = [line for line in aged[1].assumptions if "as the cluster ages, 30 days old" in line]
    assert len(said) == 1 and not [line for line in plain.assumptions if "ages" in line]
    # a given rate falls alike
    given = [run_of(failure_rate=8.0, **more).campaign.failures.per_1000_node_days
             for more in ({}, {"cluster_age": "4 years"})]  # fmt: skip
    assert given[0] == 8.0
    share = given[1] / 8.0
    assert share == pytest.approx(
        aged[3].campaign.failures.per_1000_node_days / plain.campaign.failures.per_1000_node_days,
        rel=1e-3,
    )


def test_over_a_long_life_the_mean_rate_is_the_published_one():
    assert failures.aged(0.0, LIFE, LIFE) == pytest.approx(1.0)
    ends = np.array([0.0, 1.0, 20.0, 100.0, 500.0, LIFE])
    shares = [failures.aged(a, b - a, LIFE) * (b - a) / LIFE for a, b in pairwise(ends)]
    assert sum(shares) == pytest.approx(1.0)
    # a run that is short against the age has the rate of its moment: continuous in its length
    short, shorter = (failures.aged(1e5, days, LIFE) for days in (10.1, 9.9))
    assert shorter == pytest.approx(short, rel=1e-5)
    assert 0.7 <= failures.ageing().shape <= 0.8 and "schroeder2006" in failures.ageing().source


@pytest.mark.parametrize(
    ("campaign", "words"),
    [
        ({"cluster_age": "-3 d"}, "cluster_age '-3 d': a duration is wanted, for example 200 days"),
        ({"cluster_age": -1.0}, "a duration is wanted"),
        ({"cluster_age": "old"}, "a duration is wanted"),
        ({"cluster_age": "2000 years"}, "a duration is wanted"),
        ({"wait": "1 h"}, "add preemptions_per_hour"),
        ({"wait": "-1 h", "preemptions_per_hour": 0.1}, "wait '-1 h': a duration is wanted"),
    ],
)
def test_wrong_ages_and_waits_are_one_line(campaign, words):
    with pytest.raises(BadInput, match=words) as error:
        terms(campaign)
    assert "\n" not in str(error.value)
