"""roofcast report"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.answers import answer
from roofcast.reports.console import tell
from roofcast.reports.option_campaign import campaign_options, gathered
from roofcast.reports.option_layout import BEST_LAYOUT, with_best_layout
from roofcast.reports.options import RUNS, Sectioned, scenario_options, scenarios


@click.command("report", cls=Sectioned)
@scenario_options(several=True)
@campaign_options
@RUNS
@BEST_LAYOUT
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="The report to write: .html (one file, works offline) or .md.",
)
@click.option(
    "--sensitivity/--no-sensitivity",
    "effects",
    default=True,
    help="Whether the report says what each number of the hardware is worth.",
)
def command(output: str, effects: bool, layout: str | None, **asked: Any) -> None:
    """Write a report of one step of MODEL, to send or to attach.

    MODEL is as for roofcast predict, or a scenario file or the name of a ready scenario; loading a
    .py runs it. Several --on are compared in one report.

    The .html has the roofline, time by layer, memory, the pipeline, what each number of the
    hardware is worth, assumptions, sources and the scenario, and loads nothing from the network.
    """
    from roofcast.reports.files import check_target
    from roofcast.reports.html.data import answered
    from roofcast.reports.html.page import write

    path = check_target(output, (".html", ".md"))
    answers = [answered(s, answer(s), effects) for s in _wanted(asked, layout)]
    size = write(answers, path, shlex.join(["roofcast", *sys.argv[1:]]))
    tell(f"wrote {output} ({size / 1e3:,.0f} kB)")


def _wanted(asked: dict[str, Any], layout: str | None) -> list[Any]:
    """Scenarios of the options, or those of a scenario file."""
    asked["campaign"] = gathered(asked)
    found = _scenarios(asked)
    return found if layout is None else [with_best_layout(each) for each in found]


def _scenarios(asked: dict[str, Any]) -> list[Any]:
    from roofcast.scenarios import files

    given = {key for key, value in asked.items() if value not in (None, (), {}) and key != "model"}
    try:
        path = files.find(asked["model"])
        found, _ = files.steps(path)
    except RoofcastError:
        return list(scenarios(**asked))
    if path.suffix != ".toml" or given:
        return list(scenarios(**asked))
    return list(found)
