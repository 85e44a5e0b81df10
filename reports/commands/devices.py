"""roofcast devices"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, UnknownName, number_of
from roofcast.reports.completion import completing
from roofcast.reports.format import binary, hourly, si
from roofcast.reports.option_types import Once, OnceGroup, Whole, setting
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    from roofcast.hwdb.listing import Hardware
    from roofcast.reports.console import Justify
    from roofcast.reports.parts import Table

_COLUMNS: list[tuple[str, Justify]] = [
    ("device", "left"), ("year", "right"), ("peak FLOP/s", "right"), ("", "left"),
    ("bandwidth", "right"), ("memory", "right"), ("price", "right"),
]  # fmt: skip
FINDERS: dict[str, Callable[[str], Hardware]] = {
    "devices": hwdb.device, "systems": hwdb.system, "links": hwdb.link
}  # fmt: skip
# columns that a narrow terminal does not show, the first first
_SPARE = ("price", "year", "", "memory")


@click.group("devices", cls=OnceGroup, invoke_without_command=True)
@click.option("--vendor", metavar="NAME", help="Only this vendor: nvidia, amd, google, intel ...")
@click.option("--kind", type=click.Choice(("gpu", "tpu", "npu", "cpu")), help="Only this kind.")
@click.option("--year", type=Whole(), help="Only this year of release.")
@click.option("--family", metavar="NAME", help="Only this family: hopper, ampere ...")
@click.option("--links", is_flag=True, help="List the links instead.")
@click.option("--systems", is_flag=True, help="List the systems instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.pass_context
def command(
    ctx: click.Context,
    links: bool,
    systems: bool,
    as_json: bool,
    vendor: str | None,
    kind: str | None,
    year: int | None,
    family: str | None,
) -> None:
    """List the devices that Roofcast knows by name. Details: `roofcast devices show NAME`."""
    if ctx.invoked_subcommand:
        return
    wanted = {"vendor": vendor, "kind": kind, "year": year, "family": family}
    if links or systems:
        given = [f"--{key}" for key, value in wanted.items() if value is not None]
        if given or (links and systems):
            other = "--links and --systems" if links and systems else f"{given[0]} of devices"
            raise click.UsageError(f"{other} are different lists; ask for one")
        what, names = ("links", hwdb.links()) if links else ("systems", hwdb.systems())
        if as_json:
            print_json({what: names})
        else:
            click.echo("\n".join(names))
        return
    rows = [hwdb.summary(name) for name in hwdb.devices()]
    for key, value in wanted.items():
        if value is not None:
            rows = _filtered(rows, key, str(value))
    if as_json:
        print_json({"devices": rows})
        return
    from roofcast.reports.console import page

    with page() as out:
        out.print(_list(rows, out.width))
        out.print(
            f"{number_of(len(rows), 'device')}."
            " Figures and sources of one: roofcast devices show NAME"
        )


def _filtered(rows: list[hwdb.Summary], key: str, value: str) -> list[hwdb.Summary]:
    """The rows whose `key` has that value, in any case; UnknownName where there is none."""
    left = [row for row in rows if str(getattr(row, key)).lower() == value.lower()]
    if left:
        return left
    known = sorted({str(getattr(row, key)) for row in rows} - {"None", ""})
    lower = [each.lower() for each in known]
    alike = difflib.get_close_matches(value.lower(), lower, n=3, cutoff=0.5)
    close = [each for each in known if each.lower() in alike]
    kind = "nearest" if close else "known"
    raise UnknownName(
        f"--{key} {value}: no device matches; {kind} values: {', '.join(close or known[:30])}"
    )


def _list(rows: list[hwdb.Summary], width: int) -> Table:
    """A line per device, its price the rent that forecasts take; without price and year where the
    terminal is narrow.
    """
    from roofcast.hwdb.market import rent
    from roofcast.reports.console import fitted_table

    cells = []
    for row in rows:
        price, hour = "—", rent(hwdb.device(row.id))
        if hour is not None:
            price = f"{hourly(hour.median)}/h"
        elif row.launch_usd:
            price = f"${row.launch_usd:,.0f}"
        year, bandwidth = str(row.year or "—"), si(row.bandwidth, "B/s")
        cells.append([row.id, year, si(row.peak_flops), row.format, bandwidth,
                      binary(row.capacity), price])  # fmt: skip
    return fitted_table(width, _COLUMNS, cells, _SPARE)


@command.command("show", cls=Once)
@click.argument("name", metavar="DEVICE", shell_complete=completing("hardware"))
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help='Change one number: memory.bandwidth="8 TB/s". May be repeated.',
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def show_one(name: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Print every known number of DEVICE, a device, link or system, with its source and status.

    The status tells how well the number is documented: read in its source, measured, derived,
    recalled (not checked), estimated, given in your file, or edited.
    """
    from roofcast.reports.pages.hardware import print_record, to_json

    record = _record(name, setting(changes))
    print_json(to_json(record)) if as_json else print_record(record)


def _record(name: str, changes: dict[str, str | float | int]) -> Hardware:
    """The device of that name or file; else the system, else the link. Raises UnknownName."""
    from roofcast.hwdb.errors import similar

    if hwdb.names.is_path(name):
        what = "systems" if {"levels", "count"} & set(hwdb.reader.load(Path(name))) else "devices"
    else:
        exact = (folder for folder in FINDERS if name in hwdb.names.names(folder))
        what = next(exact, "") or next((f for f in FINDERS if _found(name, f)), "")
    if what in ("systems", "links"):
        if changes:
            raise BadInput(f"--set changes devices; {name} is one of the {what}")
        return FINDERS[what](name)
    others = [*similar(name, hwdb.systems()), *similar(name, hwdb.links())] if not what else []
    try:
        return hwdb.device(name, changes)
    except UnknownName as error:
        hint = f"; or the system or link {' or '.join(others[:3])}?" if others else ""
        raise UnknownName(f"{error}{hint}") from None


def _found(name: str, folder: str) -> bool:
    """Whether a name, in any spelling, is one of a folder's."""
    try:
        return bool(hwdb.names.resolve(name, folder))
    except UnknownName:
        return False
