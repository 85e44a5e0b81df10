"""Regret of choosing by forecasts."""

import pytest

from roofcast import Scenario
from roofcast.scenarios.measured.regret import by_source, regrets, summary
from roofcast.scenarios.measured.scores import Scored
from roofcast.scenarios.measured.training import LlmRun


def run(predicted, measured, source="a", batch=64, **layout):
    s = Scenario(model="gpt2", device="h100-sxm5", batch=batch, devices=8, **layout)
    row = LlmRun("x", source, "A", "dense", s, "", "", measured, None, "", False, (), {})
    return Scored(row, predicted_s=predicted)


GROUP = [run(1.0, 2.0, tp=1), run(2.0, 1.0, tp=2), run(3.0, 3.0, tp=4)]


def test_regret_is_the_measured_time_of_what_is_forecast_fastest_over_the_best():
    (found,) = regrets(GROUP)
    assert found.regret == pytest.approx(1.0) and found.runs == 3
    assert (found.agreeing, found.pairs) == (2, 3)


def test_fewer_than_three_layouts_are_no_group():
    assert not regrets(GROUP[:2]) and not regrets([run(1, 1), run(1, 2), run(1, 3)])


def test_other_batches_and_sources_are_other_groups():
    other = [r for b in (32, 96) for r in (run(1.0, 1.0, "b", b, tp=t) for t in (1, 2, 4))]
    found = regrets(GROUP + other)
    assert [line.groups for line in by_source(found)] == [1, 2, 3]
    assert summary(found, "b").median == 0.0 and summary(found, "b").tau is None


def test_perfect_forecasts_have_no_regret_and_reversed_ones_the_most():
    times = [1.0, 2.0, 4.0]
    perfect = [run(t, t, tp=n) for t, n in zip(times, (1, 2, 4), strict=True)]
    reverse = [run(1 / t, t, tp=n) for t, n in zip(times, (1, 2, 4), strict=True)]
    assert summary(regrets(perfect)).tau == 1 and summary(regrets(perfect)).median == 0
    assert summary(regrets(reverse)).tau == -1 and summary(regrets(reverse)).median == 3


def test_runs_that_do_not_count_are_left_out():
    none = run(1.0, None, tp=8)
    assert regrets([*GROUP, none])[0].runs == 3
