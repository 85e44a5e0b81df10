"""A rank's step placed on a network, from what predict is asked."""

from typing import NamedTuple

import pytest

from roofcast.simulator.forecast.chain import placed as place_on
from roofcast.simulator.forecast.chain import prepared
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.fabric import fabric_of
from roofcast.simulator.parallel.step import ParallelStep
from roofcast.simulator.parallel.traffic import Placement, network
from roofcast.simulator.times.roofline import OpTimes


class Placed(NamedTuple):
    """What the chain passes on over several devices."""

    at: Placement
    times: OpTimes
    spread: ParallelStep


@pytest.fixture(scope="session")
def place():
    """Scenario's fields -> Placed."""

    def placed(**asked) -> Placed:
        scenario, device, model = prepared(Scenario(**asked))
        recipe, _ = recipe_of(scenario, model, device)
        layout, step, times, spread, _ = place_on(scenario, model, device, recipe)
        return Placed(
            Placement(
                step, device, layout, network(layout, fabric_of(None, device, layout.devices))
            ),
            times,
            spread,
        )

    return placed
