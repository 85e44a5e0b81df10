"""The search forecasts what predict forecasts."""

import msgspec
import numpy as np
import pytest

from roofcast import Scenario, predict
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.choose.search import search

SCENARIO = Scenario(
    model="llama-3-8b",
    device="h100-sxm5",
    batch=64,
    sequence=2048,
    precision="bf16",
    optimizer="adamw",
    stack="pytorch-eager",
)
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


def asked(i):
    return {name: column[i].item() for name, column in FOUND.layouts.items()}


def test_the_grid_is_whole():
    assert N == np.prod([len(v) for v in GRID.values()])
    assert len({tuple(asked(i).values()) for i in range(N)}) == N


def some(which, n=80):
    return np.random.default_rng(0).choice(np.flatnonzero(which), n, replace=False).tolist()


def alone(i):
    """What predict is asked for the same layout."""
    return {
        f: getattr(SCENARIO, f)
        for f in ("model", "device", "batch", "sequence", "precision", "optimizer", "stack")
    } | asked(i)


@pytest.mark.parametrize("i", some(FOUND.refused))
def test_what_predict_refuses_is_refused(i):
    with pytest.raises(RoofcastError):
        predict(**alone(i))
    assert not np.isfinite(FOUND.step_s[i]) and not FOUND.fits[i]


@pytest.mark.parametrize("i", some(~FOUND.refused))
def test_a_layout_is_forecast_as_predict_does(i):
    f = predict(**alone(i))
    assert FOUND.step_s[i] == pytest.approx(f.step_time_s, rel=1e-6)
    assert FOUND.peak_bytes[i] == pytest.approx(f.memory.peak_bytes, rel=1e-6)
    assert FOUND.fits[i] == f.memory.fits


@pytest.mark.parametrize(
    "stack", ["deepspeed-megatron-2022", "internevo-2023", "te-nemo-2024", "tensorflow"]
)
def test_a_layout_does_not_depend_on_those_beside_it(stack):
    """Where the first micro-batch's gradients are the sum, a pass depends on how many micro-batches
    there are; TensorFlow's session is called once a step.
    """
    scenario = msgspec.structs.replace(SCENARIO, device="a100-sxm4-80gb", sequence=512, stack=stack)
    found = search(scenario, {"dp": [1, 4, 64], "pp": [1, 2], "zero": [0, 1], "micro_batch": [1]})
    for i in np.flatnonzero(~found.refused):
        layout = {name: column[i].item() for name, column in found.layouts.items()}
        assert found.step_s[i] == pytest.approx(
            predict(msgspec.structs.replace(scenario, **layout)).step_time_s, rel=1e-6
        ), layout


def test_the_best_layout_fits_and_none_that_fits_is_faster():
    best = FOUND.best()
    assert FOUND.fits[best] and FOUND.step_s[best] == FOUND.step_s[FOUND.fits].min()


def test_an_unknown_column_is_refused():
    with pytest.raises(BadInput, match="there are"):
        search(SCENARIO, {"ttp": [1]})
