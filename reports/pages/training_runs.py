"""Training runs on many devices, as `roofcast validate` shows them: errors by source, beside a rule
of thumb and other tools.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.reports.console import Justify, fitted_table, page, plain_table, say, section, show
from roofcast.reports.files import replacing
from roofcast.reports.parts import Console, Table, Text
from roofcast.reports.progress import watched
from roofcast.scenarios.measured import training as llm_runs
from roofcast.scenarios.measured.cells import rows
from roofcast.scenarios.measured.heard import COLUMNS, heard
from roofcast.scenarios.measured.scores import (
    Line,
    Scored,
    lines,
    memory_lines,
    overall,
    score_all,
    told_apart,
)

ADDED = (
    "predicted_iter_time_s",
    "predicted_low_s",
    "predicted_high_s",
    "predicted_peak_mem_gib",
    "error",
    *COLUMNS,
    "refused_because",
)
OTHERS = Path(llm_runs.HERE) / "others.toml"
TOOL = ("rows", "errors", "source")  # keys of a tool in JSON
REASONS = 25  # that are printed
LEGEND = (
    "median / mean: of |predicted / measured - 1|. bias: mean of predicted / measured - 1"
    " (negative: the forecast is too short). worst: the row with the largest error. 6ND: mean error"
    " of a rule of thumb: model FLOPs (about 6 per parameter and token, plus attention; 4/3 of that"
    " under full recomputation) at one MFU per device family and number format, chosen as the best"
    " for these very rows."
)
TOTALS = {  # kinds of models: keys of `overall` for the mean of rows and of sources
    "all models": ("all rows", "mean of sources"),
    "dense": ("dense, all rows", "dense, mean of sources"),
    "mixtures of experts": ("mixtures of experts", ""),
}


def claims(path: str | Path) -> bool:
    """Whether a table holds runs on many devices, by its header. Raises BadInput."""
    try:
        return llm_runs.claims(rows(Path(path), llm_runs.WHAT).fieldnames or ())
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None


def check_files(paths: Sequence[str | Path]) -> list[Scored]:
    """Every row of the files and its forecast; without files, the shipped rows."""
    runs = [run for path in paths for run in llm_runs.read(path)]
    rows = list(runs if paths else llm_runs.published())
    return score_all(watched(rows, "training runs on many devices"))


def write(scored: list[Scored], path: str) -> None:
    """Write the rows as they came, with the columns of ADDED."""
    fields = [*dict.fromkeys(key for s in scored for key in s.run.row if key not in ADDED), *ADDED]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for s in scored:
            writer.writerow(s.run.row | {key: _cell(value) for key, value in row_of(s).items()})


def row_of(s: Scored) -> dict[str, float | str | None]:
    """The forecast of a row, by the names of ADDED."""
    taken = heard(s.run.scenario) if s.run.scenario and not s.refused else {}
    words = (taken.get(column, "") for column in COLUMNS)
    values = (s.predicted_s, s.low_s, s.high_s, s.memory_gib, s.error, *words, s.refused)
    return dict(zip(ADDED, values, strict=True))


def _cell(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def to_json(scored: list[Scored]) -> dict[str, Any]:
    """Everything that is printed, and every row."""
    return {
        "overall": {key: n for key, n in overall(scored).items() if not math.isnan(n)},
        "sources": [line._asdict() for line in lines(scored)],
        "memory": [line._asdict() for line in memory_lines(scored)],
        "memory_told_apart": told_apart(scored),
        "other_tools": [{key: tool[key] for key in TOOL} for tool in others()],
        "excluded": [{"id": s.run.id, "reason": s.run.excluded} for s in scored if s.run.excluded],
        "refused": [{"reason": reason, "rows": number} for reason, number in refusals(scored)],
        "rows": [
            {
                "id": s.run.id,
                "source": s.run.source,
                "measured_iter_time_s": s.run.measured_s,
                "measured_peak_mem_gib": s.run.memory_gib,
                "assumptions": s.run.assumptions,
                **row_of(s),
            }
            for s in scored
        ],
    }


def others() -> list[dict[str, str]]:
    """Errors that other tools report on the same rows, with the keys of TOOL, perhaps also `ours`
    (the source that has a part of these rows) and `note` (printed with the number of that part).
    """
    tools: list[dict[str, str]] = tomllib.loads(OTHERS.read_text(encoding="utf-8"))["tool"]
    return tools


def refusals(scored: list[Scored]) -> list[tuple[str, int]]:
    """Reasons and how many rows they refuse, the most frequent first."""
    return Counter(s.refused for s in scored if s.refused).most_common()


def print_part(scored: list[Scored], shipped: bool) -> None:
    """Print the tables. `shipped`: these are the shipped rows, so other tools can be compared."""
    with page() as out:
        out.print(Text("Training on many devices: errors in percent", style="bold"))
        _print_errors(out, scored)
        if shipped:
            section(out, "Errors of other tools, mean")
            rows = {line.source: line.rows for line in lines(scored)}
            for tool in others():
                note = tool.get("note", "").format(rows=rows.get(tool.get("ours", "")))
                notes = "; ".join(filter(None, (tool["source"], note)))
                say(out, f"{tool['rows']}: {tool['errors']} ({notes})", 0)
        _print_memory(out, scored)
        left_out = Counter((s.run.source, s.run.excluded) for s in scored if s.run.excluded)
        if left_out:
            section(out, "Rows that do not count")
            for (source, reason), number in left_out.items():
                say(out, f"{source}: {reason}", first=f"{number:5d}  ")
        reasons = refusals(scored)
        if reasons:
            section(out, f"{number_of(sum(n for _, n in reasons), 'row')} without a forecast")
            for reason, number in reasons[:REASONS]:
                say(out, reason, first=f"{number:5d}  ")


def _print_errors(out: Console, scored: list[Scored]) -> None:
    found = lines(scored)
    if not found:
        return
    say(out, LEGEND, 0)
    show(out, table_of(found, out.width - 2, rule=True))
    total = overall(scored)
    section(out, f"All sources together, {total['rows']} rows: mean error")
    table = plain_table(("", "left"), ("mean of rows", "right"), ("mean of sources", "right"))
    for kind, keys in TOTALS.items():
        values = [total.get(key, math.nan) for key in keys]
        if not all(map(math.isnan, values)):
            table.add_row(kind, *("" if math.isnan(v) else _percent(v) for v in values))
    show(out, table)
    if total["refused"] > 0:
        say(out, f"{_percent(total['refused'])} % of the rows have no forecast.", 0)


def _print_memory(out: Console, scored: list[Scored]) -> None:
    memory = memory_lines(scored)
    if memory:
        section(out, "Peak memory: errors in percent")
        show(out, table_of(memory, out.width - 2))
    ran, out_of = told_apart(scored).values()
    if out_of[1]:
        say(
            out,
            f"Forecast to fit: {ran[0]} of {ran[1]} layouts that ran, and"
            f" {out_of[1] - out_of[0]} of {out_of[1]} that ran out of memory.",
            0,
        )


def table_of(found: list[Line], width: int, rule: bool = False) -> Table:
    """One line per source, in `width` columns; `rule` adds the error of the rule of thumb."""
    columns: list[tuple[str, Justify]] = [("", "fold")]
    columns += [(name, "right") for name in ("rows", "median / mean", "bias")]
    columns.append(("worst", "left"))
    if rule:
        columns.append(("6ND", "right"))
    rows = []
    for line in found:
        refused = f" ({line.refused} refused)" if line.refused else ""
        worst = (
            "" if line.worst_error is None else f"{line.worst} {_percent(line.worst_error, '+')}"
        )
        cells = [
            line.source or "no source given",
            f"{line.rows}{refused}",
            "" if line.mean is None else f"{_percent(line.median)} / {_percent(line.mean)}",
            _percent(line.bias, "+"),
            worst,
        ]
        rows.append([*cells, *([_percent(line.baseline)] if rule else [])])
    return fitted_table(width, columns, rows, ("worst", "6ND")[: 1 + rule])


def _percent(share: float | None, sign: str = "") -> str:
    return "" if share is None else f"{100 * share:{sign}.1f}"
