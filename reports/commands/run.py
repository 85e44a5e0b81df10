"""roofcast run"""

from contextlib import contextmanager
from pathlib import Path

import click

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.options import answer, print_answers


@click.command("run")
@click.argument("path", metavar="SCENARIO")
@click.option(
    "--on",
    multiple=True,
    metavar="DEVICE",
    help="Another device than the file's, with the same changes. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(path: str, on: tuple[str, ...], as_json: bool) -> None:
    """Forecast what the file SCENARIO describes; roofcast predict .. --save scenario.toml writes
    one.

    A scenario whose model is a .py runs it.
    """
    import msgspec

    from roofcast.scenarios.files import read

    with _named(path):
        scenario = read(path)
        forecasts = [] if on else [answer(scenario)]
    forecasts += [answer(msgspec.structs.replace(scenario, device=device)) for device in on]
    print_answers(forecasts, as_json)


@contextmanager
def _named(path: str):
    """A mistake in the scenario is told with its file."""
    try:
        yield
    except RoofcastError as error:
        told = str(error).startswith(str(Path(path)))
        raise error if told else type(error)(f"{Path(path)}: {error}") from None
