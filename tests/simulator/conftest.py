"""A rank's step placed on a network, from the fields of a scenario."""

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
    """What the chain passes on over several devices."""

    at: Placement
    times: OpTimes
    outcome: ParallelStep


@pytest.fixture(scope="session")
def place():
    """Fields of a Scenario -> Placed."""

    def placed(**asked) -> Placed:
        everything = resolve(Scenario(**asked))
        step, times, outcome, _ = place_on(everything)
        layout, device = everything.layout, everything.device
        on = network(layout, fabric_of(None, device, layout.devices))
        return Placed(Placement(step, device, layout, on), times, outcome)

    return placed
