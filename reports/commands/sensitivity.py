"""roofcast sensitivity"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from roofcast.reports.console import tell
from roofcast.reports.files import PICTURES, check_target, replacing
from roofcast.reports.options import Sectioned, print_json, scenario_options, scenarios

if TYPE_CHECKING:
    from roofcast.simulator.choose.sensitivity import Sensitivity


@click.command("sensitivity", cls=Sectioned)
@scenario_options(length=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option("-o", "--output", metavar="FILE", help="Also write the table to a .csv file.")
@click.option("--plot", metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
def command(as_json: bool, output: str | None, plot: str | None, **asked: Any) -> None:
    """What each number of the hardware is worth for one step of MODEL.

    For every rate and latency that the step time depends on: the percent of the step that one
    percent of it changes, and the time that a number twice as good saves. MODEL is as for roofcast
    predict; loading a .py runs it.
    """
    if output is not None:
        check_target(output, (".csv",))
    if plot is not None:
        check_target(plot, PICTURES)
    from roofcast.simulator.choose.sensitivity import sensitivity

    found = sensitivity(scenarios(**asked)[0])
    if output is not None:
        with replacing(output) as temporary:
            _table(found).to_csv(temporary, index=False)
    if plot is not None:
        from roofcast.reports.pictures.sensitivity import draw
        from roofcast.reports.pictures.style import write

        write(plot, lambda: draw(found))
    if as_json:
        print_json(_fields(found))
        return
    from roofcast.reports.pages.sensitivity import print_sensitivity

    print_sensitivity(found)
    for path in (output, plot):
        if path is not None:
            tell(f"wrote {path}")


def _fields(found: Sensitivity) -> dict[str, Any]:
    """What --json prints."""
    step = found.forecast
    return {
        "model": step.model,
        "device": step.device,
        "step_time_s": step.step_time_s,
        "effects": [effect._asdict() for effect in found.effects],
        "sum_of_elasticities": found.total,
        "assumptions": (*step.assumptions, *found.assumptions),
    }


def _table(found: Sensitivity) -> Any:
    import pandas as pd

    from roofcast.simulator.choose.sensitivity import Effect

    return pd.DataFrame(found.effects, columns=Effect._fields)
