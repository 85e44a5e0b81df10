"""roofcast devices"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import click

from roofcast import hwdb
from roofcast.hwdb.errors import UnknownName
from roofcast.reports.format import binary, si
from roofcast.reports.option_types import Once, OnceGroup, Whole, setting
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from roofcast.reports.console import Justify

MARKS = {  # after the key of a figure
    "*": "not used: no formula reads the figure",
    "+": "used only by roofcast crosscheck",
}
STATUSES = {
    "read": "seen in the source named",
    "measured": "from a public measurement log",
    "derived": "computed from other figures",
    "estimate": "no source publishes it",
    "recalled": "(not checked) from memory of the source named",
    "given": "from a file of yours",
    "edited": "changed with --set",
}
_FIGURES: list[tuple[str, Justify]] = [
    ("figure", "left"), ("value", "right"), ("status", "left"), ("source", "left")
]  # fmt: skip
NARROW = 12  # columns below which sources are not printed
WIDE = 100  # columns from which on the status of a recalled figure is printed in full
_COLUMNS: list[tuple[str, Justify]] = [
    ("device", "left"), ("year", "right"), ("peak FLOP/s", "right"), ("", "left"),
    ("bandwidth", "right"), ("memory", "right"), ("price", "right"),
]  # fmt: skip
_SPARE = (
    "price",
    "year",
    "",
    "memory",
)  # columns that a narrow terminal does not show, the first first
DIRECTED = ("scale_up.bandwidth", "achieved.pair_copy")  # rates of one direction


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
        out.print(f"{len(rows)} devices. Figures and sources of one: roofcast devices show NAME")


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
    """A line per device; without price and year where the terminal is narrow."""
    from roofcast.reports.console import fitted_table

    cells = []
    for row in rows:
        price = "—"
        if row.cloud_usd_per_hour:
            price = f"${row.cloud_usd_per_hour:.2f}/h"
        elif row.launch_usd:
            price = f"${row.launch_usd:,.0f}"
        year, bandwidth = str(row.year or "—"), si(row.bandwidth, "B/s")
        cells.append([row.id, year, si(row.peak_flops), row.format, bandwidth,
                      binary(row.capacity), price])  # fmt: skip
    return fitted_table(width, _COLUMNS, cells, _SPARE)


def _value(key: str, figure: float, unit: str) -> str:
    """The figure to five digits; bytes with binary prefixes, as memory is sold."""
    if key in DIRECTED:
        return f"{hwdb.pretty(figure, unit)}\nper direction"
    if unit == "1" and key.startswith("achieved."):
        return f"{hwdb.pretty(figure, unit)} of peak"
    if unit != "B":
        return hwdb.pretty(figure, unit)
    number, unit = binary(figure, 5).split()
    return f"{float(number):g} {unit}"


def _mark(key: str) -> str:
    """The one of MARKS that applies to a figure; "" where a forecast depends on it."""
    from roofcast.hwdb import records

    if key in records.SHOWN_ONLY[records.Device]:
        return "*"
    return "+" if key in records.CROSSCHECK_ONLY else ""


def _source(figure: hwdb.Figure) -> str:
    """Source of a figure and the place in it."""
    where = re.sub(r"\bprinted (?=\d)", "source prints ", figure.where)
    return ": ".join(part for part in (figure.source, where) if part)


@command.command("show", cls=Once)
@click.argument("name", metavar="DEVICE")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help='Change one number: memory.bandwidth="8 TB/s". May be repeated.',
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def show_one(name: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Print every known number of DEVICE with its source and status.

    The status tells how well the number is documented: read in its source, measured, derived,
    recalled (not checked), estimated, given in your file, or edited.
    """
    device = hwdb.device(name, setting(changes))
    figures = hwdb.figures(device)
    if as_json:
        print_json(_json(device, figures))
        return
    from roofcast.reports.console import page, say, show

    known = (device.vendor, device.architecture, device.year)
    made = ", ".join(str(part) for part in known if part)
    with page() as out:
        out.print(f"{device.id}: {device.name}" + (f" ({made})" if made else ""), style="bold")
        table = _figures(figures, out.width)
        show(out, table)
        if len(table.columns) < len(_FIGURES):
            say(out, "sources of the figures: in a wider terminal, or with --json")
        for line in _legend(figures):
            say(out, line)
        for source, citation in device.sources.items():
            say(out, citation, first=f"{source}: ")
        for note in (*device.edits, *device.notes):
            say(out, note, first="note: ")


def _figures(figures: list[tuple[str, hwdb.Figure, str]], width: int) -> Table:
    """Figures with value, status and source; no word is broken that has room on a line.

    A narrow terminal has no room for sources.
    """
    from roofcast.reports.console import fitted_table, wrapped

    rows = []
    for key, figure, unit in figures:
        unchecked = figure.status == "recalled" and width >= WIDE
        status = "recalled\n(not checked)" if unchecked else figure.status
        rows.append([f"{key} {_mark(key)}".rstrip(), _value(key, figure, unit), status, ""])
    taken = [max(len(line) for row in rows for line in row[i].split("\n")) for i in range(3)]
    room = width - sum(taken) - 2 * (len(taken) + 1)
    for row, (_, figure, _) in zip(rows, figures, strict=True):
        row[-1] = wrapped(_source(figure), max(room, NARROW))
    return fitted_table(width - 2, _FIGURES, rows, ("source", "status"))


def _legend(figures: list[tuple[str, hwdb.Figure, str]]) -> list[str]:
    """One line for each status and mark that occurs, and for fractions of peak."""
    seen = {figure.status for _, figure, _ in figures}
    lines = [f"status {status}: {text}" for status, text in STATUSES.items() if status in seen]
    marks = {_mark(key) for key, _, _ in figures}
    lines += [f"{mark} {text}" for mark, text in MARKS.items() if mark in marks]
    if any(unit == "1" and key.startswith("achieved.") for key, _, unit in figures):
        lines.append("of peak: fraction of the peak_flops of the format, or of memory.bandwidth")
    return lines


def _json(device: hwdb.Device, figures: list[tuple[str, hwdb.Figure, str]]) -> dict[str, object]:
    return {
        "device": device.id,
        "name": device.name,
        "figures": [
            {
                "key": key,
                "value": float(figure),
                "unit": unit,
                "status": figure.status,
                "source": figure.source,
                "where": figure.where,
            }
            for key, figure, unit in figures
        ],
        "sources": dict(device.sources),
        "notes": list(device.notes),
    }
