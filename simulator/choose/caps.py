"""The most efficient power cap of a board: least energy of the node per step."""

from __future__ import annotations

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.sites import nodes
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.scenario import Scenario

COARSE, FINE = 25, 5  # W between caps that are tried


def best_cap(scenario: Scenario) -> Scenario:
    """The scenario with the cap at which a step takes the least energy of the node, between the
    lowest that boards take and the TDP; ties go to the higher cap, which is faster.

    Raises BadInput where the device's power is not modelled.
    """
    device = hwdb.device(scenario.device, scenario.set)
    tdp = device.power.tdp
    first, _, _ = without_interval(scenario)
    if not tdp or first.power_scope != "board":
        raise BadInput(
            f"--power-cap best: the power of {device.id} is not modelled, so that no cap changes"
            " its time; leave the option out"
        )
    low, high = -(-nodes().lowest_cap * float(tdp) // COARSE) * COARSE, float(tdp)
    tried: dict[float, float] = {}

    def joules(cap: float) -> float:
        if cap not in tried:
            found, _, _ = without_interval(at_cap(scenario, cap))
            tried[cap] = found.step_energy_by_scope_j["node"]
        return tried[cap]

    coarse = [low + COARSE * i for i in range(int((high - low) // COARSE) + 1)] + [high]
    near = min(reversed(coarse), key=joules)
    fine = [near + FINE * i for i in range(1 - COARSE // FINE, COARSE // FINE)]
    among = [cap for cap in (*fine, *coarse) if low <= cap <= high]
    return at_cap(scenario, min(sorted(among, reverse=True), key=joules))


def at_cap(scenario: Scenario, watts: float) -> Scenario:
    """The scenario under a cap [W]."""
    edits = {**scenario.set, "power.cap": f"{watts:g} W"}
    return msgspec.structs.replace(scenario, set=edits)
