"""Steps computed together, alone, or again have the same seconds."""

import numpy as np
import pytest

from roofcast.simulator.serving.server import Degrees, server

SERVERS = (
    ("llama-3-8b", "h100-sxm5", Degrees(), "vllm"),
    ("mixtral-8x7b", "a100-sxm4-80gb", Degrees(tp=2), "vllm"),
    ("llama-3-8b", "rtx-4090", Degrees(), "llama.cpp"),
)


@pytest.mark.parametrize("given", SERVERS, ids=lambda given: f"{given[0]}-{given[1]}")
def test_a_step_of_many_is_the_step_alone(given):
    """On a grid with equal numbers of tokens behind unequal contexts, and longer than one call."""
    model, device, degrees, stack = given
    at = server(model, device, degrees, stack=stack)
    new = np.array([16.0, 100.0, 777.0, 2048.0] * 128)[:, None]
    cached = np.array([0.0, 500.0])
    together = at.mixed(8.0, 900.0, new, cached)
    assert np.ptp(together[:4], axis=1).min() > 0 and together[0, 0] == together[4, 0]
    for i in range(4):
        for j in range(2):
            alone = at.mixed(8.0, 900.0, new[i, 0], cached[j])
            assert together[i, j] == pytest.approx(float(alone), rel=1e-12)


def test_a_pass_of_prompts_is_computed_once():
    at = server("llama-3-8b", "h100-sxm5")
    one = at.prefilling(1, 1000, 0)
    assert at.prefilling(1.0, 1000.0, 0.0) is one
    assert at.prefilling(np.array([1.0]), 1000, 0).total[0] == float(one.total)
    assert float(at.prefilling(1, 1001, 0).total) > float(one.total)
