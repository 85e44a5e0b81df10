"""Every shipped model under every recomputation and kind of layout: a forecast, or one line."""

import pytest
from kinds import kind_of_model, one_in_turn

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator import models
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

LAYOUTS = (
    {},
    {"devices": 2, "tp": 2},
    {"devices": 2, "pp": 2, "batch": 8},
    {"devices": 4, "zero": 3, "batch": 4},
)
BY_LAYER = ("full", "uniform:2", "every:2", "block:2")
POLICIES = ("selective", "modules:mlp", *BY_LAYER)
TRIED = one_in_turn(models.names(), POLICIES, kind_of_model)


def answer(**asked):
    """A forecast, or None where it is refused in one line."""
    try:
        return forecast(Scenario(device="h100-sxm5", **asked))
    except RoofcastError as error:
        assert "\n" not in str(error)
        return None


@pytest.mark.parametrize("model", models.names())
def test_every_policy_and_layout_is_forecast_or_refused(model):
    """Every policy on the first model of an architecture, one in turn on its others."""
    for layout in LAYOUTS:
        usual = answer(model=model, **layout)
        assert usual or layout, "a shipped model runs on one device"
        if not layout:
            assert sum(layer.parameters for layer in usual.layers) == usual.parameters
        for how in TRIED[model]:
            found = answer(model=model, recompute=how, **layout)
            if usual is None or found is None:
                assert not (usual is None and found), "recomputation does not make a layout valid"
                continue
            assert found.forward_s + found.backward_s >= usual.forward_s + usual.backward_s
            less, more = found.memory, usual.memory
            if layout:  # the largest transient is added to all that is kept: an upper bound
                assert less.activations_bytes <= more.activations_bytes * (1 + 1e-12)
            else:
                assert less.peak_bytes <= more.peak_bytes * (1 + 1e-12)
