"""Kernels inside training steps."""

import pytest

from roofcast import hwdb, predict
from roofcast.hwdb.constants import kernels
from roofcast.simulator.times.inside import MATRIX, inside_steps

SAID = "no training step of this maker was fitted"
OPTIONS = dict(model="gpt2", batch=8, sequence=512, precision="bf16")


@pytest.mark.parametrize("formula", (*MATRIX, "stream", "recurrent"))
@pytest.mark.parametrize("mode", ("train", "infer"))
@pytest.mark.parametrize("name", ("h100-sxm5", "mi300x", "gaudi2", "tpu-v4", "i9-10940x"))
def test_only_matrix_units_of_gpus_and_npus_in_training_lose(name, mode, formula):
    device = hwdb.device(name)
    rate, said = inside_steps(formula, mode, device, kernels())
    loses = mode == "train" and device.kind in ("gpu", "npu") and formula in MATRIX
    if device.vendor == "NVIDIA":
        loses = loses and formula in ("matmul", "sparse")
    assert (rate < 1.0) == loses
    assert bool(said) == (loses and device.vendor != "NVIDIA")


@pytest.mark.parametrize(
    "name, told", [("mi300x", True), ("gaudi2", True), ("trainium1", False), ("h100-sxm5", False)]
)
def test_a_forecast_says_that_a_maker_was_not_fitted(name, told):
    f = predict(device=name, **OPTIONS)
    assert any(SAID in line for line in f.assumptions) == told


def test_inference_does_not_say_it():
    f = predict(device="mi300x", mode="infer", **OPTIONS)
    assert not any(SAID in line for line in f.assumptions)
