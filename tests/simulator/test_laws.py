"""Laws of whole forecasts: properties that hold on every device, without reference values."""

import math

import pytest
from kinds import KINDS_OF_DEVICES, TRAINING, kind_of_device, one_in_turn

from roofcast import hwdb, predict

STEPS = {
    "transformer in 16 bits": {"model": "gpt2", "batch": 2, "sequence": 256},
    "convolutions in fp32": {"model": "resnet18", "batch": 4, "precision": "fp32"},
}


def datasheet_rates(device):
    """Names of the rates that the device has, as edits name them."""
    yield "memory.bandwidth"
    yield from (f"peak_flops.{name}" for name in device.peak_flops)
    yield from (f"vector_flops.{name}" for name in device.vector_flops)
    if device.clock:
        yield "clock"


ON_EACH = one_in_turn(hwdb.devices(), STEPS.values(), kind_of_device)


@pytest.mark.parametrize("name", hwdb.devices())
def test_doubling_a_rate_never_makes_a_step_slower_or_more_than_twice_as_fast(name):
    """Every step and rate on the first device of a kind, some in turn on its others."""
    device = hwdb.device(name)
    rates, turn = list(datasheet_rates(device)), hwdb.devices().index(name)
    rates = rates if name in KINDS_OF_DEVICES else rates[turn % 3 :: 3]
    of_int8 = set(device.peak_flops) == {"int8"}  # a chip for inference
    for asked in ON_EACH[name]:
        asked = {**asked, "mode": "infer", "precision": "int8"} if of_int8 else asked
        before = predict(device=name, **asked)
        assert math.isfinite(before.step_time_s) and 0 < before.lower_bound_s <= before.step_time_s
        for rate in rates:
            after = predict(device=name, set={rate: "x2"}, **asked)
            change = f"{rate} doubled: {before.step_time_s} -> {after.step_time_s} s"
            assert after.step_time_s <= before.step_time_s * (1 + 1e-9), change
            assert after.step_time_s >= 0.5 * before.step_time_s * (1 - 1e-9), change


LARGE = [  # steps that long matrix products limit, where the board's power can
    {"model": "llama-2-7b", "batch": 2, "sequence": 1024},
    {"model": "llama-65b", "batch": 8, "mode": "infer"},
]
LARGE_ON_EACH = one_in_turn(TRAINING, LARGE, kind_of_device)


@pytest.mark.parametrize("name", TRAINING)
def test_all_rates_doubled_make_a_large_step_at_most_twice_as_fast(name):
    """Hypothetical rates inherit achieved fractions, also those that the board's power allows.

    Only GeForce boards, which run above their printed clock, may beat their lower bound.
    """
    device = hwdb.device(name)
    rates = {rate: "x2" for rate in datasheet_rates(device)}
    for asked in LARGE_ON_EACH[name]:
        before, after = (predict(device=name, set=s, **asked) for s in ({}, rates))
        assert before.step_time_s / after.step_time_s <= 2 * (1 + 1e-9)
        assert after.step_time_s <= before.step_time_s
        assert "GeForce" in device.name or before.lower_bound_s <= before.step_time_s


@pytest.mark.parametrize("name", ["h100-sxm5", "rtx-3090", "tpu-v4", "xeon", "mi300x", "m2-ultra"])
@pytest.mark.parametrize("model", ["gpt2", "bert-base", "resnet50"])
class TestOneDevice:
    def test_rows_of_a_forecast_sum_to_its_totals(self, name, model):
        f = predict(model=model, device=name)
        assert sum(layer.time_s for layer in f.layers) == pytest.approx(f.step_time_s)
        assert sum(layer.parameters for layer in f.layers) == f.parameters
        assert sum(layer.saved_bytes for layer in f.layers) == pytest.approx(f.saved_bytes)
        assert sum(p.time_s for p in f.points) == pytest.approx(f.step_time_s)
        assert f.forward_s + f.backward_s + f.update_s == pytest.approx(f.step_time_s)
        assert f.hfu >= f.mfu * 0.99

    def test_a_larger_batch_never_takes_less_time(self, name, model):
        times = [predict(model=model, device=name, batch=b).step_time_s for b in (1, 2, 4, 64)]
        assert times == sorted(times)

    def test_a_larger_batch_never_lowers_throughput_by_more_than_two_percent(self, name, model):
        rate = [predict(model=model, device=name, batch=b).samples_per_s for b in (1, 4, 32)]
        assert rate[0] <= rate[1] * 1.02 and rate[1] <= rate[2] * 1.02

    def test_inference_takes_less_than_0_6_of_a_training_step_and_saves_nothing(self, name, model):
        train, infer = (predict(model=model, device=name, mode=mode) for mode in ("train", "infer"))
        assert infer.step_time_s < 0.6 * train.step_time_s
        assert infer.saved_bytes == 0 and infer.flops_backward == 0

    def test_full_recomputation_lowers_memory_and_raises_time(self, name, model):
        if model == "resnet50":
            pytest.skip("the model has no repeated layers to recompute")
        plain, full = (
            predict(model=model, device=name, batch=4, recompute=r) for r in ("none", "full")
        )
        assert full.step_time_s > plain.step_time_s
        assert full.memory.peak_bytes < plain.memory.peak_bytes
        assert full.mfu < plain.mfu


def test_a_compiled_stack_is_faster_than_eager_and_saves_fewer_bytes():
    eager, compiled = (
        predict(model="llama-3-8b", device="h100-sxm5", stack=s)
        for s in ("pytorch-eager", "pytorch-compiled")
    )
    assert compiled.step_time_s < eager.step_time_s
    assert compiled.memory.activations_bytes < eager.memory.activations_bytes
    assert compiled.saved_bytes < eager.saved_bytes


def test_bf16_is_faster_than_fp32_and_needs_less_memory():
    fp32, bf16 = (
        predict(model="gpt2", device="a100-sxm4-80gb", batch=8, precision=p)
        for p in ("fp32", "bf16")
    )
    assert bf16.step_time_s < fp32.step_time_s
    assert bf16.memory.peak_bytes < fp32.memory.peak_bytes


@pytest.mark.parametrize("name", ["rtx-3090", "rtx-4090", "a10", "a100", "v100", "mi250x-gcd"])
@pytest.mark.parametrize("model", ["vgg16", "resnet50"])
def test_no_fp32_convolutional_net_is_faster_than_its_lower_bound(name, model):
    """The bound allows TF32 where the stack does, and Winograd on the vector units."""
    step = predict(model=model, device=name, batch=64, precision="fp32")
    assert step.lower_bound_s <= step.step_time_s
