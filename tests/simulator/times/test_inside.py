"""Kernels inside training steps."""

import pytest

from roofcast import hwdb, predict
from roofcast.hwdb.constants import kernels
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.times.inside import MATRIX, inside_steps, over_lists
from roofcast.simulator.times.roofline import time_all
from roofcast.simulator.work.step import Recipe, trace

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


def test_a_foreach_update_on_an_mi250x_takes_as_long_as_was_measured(tmp_path):
    """AdamW of ten layers of 1024 x 1024 in fp32: 1290 us (PyTorch issue 120308). Tolerance: the
    launches, which the measurement has in it.
    """
    net = tmp_path / "ten.toml"
    layers = "".join('[[layers]]\nkind = "linear"\nout = 1024\nbias = false\n' for _ in range(10))
    net.write_text(f'name = "ten"\ninput = [1024]\n{layers}')
    recipe = Recipe(
        mode="train", batch=1, size=None, precision="fp32", optimizer="adamw", recompute="none",
        stack=stack("pytorch-eager"),
    )  # fmt: skip
    step = trace(resolve(str(net)), recipe)
    seconds = time_all(step, hwdb.device("mi250x-gcd")).seconds
    update = sum(s for k, s in zip(step.kernels, seconds, strict=True) if k.phase == "update")
    assert update == pytest.approx(1290e-6, rel=0.1)


@pytest.mark.parametrize(
    "name, software, slower",
    [
        ("mi350x", "pytorch-eager", True),
        ("mi350x", "megatron", False),  # one fused kernel, tuned in AMD's apex
        ("h100-sxm5", "pytorch-eager", False),
        ("tpu-v4", "jax-xla", False),
    ],
)
def test_foreach_updates_alone_lose_bandwidth_and_on_amd_alone(name, software, slower):
    optimizer = stack(software).implementations.get("optimizer")
    assert (over_lists(hwdb.device(name), optimizer) < 1.0) == slower
