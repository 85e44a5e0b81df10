"""Elasticities of the step time: what each number of the hardware is worth."""

import itertools

import pytest

from roofcast.hwdb.constants import kernels, scaled
from roofcast.simulator.choose.sensitivity import sensitivity, together
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

MODELS = ("llama-3-8b", "resnet50", "bert-base", "mixtral-8x7b", "gpt2", "dlrm")
DEVICES = ("h100-sxm5", "v100-sxm2-16gb", "mi300x", "tpu-v5p", "i9-10940x")
LAYOUTS = (
    {"devices": 16, "tp": 8, "batch": 16},
    {"devices": 64, "tp": 2, "pp": 4, "zero": 1, "batch": 64},
    {"devices": 32, "zero": 3},
)
ONE = [Scenario(model=m, device=d) for m, d in itertools.product(MODELS, DEVICES)]
MANY = [Scenario(model="llama-3-8b", device="h100-sxm5", **layout) for layout in LAYOUTS]
ONE.append(Scenario(model="lenet", device="i9-10940x"))  # a twelfth of it is launches
MANY.append(Scenario(model="mixtral-8x7b", device="b200-sxm", devices=64, ep=8, batch=64))
IDS = [f"{s.model} on {s.devices or 1} {s.device}" for s in ONE + MANY]


@pytest.mark.parametrize("scenario", ONE + MANY, ids=IDS)
def test_elasticities_sum_to_minus_one(scenario):
    found = sensitivity(scenario)
    assert found.total == pytest.approx(-1.0, abs=0.02)
    assert all(e.elasticity < 0 if e.rate else e.elasticity > 0 for e in found.effects)
    assert found.effects[0].elasticity == max((e.elasticity for e in found.effects), key=abs)
    step = forecast(scenario).step_time_s
    assert found.forecast.step_time_s == step
    assert together(scenario, 2.0) == pytest.approx(step / 2, rel=0.01)


@pytest.mark.parametrize("scenario", ONE[::4] + MANY, ids=IDS[: len(ONE) : 4] + IDS[len(ONE) :])
def test_twice_as_good_saves_no_more_than_its_elasticity_over_the_whole_way(scenario):
    # the nearer another limit comes, the smaller the elasticity gets: t(2x) >= t(x) 2^-|e|
    found = sensitivity(scenario)
    for e in found.effects:
        most = found.forecast.step_time_s * (1 - 2 ** -abs(e.elasticity))
        assert -1e-9 <= e.better_s <= 1.02 * most + 1e-9
    first = found.effects[0]
    assert first.better_s > 0.4 * found.forecast.step_time_s * (1 - 2 ** -abs(first.elasticity))


def test_a_doubled_number_saves_what_predict_says():
    scenario = Scenario(model="llama-3-8b", device="h100-sxm5")
    found = {e.number: e for e in sensitivity(scenario).effects}
    changed = Scenario(model="llama-3-8b", device="h100-sxm5", set={"memory.bandwidth": "x2"})
    saved = forecast(scenario).step_time_s - forecast(changed).step_time_s
    assert found["memory.bandwidth"].better_s == pytest.approx(saved, rel=1e-9)


def test_a_scenario_with_changed_numbers_starts_from_them():
    scenario = Scenario(model="llama-3-8b", device="h100-sxm5", set={"memory.bandwidth": "8 TB/s"})
    found = {e.number: e for e in sensitivity(scenario).effects}
    assert found["memory.bandwidth"].value == 8e12


def test_host_bound_steps_are_worth_a_faster_host():
    first = sensitivity(Scenario(model="gpt2", device="v100-sxm2-16gb")).effects[0]
    assert first.number == "host: launch of a kernel"
    assert not first.rate and first.elasticity > 0.5


def test_scaled_constants_are_scaled_inside_the_block_only():
    before = kernels()
    with scaled({"matmul.latency": 2.0}):
        assert kernels().matmul.latency == 2 * before.matmul.latency
        assert kernels().matmul.tile == before.matmul.tile
    assert kernels() is before
    with pytest.raises(ZeroDivisionError), scaled({"matmul.latency": 2.0}):
        raise ZeroDivisionError
    assert kernels() is before
