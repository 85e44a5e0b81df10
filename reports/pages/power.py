"""`roofcast validate --power`: forecasts beside measured watts, by kind and scope."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from typing import Any

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.files import replacing
from roofcast.reports.format import percent
from roofcast.scenarios.measured.cells import text
from roofcast.scenarios.measured.power_answers import Answered
from roofcast.scenarios.measured.power_errors import Line, band, lines

QUANTITIES = ("power_w", "time_s", "energy_j")
ADDED = (
    *(f"predicted_{q}{end}" for q in QUANTITIES for end in ("", "_low", "_high")),
    "predicted_pue", "scope_of_prediction", "compared", "refused_because",
)  # fmt: skip
SHOWN = 12  # reasons
LEGEND = (
    "watts, time: mean of |forecast / measured - 1|; bias: mean of forecast / measured - 1. Time is"
    " compared under power caps only, as a ratio to the highest cap of the same run. held: part of"
    " the watts inside the 80 % interval that the other workloads of the kind give. Scopes: board;"
    " accelerator: with its share of host, NICs and fans, behind the power supplies; node: at the"
    " plug; package: of a processor."
)


def print_power(found: Sequence[Answered]) -> None:
    """Print errors by kind and scope, and what is refused."""
    with page() as out:
        answered = sum(not each.answer.refused for each in found)
        say(out, f"{len(found):,} measured rows, {answered:,} forecast", indent=0, style="bold")
        out.print()
        columns: list[tuple[str, Justify]] = [
            ("kind", "left"), ("scope", "left"), ("rows", "right"), ("watts", "right"),
            ("median", "right"), ("bias", "right"), ("time", "right"), ("held", "right"),
        ]  # fmt: skip
        rows = [_row(line) for line in lines(found)]
        show(out, fitted_table(out.width - 2, columns, rows, ["median", "held"]))
        out.print()
        say(out, LEGEND, style="dim")
        how = Counter(each.answer.compared for each in found if each.answer.compared)
        section(out, "What is compared")
        for words, count in how.most_common(SHOWN):
            say(out, words, first=f"{count:,}: ")
        why = Counter(each.answer.refused for each in found if each.answer.refused)
        if why:
            section(out, "Refused")
            for words, count in why.most_common(SHOWN):
                say(out, words, first=f"{count:,}: ")


def _row(line: Line) -> list[str]:
    cells = (line.power, line.power_median, line.bias, line.time, line.coverage)
    shown = ["—" if value is None else percent(value) for value in cells]
    if line.bias is not None:
        shown[2] = f"{100 * line.bias:+.0f} %"
    return [line.kind, line.scope, f"{line.rows:,}", *shown]


def row_of(each: Answered) -> dict[str, str]:
    """The forecast of a row, by the names of ADDED."""
    a, kind = each.answer, text(each.row, "kind")
    power, time = band(kind, "power"), band(kind, "time")
    held = (1.0, 1.0) if a.anchor else time
    spread = {
        "power_w": (a.power_w, power),
        "time_s": (a.time_s, held),
        "energy_j": (a.energy_j, (power[0] * held[0], power[1] * held[1])),
    }
    cells: dict[str, str] = {}
    for name, (value, (low, high)) in spread.items():
        ends = {"": 1.0, "_low": low, "_high": high}
        for end, factor in ends.items():
            cells[f"predicted_{name}{end}"] = "" if value is None else f"{value * factor:.6g}"
    pue = "" if a.pue is None else f"{a.pue:g}"
    words = (pue, a.scope, a.compared, a.refused)
    return cells | dict(zip(ADDED[-4:], words, strict=True))


def write(found: Sequence[Answered], path: str) -> None:
    """Write the rows as they came, with the columns of ADDED."""
    fields = [*dict.fromkeys(key for e in found for key in e.row if key not in ADDED), *ADDED]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for each in found:
            writer.writerow(each.row | row_of(each))


def to_json(found: Sequence[Answered]) -> dict[str, Any]:
    """Errors by kind and scope."""
    return {"rows": len(found), "power": [line._asdict() for line in lines(found)]}
