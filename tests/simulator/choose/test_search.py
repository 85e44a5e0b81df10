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


def some(which, n=80):
    """Indices of n random layouts where the mask is true."""
    return np.random.default_rng(0).choice(np.flatnonzero(which), n, replace=False).tolist()


def test_the_search_returns_every_combination_of_the_grid_once():
    assert N == np.prod([len(v) for v in GRID.values()])
    assert len({tuple(FOUND.layout(i).values()) for i in range(N)}) == N


@pytest.mark.parametrize("i", some(FOUND.refused))
def test_layouts_that_the_search_rejects_are_rejected_by_predict(i):
    with pytest.raises(RoofcastError):
        predict(**ASKED, **FOUND.layout(i))
    assert not np.isfinite(FOUND.step_s[i]) and not FOUND.fits[i]


@pytest.mark.parametrize("i", some(~FOUND.refused))
def test_time_and_memory_of_a_layout_equal_those_that_predict_gives(i):
    f = predict(**ASKED, **FOUND.layout(i))
    assert FOUND.step_s[i] == pytest.approx(f.step_time_s, rel=1e-9)
    assert FOUND.peak_bytes[i] == pytest.approx(f.memory.peak_bytes, rel=1e-9)
    assert FOUND.fits[i] == f.memory.fits


@pytest.mark.parametrize(
    "stack",
    ["deepspeed-megatron-blocking", "internevo-2023", "te-nemo-2024", "nanotron", "tensorflow"],
)
def test_the_time_of_a_layout_does_not_depend_on_the_other_layouts_of_the_grid(stack):
    """In some stacks the first micro-batch's gradients are not added to anything, so that a pass
    depends on the number of micro-batches; TensorFlow has host time once per step.
    """
    scenario = msgspec.structs.replace(SCENARIO, device="a100-sxm4-80gb", sequence=512, stack=stack)
    found = search(scenario, {"dp": [1, 4, 64], "pp": [1, 2], "zero": [0, 1], "micro_batch": [1]})
    for i in np.flatnonzero(~found.refused):
        degrees = found.layout(i)
        alone = predict(msgspec.structs.replace(scenario, **degrees)).step_time_s
        assert found.step_s[i] == pytest.approx(alone, rel=1e-9), degrees


def test_the_best_layout_is_the_fastest_that_fits_in_memory():
    best = FOUND.best()
    assert FOUND.fits[best] and FOUND.step_s[best] == FOUND.step_s[FOUND.fits].min()


EVERYTHING = [  # scenario, columns: together every option of a layout, every kind of network
    (
        {"model": "llama-3-8b", "device": "h100-sxm5", "sequence": 2048, "batch": 64},
        {
            "tp": [1, 4], "sp": [None, False], "pp": [1, 2, 4], "dp": [2, 3, 8], "zero": [0, 1, 3],
            "schedule": [None, "gpipe", "zb-h1", "zb-v", "dualpipe"], "vpp": [None, 2],
            "micro_batch": [1, 2],
        },
    ),
    (
        {"model": "mixtral-8x7b", "device": "gb200", "sequence": 2048, "batch": 128},
        {
            "tp": [1, 2], "ep": [1, 4, 8], "etp": [None, 2], "dp": [8, 16, 64], "pp": [1, 3],
            "zero": [0, 1, 3], "shard": [None, 4], "reshard": [None, True], "micro_batch": [1, 2],
        },
    ),
    (
        {"model": "llama-2-7b", "device": "tpu-v4", "sequence": 4096, "batch": 64},
        {
            "tp": [1, 2, 8], "cp": [1, 2, 4], "cp_kind": [None, "ring", "all-gather", "ulysses"],
            "dp": [1, 4, 16], "pp": [1, 2, 4], "zero": [0, 1, 3], "micro_batch": [1, 4],
        },
    ),
    (
        {"model": "gpt2-xl", "device": "tpu-v5e", "batch": 64, "stack": "maxtext"},
        {
            "tp": [1, 4], "dp": [4, 8, 64], "zero": [0, 3], "shard": [None, 2, 8],
            "recompute": ["none", "full", "selective", "uniform:2", "every:2", "block:2"],
            "pp": [1, 4], "micro_batch": [1],
        },
    ),
    (
        {"model": "bert-large", "device": "v100-sxm2-16gb", "batch": 96},
        {
            "dp": [2, 3, 8, 96], "zero": [0, 1, 2, 3], "micro_batch": [None, 1, 2],
            "offload": [(), ("activations",), ("optimizer",), ("activations", "optimizer")],
            "recompute": ["none", "full"],
        },
    ),
    (
        {"model": "gemma-2-9b", "device": "a100-sxm4-80gb", "batch": 32, "system": "jean-zay-a100"},
        {"dp": [8, 16], "pp": [1, 2], "stages": [(), (21, 21), (20, 22)], "tp": [1, 8]},
    ),
    (
        {"model": "resnet50", "device": "mi300x", "batch": 256, "mode": "infer"},
        {"dp": [1, 2, 16], "tp": [1, 2], "micro_batch": [None, 16]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "grid"), EVERYTHING, ids=[f"{a['model']} on {a['device']}" for a, _ in EVERYTHING]
)
def test_every_option_on_every_kind_of_network_is_as_predict_says(asked, grid):
    """Forty valid and twenty invalid rows of each grid."""
    scenario = Scenario(**asked)
    found = search(scenario, grid)
    rng = np.random.default_rng(0)
    valid, invalid = np.flatnonzero(~found.refused), np.flatnonzero(found.refused)
    assert len(valid) >= 3
    for i in rng.permutation(valid)[:40].tolist():
        f = predict(msgspec.structs.replace(scenario, **found.layout(i)))
        assert found.step_s[i] == pytest.approx(f.step_time_s, rel=1e-9), found.layout(i)
        assert found.peak_bytes[i] == pytest.approx(f.memory.peak_bytes, rel=1e-9), found.layout(i)
        assert found.fits[i] == f.memory.fits
    for i in rng.permutation(invalid)[:20].tolist():
        with pytest.raises(RoofcastError):
            predict(msgspec.structs.replace(scenario, **found.layout(i)))


def test_a_scenario_that_no_layout_makes_valid_is_rejected():
    with pytest.raises(RoofcastError, match="no optimizer"):
        search(msgspec.structs.replace(SCENARIO, optimizer="adamm"), {"dp": [1, 2]})


def test_a_column_without_values_is_rejected():
    with pytest.raises(BadInput, match="no values"):
        search(SCENARIO, {"dp": []})


def test_an_unknown_column_of_the_grid_is_rejected_with_the_known_ones():
    with pytest.raises(BadInput, match="there are"):
        search(SCENARIO, {"ttp": [1]})
