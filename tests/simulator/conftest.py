"""Fixture: one rank's step under a layout, placed on a network, from the fields of a scenario."""

from typing import NamedTuple

import pytest

from roofcast.simulator.forecast.chain import placed as place_on
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.step import ParallelStep
from roofcast.simulator.parallel.traffic import Placement, network
from roofcast.simulator.times.roofline import OpTimes


class Placed(NamedTuple):
    """A step over several devices with what it was computed from."""

    at: Placement
    times: OpTimes
    outcome: ParallelStep


@pytest.fixture(scope="session")
def place():
    """A function from the fields of a Scenario to Placed."""

    def placed(**fields) -> Placed:
        asked = resolve(Scenario(**fields))
        on = place_on(asked)
        layout, device = asked.layout, asked.device
        groups = network(layout, fabric_of(None, device, layout.devices))
        return Placed(Placement(on.step, device, layout, groups), on.times, on.outcome)

    return placed
