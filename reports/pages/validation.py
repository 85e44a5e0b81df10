"""The tables of runs and kernels that `roofcast validate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roofcast.reports.console import Justify, page, plain_table, say, section, show
from roofcast.reports.tables.validation import Checked, Summary, refusals, summarise, worst

if TYPE_CHECKING:
    import pandas as pd

REASONS = 25  # that are printed
WIDE = 110  # columns from which on the worst row of each group is printed


def percent(share: float, sign: str = "") -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * share:{sign}.1f}"


def print_validation(
    checked: list[Checked], kernels: pd.DataFrame | None, listed: set[str]
) -> None:
    """Print the errors of runs, what could not be forecast, and the errors of kernels.

    Sources in `listed` are in a table above: they count in the classes of intervals alone.
    """
    with page() as out:
        if any(c.predicted is not None for c in checked):
            _print_runs(out, checked, listed)
        _print_refusals(out, [c for c in checked if c.run.source not in listed])
        if kernels is not None:
            if checked:
                out.print()
            out.print(
                Text("Kernels: |predicted / measured - 1| in percent, median / mean", style="bold")
            )
            show(out, kernel_table(kernels))


def _print_runs(out: Console, checked: list[Checked], listed: set[str]) -> None:
    groups = [g for g in summarise(checked) if g.group[0] not in listed]
    say(
        out,
        "Runs: |predicted / measured - 1| in percent, median / mean; bias: median of predicted /"
        " measured - 1; roofline: error of the lower bound at datasheet peaks; 80 %: share of the"
        " measured times inside that interval.",
        0,
    )
    for source in dict.fromkeys(g.group[0] for g in groups):
        section(out, source or "no source given")
        show(out, run_table([g for g in groups if g.group[0] == source], out.width))
    section(out, "By class of interval")
    classes = summarise(checked, lambda c: ("", c.klass))
    show(out, run_table([*classes, *summarise(checked, lambda c: ("", "all"))], out.width))
    section(out, "Largest errors")
    show(out, _worst_table(checked, out.width))


def _worst_table(checked: list[Checked], width: int) -> Table:
    table = plain_table(("model", "left"), ("", "fold"), ("measured", "right"), ("error", "right"))
    for c in worst(checked):
        batch = f"batch {c.run.scenario.batch}" if c.run.scenario else ""
        table.add_row(
            shortened(c.model.rpartition("/")[2], 24),
            shortened(" ".join(filter(None, (*c.group[1:], batch))), width - 50),
            f"{1e3 * c.measured_s:.4g} ms",
            percent(c.error or 0.0, "+"),
        )
    return table


def _print_refusals(out: Console, checked: list[Checked]) -> None:
    """Reasons why rows have no forecast, the most frequent first."""
    reasons = refusals(checked)
    if not reasons:
        return
    section(out, f"{sum(n for _, n in reasons)} rows without a forecast")
    for reason, number in reasons[:REASONS]:
        say(out, reason, first=f"{number:5d}  ")
    rest = reasons[REASONS:]
    if rest:
        rows = sum(n for _, n in rest)
        say(out, f"{rows} rows for {len(rest)} further reasons (--json or -o has all)")


def run_table(groups: list[Summary], width: int) -> Table:
    """One line per group; its worst row where the terminal is wide enough."""
    wide = width >= WIDE
    more: list[tuple[str, Justify]] = [("worst", "left")] if wide else []
    table = plain_table(("", "left"), *_numbers("rows", "error", "bias", "roofline", "80 %"), *more)
    for g in groups:
        cells = [
            shortened(" ".join(filter(None, g.group[1:])), width - (72 if wide else 50)),
            str(g.rows),
            f"{percent(g.median)} / {percent(g.mean)}",
            percent(g.bias, "+"),
            f"{percent(g.roofline_median)} / {percent(g.roofline_mean)}",
            f"{100 * g.inside:.0f}",
        ]
        table.add_row(*cells, *([g.worst] if wide else []))
    return table


def _numbers(*names: str) -> list[tuple[str, Justify]]:
    return [(name, "right") for name in names]


def shortened(text: str, width: int) -> str:
    """The text, cut to the width (at least 20) with an ellipsis."""
    width = max(width, 20)
    return text if len(text) <= width else text[: width - 1] + "…"


def kernel_rows(kernels: pd.DataFrame) -> list[dict[str, Any]]:
    """Errors of the kernel formulas, one dict per file, device, kind and format."""
    from roofcast.scenarios.measured.kernel_errors import summary

    return [
        {str(key): v if isinstance(v, str) else float(v) for key, v in row.items()}
        for row in summary(kernels).reset_index().to_dict("records")
    ]


def kernel_table(kernels: pd.DataFrame) -> Table:
    """The same as a table [%]."""
    table = plain_table(("", "left"), *_numbers("rows", "error", "bias", "roofline"))
    for row in kernel_rows(kernels):
        table.add_row(
            " ".join(dict.fromkeys((row["device"], *row["kind"].split(), row["format"]))),
            f"{row['rows']:.0f}",
            f"{percent(row['median'])} / {percent(row['mean'])}",
            percent(row["bias"], "+"),
            f"{percent(row['roofline_median'])} / {percent(row['roofline_mean'])}",
        )
    return table


def to_json(checked: list[Checked], kernels: pd.DataFrame | None) -> dict[str, Any]:
    """Everything that is printed, and every row."""
    rows = [
        {
            "id": c.run.id,
            "group": c.group,
            "model": c.model,
            "measured_s": c.run.measured_s,
            "predicted_step_time_s": c.predicted,
            "predicted_low_s": c.low,
            "predicted_high_s": c.high,
            "lower_bound_s": c.bound,
            "error": c.error,
            "class": c.klass,
            "refused_because": c.refused,
        }
        for c in checked
    ]
    return {
        "groups": [s._asdict() for s in summarise(checked)],
        "classes": [s._asdict() for s in summarise(checked, lambda c: (c.klass,))],
        "refused": [{"reason": reason, "rows": number} for reason, number in refusals(checked)],
        "runs": rows,
        "kernels": [] if kernels is None else kernel_rows(kernels),
    }
