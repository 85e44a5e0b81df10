"""A rank's step placed on a network, from what predict is asked."""

from typing import NamedTuple

import pytest

from simulator.chain import prepared, spread_of
from simulator.fabric import fabric_of
from simulator.parallel import Spread
from simulator.resolve import decide
from simulator.roofline import OpTimes
from simulator.scenario import Scenario
from simulator.traffic import Placement, network


class Placed(NamedTuple):
    """What the chain passes on over several devices."""

    at: Placement
    times: OpTimes
    spread: Spread


@pytest.fixture(scope="session")
def place():
    """Scenario's fields -> Placed."""

    def placed(**asked) -> Placed:
        scenario, device, model = prepared(Scenario(**asked))
        recipe, _ = decide(scenario, model, device)
        layout, step, times, spread, _ = spread_of(scenario, model, device, recipe)
        return Placed(Placement(step, device, layout, network(layout, fabric_of(None, device, layout.devices))), times, spread)

    return placed
