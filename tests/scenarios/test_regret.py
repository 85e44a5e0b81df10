"""Regret of choosing by forecasts."""

import math

import pytest

from roofcast import Scenario
from roofcast.scenarios.measured.regret import by_source, regrets, summary, without_source
from roofcast.scenarios.measured.scores import Scored
from roofcast.scenarios.measured.training import LlmRun
from roofcast.simulator.forecast.interval import residuals


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


def test_a_configuration_that_was_run_again_counts_once_with_its_median():
    again = [*GROUP, run(1.0, 2.4, tp=1), run(1.0, 2.2, tp=1)]  # 2.0, 2.2 and 2.4
    (found,) = regrets(again)
    assert found.regret == pytest.approx(1.2) and (found.agreeing, found.pairs) == (2, 3)


def test_what_is_forecast_not_to_fit_is_not_chosen():
    full = GROUP[0]._replace(fits=False)
    assert regrets([full, *GROUP[1:]])[0].regret == 0.0
    assert regrets([r._replace(fits=False) for r in GROUP])[0].regret == pytest.approx(1.0)


def test_equal_forecasts_order_a_pair_neither_way():
    (found,) = regrets([run(1.0, t, tp=n) for t, n in ((1.0, 1), (2.0, 2), (4.0, 4))])
    assert (found.agreeing, found.pairs) == (1.5, 3)


def test_machines_before_and_after_a_change_are_two_groups():
    def at(state, r):
        return r._replace(run=r.run._replace(row={"state": state}))

    assert len(regrets([at("a", r) for r in GROUP] + [at("b", r) for r in GROUP])) == 2
    assert not regrets([at("a", GROUP[0]), at("b", GROUP[1]), at("b", GROUP[2])])


def test_forecasts_without_the_source_are_those_of_the_left_out_runs():
    known = residuals()
    i = next(i for i, e in enumerate(known.left_out["source"]) if not math.isnan(e))
    seconds, source = float(known.seconds[i]), str(known.source[i])
    here = run(seconds / math.exp(known.error[i]), seconds, source)
    (found,) = without_source([here, run(1.0, 2.0, "nobody")], known)
    alone = seconds / math.exp(known.left_out["source"][i])
    assert found.predicted_s == pytest.approx(alone, rel=1e-4)
