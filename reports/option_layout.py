"""`--layout best`: the layout that a search finds, in place of one that is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from roofcast.hwdb.errors import BadInput, number_of

if TYPE_CHECKING:
    from roofcast.simulator.forecast.scenario import Scenario

BEST_LAYOUT = click.option(
    "--layout",
    type=click.Choice(("best",)),
    help=(
        "best: the fastest layout that fits on --devices, as roofcast search finds it. Default: the"
        " layout that --tp, --pp and so on give."
    ),
)


def with_best_layout(scenario: Scenario) -> Scenario:
    """The scenario with the fastest layout that fits on its devices. Raises BadInput for one device
    and where nothing fits.
    """
    from roofcast.simulator.choose.explore import explore

    devices = scenario.devices or scenario.dp
    if devices is None:
        raise BadInput("--layout best: on how many devices? give --devices, or --system")
    found = explore(msgspec.structs.replace(scenario, devices=None), devices)
    best = found.best(1)
    if not best:
        raise BadInput(
            f"--layout best: none of {number_of(found.considered, 'layout')} fits on {devices:,} of"
            f" {scenario.device}; use more devices (roofcast search tells how much each needs)"
        )
    return found.scenario_of(best[0])
