"""One device, link or system, for reading: every number with its source and status."""

from __future__ import annotations

import re
from typing import Any

from roofcast import hwdb
from roofcast.hwdb import records
from roofcast.hwdb.listing import Hardware, figures, texts
from roofcast.hwdb.market import rent
from roofcast.reports.console import Justify, fitted_table, page, say, show, wrapped
from roofcast.reports.format import binary
from roofcast.reports.pages.price import price_words
from roofcast.reports.parts import Table

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
DIRECTED = ("scale_up.bandwidth", "achieved.pair_copy")  # rates of one direction

Row = tuple[str, hwdb.Figure, str]  # dotted key, figure, unit


def print_record(record: Hardware) -> None:
    """Print every known number and text of a device, link or system to stdout."""
    found, kind = figures(record), type(record)
    made = ", ".join(str(part) for part in _made(record) if part)
    with page() as out:
        title = f"{record.id}: {record.name}" + (f" ({made})" if made else "")
        say(out, title, indent=0, style="bold")
        if not isinstance(record, records.Device):
            for key, text in texts(record).items():
                say(out, text, first=f"{key}: ")
            say(out, "bandwidths are in one direction")
        table = _table(found, kind, out.width)
        show(out, table)
        if len(table.columns) < len(_FIGURES):
            say(out, "sources of the figures: in a wider terminal, or with --json")
        for line in (*_legend(found, kind), *_rent(record)):
            say(out, line)
        for name, citation in record.sources.items():
            say(out, citation, first=f"{name}: ")
        for note in (*getattr(record, "edits", ()), *record.notes):
            say(out, note, first="note: ")


def _made(record: Hardware) -> tuple[object, ...]:
    """Who made it, what it is, and when."""
    names = ("vendor", "architecture", "year", "role")
    return tuple(getattr(record, name, None) for name in names)


def to_json(record: Hardware) -> dict[str, Any]:
    """The same as one object, in SI units."""
    more = {} if isinstance(record, records.Device) else texts(record)
    rows = [
        {
            "key": key,
            "value": float(figure),
            "unit": unit,
            "status": figure.status,
            "source": figure.source,
            "where": figure.where,
        }
        for key, figure, unit in figures(record)
    ]
    return {
        type(record).__name__.lower(): record.id,
        "name": record.name,
        **more,
        "figures": rows,
        "sources": dict(record.sources),
        "notes": list(record.notes),
    }


def value(key: str, figure: float, unit: str) -> str:
    """The figure to five digits; bytes with binary prefixes, as memory is sold."""
    if key in DIRECTED:
        return f"{hwdb.pretty(figure, unit)}\nper direction"
    if unit == "1" and key.startswith("achieved."):
        return f"{hwdb.pretty(figure, unit)} of peak"
    if unit != "B":
        return hwdb.pretty(figure, unit)
    number, unit = binary(figure, 5).split()
    return f"{float(number):g} {unit}"


def mark(key: str, kind: type[Hardware] = records.Device) -> str:
    """The one of MARKS that applies to a figure; "" where a forecast depends on it."""
    if key in records.SHOWN_ONLY[kind]:
        return "*"
    return "+" if kind is records.Device and key in records.CROSSCHECK_ONLY else ""


def source(figure: hwdb.Figure) -> str:
    """Source of a figure and the place in it."""
    where = re.sub(r"\bprinted (?=\d)", "source prints ", figure.where)
    return ": ".join(part for part in (figure.source, where) if part)


def _table(found: list[Row], kind: type[Hardware], width: int) -> Table:
    """Figures with value, status and source; no word is broken that has room on a line.

    A narrow terminal has no room for sources.
    """
    rows = []
    for key, figure, unit in found:
        unchecked = figure.status == "recalled" and width >= WIDE
        status = "recalled\n(not checked)" if unchecked else figure.status
        rows.append([f"{key} {mark(key, kind)}".rstrip(), value(key, figure, unit), status, ""])
    taken = [max(len(line) for row in rows for line in row[i].split("\n")) for i in range(3)]
    room = width - sum(taken) - 2 * (len(taken) + 1)
    for row, (_, figure, _) in zip(rows, found, strict=True):
        row[-1] = wrapped(source(figure), max(room, NARROW))
    return fitted_table(width - 2, _FIGURES, rows, ("source", "status"))


def _rent(record: Hardware) -> list[str]:
    """The price that forecasts take, where it is not the one in the device's file."""
    if not isinstance(record, records.Device):
        return []
    price = rent(record)
    if price is None or price.of_class == "listed":
        return []
    listed = "; price.cloud_usd_per_hour is shown only" if record.price.cloud_usd_per_hour else ""
    return [f"rent in forecasts: {price_words(price)} (hwdb/prices){listed}"]


def _legend(found: list[Row], kind: type[Hardware]) -> list[str]:
    """One line for each status and mark that occurs, and for fractions of peak."""
    seen = {figure.status for _, figure, _ in found}
    lines = [f"status {status}: {text}" for status, text in STATUSES.items() if status in seen]
    marks = {mark(key, kind) for key, _, _ in found}
    lines += [f"{sign} {text}" for sign, text in MARKS.items() if sign in marks]
    if any(unit == "1" and key.startswith("achieved.") for key, _, unit in found):
        lines.append("of peak: fraction of the peak_flops of the format, or of memory.bandwidth")
    return lines
