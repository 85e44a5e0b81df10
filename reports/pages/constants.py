"""The list of constants that `roofcast validate --constants` prints."""

from __future__ import annotations

from typing import Any

from roofcast.reports.console import page, plain_table, say, section, show
from roofcast.reports.tables.constants import KINDS, PARTS, Constant, constants, counts


def to_json() -> dict[str, Any]:
    """Every constant, and how many there are."""
    rows = constants()
    return {
        "constants": [row._asdict() for row in rows],
        "number": len(rows),
        "counts": counts(rows),
    }


def print_constants() -> None:
    """The constants by kind, and how many of each there are."""
    rows = constants()
    with page() as out:
        for kind, title in KINDS.items():
            members = [row for row in rows if row.kind == kind]
            section(out, f"{len(members)} {title}")
            for row in members:
                say(out, _described(row), first=f"{row.name}  ")
        section(out, "Number of constants")
        table = plain_table(("", "left"), *((kind, "right") for kind in (*KINDS, "all")))
        for part, by_kind in counts(rows).items():
            cells = [f"{number or ''}" for number in by_kind.values()]
            table.add_row(PARTS[part], *cells, f"{sum(by_kind.values())}")
        show(out, table)
        out.print()
        say(out, summary(rows), 0)


def _described(row: Constant) -> str:
    values = row.value if isinstance(row.value, list) else [row.value]
    residual = f" ({row.residual})" if row.residual else ""
    read = "" if row.read_by_forecasts else " No forecast reads it."
    number = ", ".join(f"{value:g}" for value in values)
    unit = "" if row.unit == "1" else f" {row.unit}"
    return f"{number}{unit}: {row.meaning}. {row.source}{residual}.{read} [{row.where}]"


def summary(rows: list[Constant]) -> str:
    """The counts in a sentence."""
    fitted = [row for row in rows if row.kind == "fitted"]
    formulas = [row for row in fitted if row.part in ("kernels", "collectives", "stacks")]
    few, means, ceilings = (
        sum(row.role == role for row in some)
        for role, some in (("constant", formulas), ("mean", formulas), ("ceiling", fitted))
    )
    errors = sum(row.part == "intervals" for row in fitted)
    unread = sum(row.part == "devices" and not row.read_by_forecasts for row in rows)
    return (
        f"{len(rows)} constants, {len(fitted)} of them fitted: {few} fitted constants of formulas"
        f" and stacks, {ceilings} achieved fractions of device families, {means} means of families"
        f" for devices that have none, {errors} numbers of intervals. {unread} are"
        " measurements in device files that no forecast reads."
    )
