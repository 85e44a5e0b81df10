"""Measured servers beside their forecasts, as `roofcast validate --serving` shows them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.files import replacing
from roofcast.reports.parts import Console, Table
from roofcast.reports.progress import watched
from roofcast.scenarios.measured.cells import rows
from roofcast.scenarios.measured.serving.forecasts import (
    ADDED,
    QUANTITIES,
    Line,
    Scored,
    cells,
    lines,
    score_all,
    shipped,
)
from roofcast.scenarios.measured.serving.fronts import LIMITS, choices, regrets

WANTED = ("model", "engine", "device")
REASONS = 25  # that are printed
WORDS = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "output_tokens_per_s": "output tokens/s",
    "prefill_tokens_per_s": "prefill tokens/s",
}
LEGEND = (
    "median / mean: of |predicted / measured - 1|. bias: mean of predicted / measured - 1. near:"
    " share of rows from 0.8 to 1.25 of the measured value. held: share inside the 80 % interval."
    " In percent. fitted: a script fits constants of time to these values; left out: none to"
    " them nor to their software."
)
CHOICES = (
    "the layout whose forecasts reach the most tokens/s per device. best: percent of the choices"
    " that are the best measured layout; regret: what that one reaches more, in percent; missed:"
    " choices of which no measured run holds the limit."
)


def check(path: str) -> list[Scored]:
    """Every row of a table and its forecast; shipped: of those that come with Roofcast. Raises
    BadInput where it is no table of servers.
    """
    if path == "shipped":
        return list(score_all(watched(list(shipped()), "measured servers")))
    try:
        reader = rows(Path(path), "measured servers, .csv or .csv.gz")
        names = reader.fieldnames or ()
        missing = [name for name in WANTED if name not in names]
        if missing or not any(name in names for name in QUANTITIES):
            wanted = ", ".join((*WANTED, *QUANTITIES))
            raise BadInput(
                f"{path}: no column {missing[0] if missing else 'with a measured value'}; a table"
                f" of servers has the columns {wanted} ..."
            )
        table = list(reader)
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of measured servers ({error})") from None
    if not table:
        raise BadInput(f"{path}: no rows")
    return list(score_all(watched(table, "measured servers")))


def write(scored: Sequence[Scored], path: str) -> None:
    """Write the rows as they came, with the columns of ADDED."""
    names = [*dict.fromkeys(key for s in scored for key in s.row if key not in ADDED), *ADDED]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for s in scored:
            writer.writerow(s.row | cells(s))


def refusals(scored: Sequence[Scored]) -> list[tuple[str, int]]:
    """Reasons why rows with a measured value have no forecast, the most frequent first."""
    return Counter(s.refused for s in scored if s.refused and s.measured).most_common()


def answered(scored: Sequence[Scored]) -> tuple[int, int]:
    """Rows with a measured value and a forecast, and rows with a measured value."""
    measured = [s for s in scored if s.measured]
    return sum(not s.refused for s in measured), len(measured)


def to_json(scored: Sequence[Scored]) -> dict[str, Any]:
    """Everything that is printed, and every row."""
    found, measured = answered(scored)
    return {
        "rows_with_a_measured_value": measured,
        "answered": found,
        "errors": [line._asdict() for line in lines(scored)],
        "regret": [line._asdict() for line in regrets(choices(scored))],
        "refused": [{"reason": reason, "rows": count} for reason, count in refusals(scored)],
        "rows": [
            {
                "id": s.row.get("id", ""),
                "predicted": s.predicted._asdict(),
                "errors": {name: s.error(name) for name in QUANTITIES},
                "taken_as": s.taken,
                "suspect": s.suspect,
                "refused_because": s.refused,
            }
            for s in scored
        ],
    }


def print_part(scored: Sequence[Scored]) -> None:
    """Print the errors by source and quantity, and what has no forecast."""
    with page() as out:
        say(out, "Serving: errors by source and quantity", indent=0, style="bold")
        say(out, LEGEND, 0)
        every = lines(scored)
        show(out, _table([line for line in every if line.source], out.width - 2))
        section(out, "All sources together")
        show(out, _table([line for line in every if not line.source], out.width - 2))
        found, measured = answered(scored)
        if measured:
            share = f"{100 * found / measured:.1f}"
            say(out, f"{found:,} of {measured:,} rows with a measured value ({share} %) answered")
        _regrets(out, scored)
        doubts = Counter(s.suspect for s in scored if s.suspect and s.measured).most_common()
        if doubts:
            section(out, "Suspect rows, in no line above")
            for reason, count in doubts[:REASONS]:
                say(out, reason.replace("_", " "), first=f"{count:5d}  ")
        reasons = refusals(scored)
        if reasons:
            section(out, "Rows without a forecast")
            for reason, count in reasons[:REASONS]:
                say(out, reason, first=f"{count:5d}  ")


def _regrets(out: Console, scored: Sequence[Scored]) -> None:
    """What the chosen layouts give away, where several were measured."""
    found = regrets(choices(scored))
    if not found:
        return
    section(out, "Layouts chosen on measured fronts")
    limits = ", ".join(f"{1e3 * limit:.0f}" for limit in LIMITS)
    say(out, f"within {limits} ms per token: {CHOICES}", 0)
    columns: list[tuple[str, Justify]] = [
        ("source", "fold"), ("fronts", "right"), ("chosen", "right"), ("best", "right"),
        ("regret, median / mean", "right"), ("worst", "right"), ("missed", "right"),
    ]  # fmt: skip
    body = [
        [
            line.source or "all",
            str(line.fronts),
            str(line.chosen),
            f"{100 * line.same:.0f}",
            f"{100 * line.median:.1f} / {100 * line.mean:.1f}",
            f"{100 * line.worst:.0f}",
            str(line.missed),
        ]
        for line in found
    ]
    show(out, fitted_table(out.width - 2, columns, body, ("worst", "fronts")))


def _table(found: Sequence[Line], width: int) -> Table:
    columns: list[tuple[str, Justify]] = [
        ("source", "fold"), ("", "left"), ("status", "left"), ("rows", "right"),
        ("median / mean", "right"), ("bias", "right"), ("near", "right"), ("held", "right"),
    ]  # fmt: skip
    body = [
        [
            line.source or "all",
            WORDS[line.quantity],
            line.status or "all",
            str(line.rows),
            f"{100 * line.median:.1f} / {100 * line.mean:.1f}",
            f"{100 * line.bias:+.1f}",
            f"{100 * line.within:.0f}",
            f"{100 * line.inside:.0f}",
        ]
        for line in found
    ]
    return fitted_table(width, columns, body, ("held", "near", "bias"))
