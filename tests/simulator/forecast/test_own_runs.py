"""A user's own runs: laws of what they do to a forecast and its interval."""

import math

import pytest

from roofcast import predict
from roofcast.simulator.forecast.interval import Interval, Traits
from roofcast.simulator.forecast.own_runs import ALIKE, Own, alike, posterior, rescaled

T = Traits("d", "f", "m", "gpu", "s", "transformer", "train", "16-bit", "no", "one")
WIDE = Interval("a class", 0.1, 0.3)
SHARES = {"source": 0.3, "model": 0.4, "reach": 1.0, "degrees": 4.0, "level_80": 1.533}


def own(error, parameters=1e9, seconds=1.0, **changes):
    return Own(T._replace(**changes), parameters, seconds, error)


def test_one_run_shifts_by_the_share_that_its_source_and_model_have():
    found = posterior((1e9, 1.0), [own(0.2)], WIDE, SHARES)
    assert found.shift == pytest.approx(0.7 * 0.2)
    assert found.bias == pytest.approx(0.3 * 0.1)


def test_a_run_of_another_model_shifts_by_the_share_of_the_source():
    assert posterior((1e9, 1.0), [own(0.2, 2e9)], WIDE, SHARES).shift == pytest.approx(0.06)


def test_more_agreeing_runs_shift_further_and_narrow_more():
    found = [posterior((1e9, 1.0), [own(0.1)] * n, WIDE, SHARES) for n in (1, 2, 3, 30)]
    shifts, narrowing = [f.shift for f in found], [f.narrowing for f in found]
    assert shifts == sorted(shifts) and narrowing == sorted(narrowing, reverse=True)
    assert shifts[-1] < 0.1 and narrowing[0] < 1.0


def test_a_run_that_takes_much_longer_says_less():
    near, far = (posterior((1e9, 1.0), [own(0.2, seconds=s)], WIDE, SHARES) for s in (1.1, 10.0))
    assert 0.0 < far.shift < near.shift and far.narrowing > near.narrowing


def test_runs_that_contradict_each_other_narrow_less():
    def narrowing(*errors):
        return posterior((1e9, 1.0), [own(e) for e in errors], WIDE, SHARES).narrowing

    assert narrowing(0.3, -0.3, 0.0) > narrowing(0.01, -0.01, 0.0)


def test_runs_count_only_where_they_are_alike():
    assert ALIKE == ("device", "stack", "model_kind", "mode", "format", "host_bound")
    others = [own(0.0, **{key: "other"}) for key in ALIKE]
    assert alike([*others, own(0.0), own(0.0, scale="node")], T) == [
        own(0.0),
        own(0.0, scale="node"),
    ]


def test_all_times_of_a_forecast_are_multiplied_and_nothing_else():
    f = predict("gpt2", device="h100-sxm5", batch=8, tokens="1B", price_per_hour=2.0)
    g = rescaled(f, 1.25)
    assert g.step_time_s == pytest.approx(1.25 * f.step_time_s)
    assert g.samples_per_s * g.step_time_s == pytest.approx(8)
    assert g.mfu * 1.25 == pytest.approx(f.mfu) and g.cost_usd == pytest.approx(1.25 * f.cost_usd)
    layers = math.fsum(layer.time_s for layer in f.layers)
    assert math.fsum(layer.time_s for layer in g.layers) == pytest.approx(1.25 * layers)
    assert (g.lower_bound_s, g.memory, g.power_w) == (f.lower_bound_s, f.memory, f.power_w)
