"""roofcast run"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.answers import answer
from roofcast.reports.completion import completing
from roofcast.reports.option_types import Once
from roofcast.reports.options import print_answers, print_json, to_json

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast


@click.command("run", cls=Once)
@click.argument("name", metavar="[SCENARIO]", required=False, shell_complete=completing("scenario"))
@click.option("--list", "listed", is_flag=True, help="List the shipped scenarios instead.")
@click.option(
    "--on",
    multiple=True,
    metavar="DEVICE",
    shell_complete=completing("device"),
    help="Use this device instead of the scenario's; its --set changes are kept. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(name: str | None, listed: bool, on: tuple[str, ...], as_json: bool) -> None:
    """Forecast SCENARIO: the name of a shipped scenario (roofcast run --list) or a .toml file.

    A scenario is a saved set of predict options; roofcast predict .. --save scenario.toml writes
    one. A file with `steps = [..]` names scenarios whose steps run in turn.

    Loading a scenario whose model is a .py runs that file.
    """
    if listed:
        if name is not None:
            raise click.UsageError("--list takes no scenario; leave it out, or leave --list out")
        _list(as_json)
        return
    if name is None:
        raise click.UsageError(
            "SCENARIO is missing; say which, for example resnet50-train (list: roofcast run --list)"
        )
    import msgspec

    from roofcast.scenarios.files import find, steps

    path = find(name)
    with _named(path):
        scenarios, assumed = steps(path)
        gains = None if not as_json and len(scenarios) == 1 and len(on) <= 1 else False
        forecasts = [] if on else [answer(scenario, gains) for scenario in scenarios]
    for device in on:
        moved = [msgspec.structs.replace(scenario, device=device) for scenario in scenarios]
        forecasts += [answer(scenario, gains) for scenario in moved]
    if len(scenarios) == 1:
        print_answers(forecasts, as_json)
        return
    from roofcast.reports.pages.steps import print_steps

    runs = list(_batched(forecasts, len(scenarios)))
    if as_json:
        found = [_together(run, assumed) for run in runs]
        print_json(found[0] if len(found) == 1 else {"forecasts": found})
    else:
        print_steps(path.stem, runs, assumed)


def _together(run: Sequence[Forecast], assumed: Sequence[str]) -> dict[str, Any]:
    """The forecasts of the steps, their sum, and what the sum assumes."""
    from roofcast.reports.pages.steps import MEMORY, total

    steps = [to_json(forecast) for forecast in run]
    return {"steps": steps, "total": total(run), "assumptions": [*assumed, MEMORY]}


def _batched(forecasts: list[Forecast], n: int) -> Iterator[tuple[Forecast, ...]]:
    """The forecasts in groups of n."""
    return (tuple(forecasts[i : i + n]) for i in range(0, len(forecasts), n))


def _list(as_json: bool) -> None:
    """The shipped scenarios and what each describes."""
    from roofcast.scenarios.files import about, ready

    rows = [{"name": name, "about": about(path)} for name, path in ready().items()]
    if as_json:
        print_json({"scenarios": rows})
        return
    from roofcast.reports.console import page, plain_table

    table = plain_table(("scenario", "left"), ("description", "fold"))
    for row in rows:
        table.add_row(row["name"], row["about"])
    with page() as out:
        out.print(table)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error in the scenario names its file."""
    try:
        yield
    except RoofcastError as error:
        named = str(error).startswith(str(path))
        raise error if named else type(error)(f"{path}: {error}") from None
