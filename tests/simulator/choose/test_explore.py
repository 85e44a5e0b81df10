"""roofcast search: the layouts of a model, each as predict forecasts it."""

import itertools

import msgspec
import numpy as np
import pytest

from roofcast import Scenario, predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.choose import explore as explored
from roofcast.simulator.choose.explore import explore
from roofcast.simulator.choose.front import front
from roofcast.simulator.choose.nearest import nearest_fit
from roofcast.simulator.forecast.chain import forecast

CASES = {
    "llama-3-8b": ({"device": "h100-sxm5", "batch": 64}, 16),
    "mixtral-8x7b": ({"device": "b200-sxm", "batch": 64, "stack": "te-nemo-2024"}, 16),
    "gemma-2-9b": ({"device": "tpu-v5p", "batch": 64}, 32),
    "mamba-2.8b": ({"device": "a100-sxm4-80gb", "batch": 32}, 8),
    "resnet50": ({"device": "mi300x", "batch": 512}, 8),
    "bert-large": ({"device": "v100-sxm2-32gb", "batch": 64, "sequence": 128}, 12),
    "gpt2-xl": ({"device": "rtx-4090", "batch": 16}, 4),
    "llama-2-7b": ({"device": "h200-sxm", "batch": 8, "mode": "infer", "sequence": 16384}, 8),
}


@pytest.fixture(scope="module", params=CASES)
def found(request):
    asked, devices = CASES[request.param]
    return explore(Scenario(model=request.param, **asked), devices)


def test_a_layout_is_forecast_as_predict_forecasts_it(found):
    rng = np.random.default_rng(1)
    assert len(found.options) >= 10
    for i in rng.permutation(len(found.options))[:25].tolist():
        f = predict(found.scenario_of(i))
        assert found.step_s[i] == pytest.approx(f.step_time_s, rel=1e-9), found.options[i]
        assert found.peak_bytes[i] == pytest.approx(f.memory.peak_bytes, rel=1e-9)
        assert bool(found.fits[i]) == f.memory.fits


def test_no_layout_is_considered_twice(found):
    keys = [tuple(sorted(o.items())) for o in found.options]
    assert len(set(keys)) == len(keys)


def test_the_best_are_the_fastest_that_fit(found):
    best = found.best(10)
    assert found.fits[best].all() and (np.diff(found.step_s[best]) >= 0).all()
    if best:
        assert found.step_s[best[0]] == found.step_s[found.fits].min()


def test_no_layout_beats_one_of_the_front_and_every_other_is_beaten(found):
    on = found.front()
    assert on == sorted(on, key=lambda i: found.step_s[i])
    points = np.column_stack([found.step_s, found.peak_bytes])
    for i in range(len(points)):
        beaten = [j for j in on if (points[j] <= points[i]).all()]
        assert beaten if i not in on else beaten == [i]


def test_what_a_scenario_says_of_a_layout_holds_for_all():
    found = explore(Scenario(model="llama-3-8b", device="h100-sxm5", batch=32, tp=2, zero=1), 8)
    assert {(o["tp"], o["zero"]) for o in found.options} == {(2, 1)}


def test_a_batch_that_no_layout_divides_is_rejected_with_one_that_would_do():
    with pytest.raises(BadInput, match="multiple of 7"):
        explore(Scenario(model="resnet50", device="h100-sxm5", batch=8), 7)


def test_a_grid_of_too_many_layouts_is_rejected_with_their_number():
    with pytest.raises(BadInput, match=r"1,000,000,000,000 layouts.* 2,000,000 at most"):
        explored.refuse_more_than(explored.MOST, 10**12)


def test_columns_of_the_front_are_compared_by_brute_force():
    points = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(float)
    on = front(points).tolist()
    for i, p in enumerate(points):
        better = [q for q in points if (q <= p).all() and (q < p).any()]
        assert (i in on) == (not better) or any((points[j] == p).all() for j in on if j != i)


def test_unknown_numbers_are_on_no_front():
    assert front(np.array([[1.0, np.nan], [np.inf, 0.0], [2.0, 2.0]])).tolist() == [2]


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({"model": "llama-3-8b", "device": "h100-sxm5", "devices": 8, "batch": 8}, {"zero"}),
        ({"model": "llama-2-13b", "device": "a100-sxm4-80gb", "devices": 8, "batch": 8}, None),
        ({"model": "bert-large", "device": "rtx-4090", "batch": 64}, None),
        ({"model": "llama-3-8b", "device": "h100-sxm5", "batch": 8, "lora": 16}, {"micro_batch"}),
    ],
)
def test_the_nearest_layout_that_fits_is_one_and_changes_as_little_as_can_be(asked, changed):
    scenario = Scenario(**asked)
    found = forecast(scenario)
    if found.memory.fits:
        pytest.skip("it fits")
    near = nearest_fit(scenario, found)
    assert near is not None and (changed is None or set(near.changes) == changed)
    fields = {k: v for k, v in near.changes.items() if k != "dp"}
    f = predict(msgspec.structs.replace(scenario, **fields))
    assert f.memory.fits and f.step_time_s == pytest.approx(near.step_s, rel=1e-9)
    for name, value in itertools.islice(fields.items(), len(fields) if len(fields) > 1 else 0):
        alone = predict(msgspec.structs.replace(scenario, **{name: value}))
        assert not alone.memory.fits, name
