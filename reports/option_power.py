"""Options on power, energy and carbon: the cap of a board, the site, its grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.units import quantity

if TYPE_CHECKING:
    from roofcast.simulator.forecast.scenario import Scenario

BEST = "best"


class Ratio(click.ParamType):
    """A number without a unit, which its own module checks."""

    name = "number"

    def __init__(self, example: str):
        self.example = example

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number. Raises BadInput for what is no number."""
        try:
            number = quantity(value, param.opts[0] if param is not None else "value")
        except BadInput:
            number = float("nan")
        if number != number or abs(number) == float("inf"):
            option = param.opts[0] if param is not None else "value"
            raise BadInput(f"{option} {value}: a number is wanted, for example {self.example}")
        return float(number)


POWER: dict[str, Callable[[Callable], Callable]] = {
    "power_cap": click.option(
        "--power-cap",
        metavar="WATTS",
        help=(
            "Power limit of each board, below its TDP: 500W, the same as --set power.cap=500W; or"
            " best: the limit at which a step takes the least energy of the node."
        ),
    ),
    "pue": click.option(
        "--pue",
        type=Ratio("1.2"),
        metavar="RATIO",
        help=(
            "Power of the site over that of its machines. Default: that of the cloud of --system,"
            " else the average of data centres."
        ),
    ),
    "region": click.option(
        "--region",
        metavar="NAME",
        help=(
            "Where the electricity comes from, for carbon: a country (FRA, France), a state (US-TX)"
            " or a region of Google Cloud (europe-west9)."
        ),
    ),
    "carbon": click.option(
        "--carbon",
        type=Ratio("56"),
        metavar="G/KWH",
        help="Carbon intensity of the electricity [g CO2e/kWh], instead of --region.",
    ),
    "embodied": click.option(
        "--embodied",
        is_flag=True,
        default=None,
        help="Also the carbon of making the hardware, the run's share, reported separately.",
    ),
}
SITE = tuple(name for name in POWER if name != "power_cap")


def capped(edits: dict[str, str | float | int], cap: str | None) -> dict[str, str | float | int]:
    """The edits of the device with the cap. Raises BadInput where it is given twice."""
    if cap is None:
        return edits
    if "power.cap" in edits:
        raise BadInput("--power-cap and --set power.cap are one setting; give one of them")
    return edits if cap == BEST else {**edits, "power.cap": cap}


def with_best_cap(scenario: Scenario) -> Scenario:
    """The scenario under its most efficient cap."""
    from roofcast.simulator.choose.caps import best_cap

    return best_cap(scenario)
