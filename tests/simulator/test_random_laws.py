"""The laws of benchmarks/laws.py over random models, devices and options; there with more draws."""

import importlib.util
import random
from pathlib import Path

import pytest

from roofcast import Scenario

FILE = Path(__file__).parents[2] / "benchmarks" / "laws.py"
SPEC = importlib.util.spec_from_file_location("laws", FILE)
laws = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(laws)
DRAWS = 25  # of each seed


@pytest.mark.parametrize("seed", range(2))
def test_random_forecasts_keep_every_law(seed):
    rng, forecasts, broken = random.Random(seed), 0, []
    for _ in range(DRAWS):
        s = laws.draw(rng)
        forecasts += laws.changed(s) is not None
        broken += [f"{text}: {laws.told(s)}" for _, text in laws.violations(s)]
    assert not broken, "\n".join(broken)
    assert forecasts > DRAWS // 2


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "opt-175b", "device": "h100-sxm5", "zero": 2},
        {"model": "llama-30b", "device": "a800-pcie-80gb", "zero": 3},
        {"model": "gpt2", "device": "a100", "zero": 0, "optimizer": "adamw", "sequence": 16},
        {"model": "convnext_small", "device": "h100-sxm5", "zero": 1, "offload": ("activations",)},
        {"model": "efficientnet_b2", "device": "a100", "zero": 1, "offload": ("activations",)},
    ],
    ids=lambda asked: asked["model"],
)
def test_two_micro_batches_need_no_less_memory_than_one(asked):
    """The copy that an update makes, both gradients of a tied table, and layers being offloaded
    count in both.
    """
    s = Scenario(**asked)
    assert list(laws.two_micro_batches(s, laws.forecast(s))) == []
