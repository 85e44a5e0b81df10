"""What `roofcast validate` says of training runs on many devices: errors by source, beside a rule
of thumb and other tools.
"""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from pathlib import Path

from rich.text import Text

from roofcast.hwdb.errors import BadInput
from roofcast.reports.console import page, plain_table, say, section, show
from roofcast.reports.files import replacing
from roofcast.scenarios.measured import training as llm_runs
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
    "refused_because",
)
OTHERS = Path(llm_runs.HERE) / "others.toml"


def claims(path: str | Path) -> bool:
    """Is this a table of runs over many devices? Its first line that is no comment tells."""
    if str(path).endswith(".gz"):
        return False
    try:
        with open(path, encoding="utf-8", newline="") as file:
            head = next((line for line in file if not line.startswith("#")), "")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None
    return llm_runs.claims(next(csv.reader([head]), []))


def check_files(paths) -> list[Scored]:
    """Every row of the files; without any, of those that come with the project."""
    return score_all(
        [run for path in paths for run in llm_runs.read(path)] if paths else llm_runs.published()
    )


def write(scored: list[Scored], path: str) -> None:
    """The rows as they came, with ADDED columns."""
    fields = [*dict.fromkeys(key for s in scored for key in s.run.row if key not in ADDED), *ADDED]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for s in scored:
            writer.writerow(s.run.row | {key: _cell(value) for key, value in row_of(s).items()})


def row_of(s: Scored) -> dict:
    """The forecast of a row, by the names of ADDED."""
    return dict(
        zip(
            ADDED, (s.predicted_s, s.low_s, s.high_s, s.memory_gib, s.error, s.refused), strict=True
        )
    )


def _cell(value) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def to_json(scored: list[Scored]) -> dict:
    """Everything that is printed, and every row."""
    return {
        "overall": overall(scored),
        "sources": [line._asdict() for line in lines(scored)],
        "memory": [line._asdict() for line in memory_lines(scored)],
        "memory_told_apart": told_apart(scored),
        "other_tools": others(),
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


def others() -> list[dict]:
    """What other tools reach on rows of ours, where they say."""
    return tomllib.loads(OTHERS.read_text(encoding="utf-8"))["tool"]


def refusals(scored: list[Scored]) -> list[tuple[str, int]]:
    """Reasons and how many rows they refuse, the most frequent first."""
    return Counter(s.refused for s in scored if s.refused).most_common()


def print_part(scored: list[Scored], shipped: bool) -> None:
    """The tables. `shipped`: the rows are those that other tools were measured on too."""
    with page() as out:
        out.print(
            Text("Training on many devices: |predicted / measured - 1| in percent", style="bold")
        )
        found = lines(scored)
        if found:
            show(out, table_of(found, ("rule", "right")))
            total = overall(scored)
            parts = [
                f"{key} {100 * value:.1f}"
                for key, value in total.items()
                if key != "rows" and value == value
            ]
            say(
                out,
                f"{total['rows']} rows: {'; '.join(parts)}. Rule: 6ND with attention, 4/3 of it"
                " under full recomputation, at one MFU a device family and format, the best for"
                " these rows.",
                0,
            )
        if shipped:
            section(out, "What other tools reach")
            for tool in others():
                say(out, f"{tool['rows']}: {tool['errors']} ({tool['source']})", 0)
        memory = memory_lines(scored)
        if memory:
            section(out, "Peak memory")
            show(out, table_of(memory))
        ran, out_of = told_apart(scored).values()
        if out_of[1]:
            burst = f"{out_of[1] - out_of[0]} of {out_of[1]}"
            say(
                out,
                f"Of layouts that ran, {ran[0]} of {ran[1]} are forecast to fit; of those that ran"
                f" out of memory, {burst}.",
                0,
            )
        left_out = Counter((s.run.source, s.run.excluded) for s in scored if s.run.excluded)
        if left_out:
            section(out, "Not counted")
            for (source, reason), number in left_out.items():
                say(out, f"{source}: {reason}", first=f"{number:5d}  ")
        reasons = refusals(scored)
        if reasons:
            section(out, f"{sum(n for _, n in reasons)} rows without a forecast")
            for reason, number in reasons[:25]:
                say(out, reason, first=f"{number:5d}  ")


def table_of(found: list[Line], *more):
    """One line a source."""
    table = plain_table(
        ("", "fold"),
        ("rows", "right"),
        ("mean", "right"),
        ("median", "right"),
        ("bias", "right"),
        ("worst", "left"),
        *more,
    )
    for line in found:
        cells = [
            line.source or "no source given",
            f"{line.rows}" + (f" ({line.refused} refused)" if line.refused else ""),
            *(
                _percent(v, sign)
                for v, sign in ((line.mean, ""), (line.median, ""), (line.bias, "+"))
            ),
            (
                f"{line.worst} {_percent(line.worst_error, '+')}"
                if line.worst_error is not None
                else ""
            ),
        ]
        table.add_row(*cells, *([_percent(line.baseline, "")] if more else []))
    return table


def _percent(share: float | None, sign: str) -> str:
    return "" if share is None else f"{100 * share:{sign}.1f}"
