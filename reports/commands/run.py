"""roofcast run"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.option_types import Once
from roofcast.reports.options import answer, print_answers, print_json


@click.command("run", cls=Once)
@click.argument("name", metavar="[SCENARIO]", required=False)
@click.option("--list", "listed", is_flag=True, help="List the shipped scenarios instead.")
@click.option(
    "--on",
    multiple=True,
    metavar="DEVICE",
    help="Use this device instead of the scenario's; its --set changes are kept. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(name: str | None, listed: bool, on: tuple[str, ...], as_json: bool) -> None:
    """Forecast SCENARIO: the name of a shipped scenario (roofcast run --list) or a .toml file.

    A scenario is a saved set of predict options; roofcast predict .. --save scenario.toml writes
    one.

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

    from roofcast.scenarios.files import find, read

    path = find(name)
    with _named(path):
        scenario = read(path)
        forecasts = [] if on else [answer(scenario)]
    forecasts += [answer(msgspec.structs.replace(scenario, device=device)) for device in on]
    print_answers(forecasts, as_json)


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
