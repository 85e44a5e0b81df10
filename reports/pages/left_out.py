"""Errors of left-out runs for reading: `roofcast validate --blind-like`."""

from __future__ import annotations

from typing import Any

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.parts import Console, Text
from roofcast.reports.tables.left_out import LEAST, LeftOut, Line, refitted
from roofcast.simulator.forecast.interval import WAYS

LEGEND = (
    "error: |predicted / measured - 1|, median / mean over runs; by source: mean over sources of"
    " each source's mean. bias: median of predicted / measured - 1 (negative: forecasts are too"
    " short). inside: percent of runs inside the 80 % interval, every source with the same weight;"
    " the interval is calibrated without the run's source. interval: measured / predicted."
)
COLUMNS: tuple[tuple[str, Justify], ...] = (
    ("", "fold"), ("sources", "right"), ("rows", "right"), ("error", "right"),
    ("by source", "right"), ("bias", "right"), ("inside", "right"), ("interval", "right"),
)  # fmt: skip


def print_left_out(of: LeftOut) -> None:
    """Print the tables."""
    with page() as out:
        out.print(Text("Errors of runs that were left out, in percent", style="bold"))
        say(out, LEGEND, 0)
        for way, meaning in WAYS.items():
            for title, lines in (("kind", of.by_kind()), ("class of forecast", of.by_class())):
                mine = [line for line in lines if line.way == way]
                if mine:
                    section(out, f"Left out by {way} ({meaning}), by {title}")
                    _show(out, mine)
        section(out, f"Sources of at least {LEAST} rows that are biased by more than 10 %")
        _show(out, of.biased(), ways=True)
        say(out, refitted(), 0)


def _show(out: Console, lines: list[Line], ways: bool = False) -> None:
    rows = [cells(line, f"{line.name} (by {line.way})" if ways else line.name) for line in lines]
    show(out, fitted_table(out.width - 2, COLUMNS, rows, ("interval", "by source")))


def cells(line: Line, name: str) -> list[str]:
    """The line as texts, by COLUMNS."""
    both = "" if line.low is None else f"{line.low:.2f} to {line.high:.2f}"
    return [
        name,
        f"{line.sources}",
        f"{line.rows}",
        f"{100 * line.median:.1f} / {100 * line.mean:.1f}",
        f"{100 * line.mean_of_sources:.1f}",
        f"{100 * line.bias:+.1f}",
        f"{100 * line.inside:.0f}",
        both,
    ]


def to_json(of: LeftOut) -> dict[str, Any]:
    """Everything that is printed."""
    return {
        "ways": dict(WAYS),
        "refitted": refitted(),
        "by_kind": [line._asdict() for line in of.by_kind()],
        "by_class": [line._asdict() for line in of.by_class()],
        "biased_sources": [line._asdict() for line in of.biased()],
    }
