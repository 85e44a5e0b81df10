"""roofcast compare"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from roofcast.hwdb.errors import BadInput
from roofcast.reports.answers import answer
from roofcast.reports.completion import completing
from roofcast.reports.console import tell
from roofcast.reports.option_types import Once
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    from roofcast.simulator.forecast.scenario import Scenario

SUFFIXES = (".csv", ".html", ".md")


@click.command("compare", cls=Once)
@click.argument(
    "names", metavar="SCENARIO...", nargs=-1, required=True, shell_complete=completing("scenario")
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Also write the comparison: .csv, or a report of all scenarios as .html or .md.",
)
def command(names: tuple[str, ...], as_json: bool, output: str | None) -> None:
    """Compare the forecasts of scenarios, and say why they differ.

    Each SCENARIO is a .toml file (roofcast predict .. --save FILE.toml writes one) or the name of a
    ready one (roofcast run --list). Each is compared with the first; what compute, memory
    bandwidth, network and host are of the difference sums to it.

    Loading a scenario whose model is a .py runs that file.
    """
    from roofcast.reports.files import check_target
    from roofcast.reports.pages.compare import print_compared, to_json, write_csv
    from roofcast.scenarios.files import find, steps

    if len(names) < 2:
        raise BadInput(
            "compare what? give two scenarios or more, for example: roofcast compare a.toml b.toml"
        )
    if output is not None:
        check_target(output, SUFFIXES)
    scenarios: list[Scenario] = []
    for name in names:
        found, _ = steps(find(name))
        if len(found) > 1:
            raise BadInput(f"{name}: has several steps; compare the files of its steps")
        scenarios += found
    forecasts = [answer(scenario) for scenario in scenarios]
    titles = _titles(names)
    if as_json:
        print_json(to_json(titles, forecasts))
    else:
        print_compared(titles, scenarios, forecasts)
    if output is None:
        return
    if Path(output).suffix.lower() == ".csv":
        write_csv(titles, forecasts, output)
    else:
        from roofcast.reports.html.data import answered
        from roofcast.reports.html.page import write

        pairs = zip(scenarios, forecasts, strict=True)
        line = shlex.join(["roofcast", *sys.argv[1:]])
        write([answered(s, f, False) for s, f in pairs], output, line)
    if not as_json:
        tell(f"wrote {output}")


def _titles(names: tuple[str, ...]) -> list[str]:
    """Short names of the scenarios, which stay apart."""
    short = [Path(name).stem for name in names]
    return short if len(set(short)) == len(short) else list(names)
