"""Whole trainings beside their forecasts, as `roofcast validate --campaigns` shows them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from typing import Any

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.files import replacing
from roofcast.reports.format import digits, percent
from roofcast.reports.progress import watched
from roofcast.scenarios.campaigns.forecasts import Line, Range, Trained, lines, read, score

FIGURES = ("predicted_device_hours", "predicted_energy_mwh", "predicted_goodput")
ENDS = ("", "_low", "_high")
WORDS = ("hours_kind", "group", "assumed", "refused_because")
ADDED = (*(f"{name}{end}" for name in FIGURES for end in ENDS), *WORDS)
MEANING = {
    "wall": "wall time of one run, times its devices",
    "rate": "a rate times a length; forecast without overhead",
    "fleet": "accounting of a fleet, with whatever else it ran",
    "derived": "derived by the source from an assumed rate",
}
COLUMNS: tuple[tuple[str, Justify], ...] = (
    ("hours", "left"), ("of", "left"), ("rows", "right"), ("compared", "right"),
    ("stated / forecast", "right"), ("by model", "right"), ("quartiles", "right"),
    ("in 80 %", "right"),
)  # fmt: skip
REASONS = 12  # that are printed


def check_files(paths: Sequence[str]) -> list[Trained]:
    """Every row of the files and its forecast. Raises BadInput."""
    rows = [row for path in paths for row in read(path)]
    return [score(row) for row in watched(rows, "whole trainings")]


def row_of(t: Trained) -> dict[str, str]:
    """The forecast of a row, by the names of ADDED."""
    cells: dict[str, str] = {}
    for name, value in zip(FIGURES, (t.hours, t.energy, t.goodput), strict=True):
        parts: Sequence[float | None] = value if value is not None else (None,) * len(Range._fields)
        for end, part in zip(ENDS, parts, strict=True):
            cells[f"{name}{end}"] = "" if part is None else f"{part:.6g}"
    told = (t.kind, t.group, "; ".join(t.assumed), t.refused)
    return cells | dict(zip(WORDS, told, strict=True))


def write(found: Sequence[Trained], path: str) -> None:
    """Write the rows as they came, with the columns of ADDED."""
    fields = [*dict.fromkeys(key for t in found for key in t.row if key not in ADDED), *ADDED]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for t in found:
            writer.writerow(t.row | row_of(t))


def to_json(found: Sequence[Trained]) -> dict[str, Any]:
    """The summary and every row."""
    return {
        "summary": [line._asdict() for line in lines(found)],
        "rows": [{"id": t.row.get("id", ""), **row_of(t)} for t in found],
    }


def print_campaigns(found: Sequence[Trained]) -> None:
    """Print the summary by kind and group, and why rows have no forecast."""
    answered = sum(t.hours is not None for t in found)
    with page() as out:
        text = f"Whole trainings: {answered:,} of {len(found):,} rows forecast"
        say(out, text, indent=0, style="bold")
        kinds = Counter(t.kind for t in found)
        forecast = Counter(t.kind for t in found if t.hours is not None)
        parts = ", ".join(f"{kind} {forecast[kind]:,} of {n:,}" for kind, n in kinds.items())
        say(out, f"by kind of hours: {parts}")
        shown = [line for line in lines(found) if line.compared]
        spare = ("quartiles", "rows")
        show(out, fitted_table(out.width - 2, COLUMNS, [_cells(line) for line in shown], spare))
        for kind in dict.fromkeys(line.kind for line in shown):
            say(out, f"{kind}: {MEANING[kind]}", style="dim")
        note = (
            "stated / forecast: median over rows; by model: over models, each with the median of"
            " its rows; in 80 %: rows within the interval, sources with equal weight"
        )
        say(out, note, style="dim")
        reasons = Counter(t.refused for t in found if t.refused)
        if reasons:
            section(out, "Not forecast")
            for why, count in reasons.most_common(REASONS):
                say(out, f"{count:,} x {why}", first="- ")
            if len(reasons) > REASONS:
                say(out, f"and {len(reasons) - REASONS} other reasons (-o writes all)")


def _cells(line: Line) -> tuple[str, ...]:
    assert line.ratio is not None and line.by_model is not None
    assert line.low is not None and line.high is not None
    return (
        line.kind,
        f"{line.group}s",
        f"{line.rows:,}",
        f"{line.compared:,}",
        digits(line.ratio),
        digits(line.by_model),
        f"{digits(line.low)} to {digits(line.high)}",
        percent(line.held) if line.held is not None else "",
    )
