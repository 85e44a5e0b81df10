"""The search over layouts: it gives what predict gives for each of them."""

import msgspec
import numpy as np
import pytest

from roofcast import Scenario, predict
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.choose.search import search

ASKED = {
    "model": "llama-3-8b", "device": "h100-sxm5", "batch": 64, "sequence": 2048,
    "precision": "bf16", "optimizer": "adamw", "stack": "pytorch-eager",
}  # fmt: skip
SCENARIO = Scenario(**ASKED)
GRID = {
    "tp": [1, 8],
    "cp": [1, 2],
    "micro_batch": [1, 2],
    "recompute": ["none", "full"],
    "dp": [1, 4, 5, 16],
    "pp": [1, 2, 8, 64],
    "vpp": [1, 2],
    "zero": [0, 1, 2, 3],
}
FOUND = search(SCENARIO, GRID)
N = len(FOUND.step_s)


def layout(i):
    """Degrees of the i-th layout of the grid."""
    return {name: column[i].item() for name, column in FOUND.layouts.items()}


def some(which, n=80):
    """Indices of n random layouts where the mask is true."""
    return np.random.default_rng(0).choice(np.flatnonzero(which), n, replace=False).tolist()


def test_the_search_returns_every_combination_of_the_grid_once():
    assert N == np.prod([len(v) for v in GRID.values()])
    assert len({tuple(layout(i).values()) for i in range(N)}) == N


@pytest.mark.parametrize("i", some(FOUND.refused))
def test_layouts_that_the_search_rejects_are_rejected_by_predict(i):
    with pytest.raises(RoofcastError):
        predict(**ASKED, **layout(i))
    assert not np.isfinite(FOUND.step_s[i]) and not FOUND.fits[i]


@pytest.mark.parametrize("i", some(~FOUND.refused))
def test_time_and_memory_of_a_layout_equal_those_that_predict_gives(i):
    f = predict(**ASKED, **layout(i))
    assert FOUND.step_s[i] == pytest.approx(f.step_time_s, rel=1e-6)
    assert FOUND.peak_bytes[i] == pytest.approx(f.memory.peak_bytes, rel=1e-6)
    assert FOUND.fits[i] == f.memory.fits


@pytest.mark.parametrize(
    "stack", ["deepspeed-megatron-2022", "internevo-2023", "te-nemo-2024", "tensorflow"]
)
def test_the_time_of_a_layout_does_not_depend_on_the_other_layouts_of_the_grid(stack):
    """In some stacks the first micro-batch's gradients are not added to anything, so that a pass
    depends on the number of micro-batches; TensorFlow has host time once per step.
    """
    scenario = msgspec.structs.replace(SCENARIO, device="a100-sxm4-80gb", sequence=512, stack=stack)
    found = search(scenario, {"dp": [1, 4, 64], "pp": [1, 2], "zero": [0, 1], "micro_batch": [1]})
    for i in np.flatnonzero(~found.refused):
        degrees = {name: column[i].item() for name, column in found.layouts.items()}
        alone = predict(msgspec.structs.replace(scenario, **degrees)).step_time_s
        assert found.step_s[i] == pytest.approx(alone, rel=1e-6), degrees


def test_the_best_layout_is_the_fastest_that_fits_in_memory():
    best = FOUND.best()
    assert FOUND.fits[best] and FOUND.step_s[best] == FOUND.step_s[FOUND.fits].min()


def test_an_unknown_column_of_the_grid_is_rejected_with_the_known_ones():
    with pytest.raises(BadInput, match="there are"):
        search(SCENARIO, {"ttp": [1]})
