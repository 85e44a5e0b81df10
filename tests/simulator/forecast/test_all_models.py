"""Every shipped model under every recomputation and kind of layout: a forecast, or one line."""

import pytest
from kinds import first_of_each, kind_of_model, one_in_turn

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
FIRST = first_of_each(models.names(), kind_of_model)
TURN = {name: i for i, name in enumerate(models.names())}


def policies(model, layout):
    """Policies to try with a model in the layout of that number.

    On one device every architecture meets all of them, its other models one in turn. In any other
    layout the first model of an architecture meets two, and every other model one in one layout.
    """
    turn, n = TURN[model], len(POLICIES)
    if layout == 0:
        return TRIED[model]
    if model in FIRST:
        return [POLICIES[(turn + layout + half) % n] for half in (0, n // 2)]
    return [POLICIES[turn // 3 % n]] if turn % 3 == layout - 1 else []


def answer(**asked):
    """A forecast, or None where it is refused in one line."""
    try:
        return forecast(Scenario(device="h100-sxm5", **asked))
    except RoofcastError as error:
        assert "\n" not in str(error)
        return None


@pytest.mark.parametrize("model", models.names())
def test_every_policy_and_layout_is_forecast_or_refused(model):
    for number, layout in enumerate(LAYOUTS):
        usual = answer(model=model, **layout)
        assert usual or layout, "a shipped model runs on one device"
        if not layout:
            assert sum(layer.parameters for layer in usual.layers) == usual.parameters
        for how in policies(model, number):
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
