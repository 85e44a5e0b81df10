"""What `roofcast validate` prints."""

from __future__ import annotations

from rich.text import Text

from roofcast.reports.console import page, plain_table, say, section, show
from roofcast.reports.tables.validation import Checked, Summary, refusals, summarise, worst


def percent(share: float, sign: str = "") -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:{sign}.1f}"


def print_validation(checked: list[Checked], table, told: set[str]) -> None:
    """Tables of runs and kernels, refusals, intervals, worst rows; sources in `told` have been
    listed already.
    """
    with page() as out:
        groups = summarise(checked)
        if groups:
            say(
                out,
                "Runs: |predicted / measured - 1| in percent, median / mean; bias: the median with"
                " its sign; 80 %: share of the runs inside that interval.",
                0,
            )
            for source in dict.fromkeys(g.group[0] for g in groups if g.group[0] not in told):
                section(out, source or "no source given")
                show(out, run_table([g for g in groups if g.group[0] == source], out.width))
            section(out, "by class of interval")
            show(
                out,
                run_table(
                    [
                        *summarise(checked, lambda c: ("", c.klass)),
                        *summarise(checked, lambda c: ("", "all")),
                    ],
                    out.width,
                ),
            )
            section(out, "Furthest off")
            worst_table = plain_table(
                ("model", "left"), ("", "fold"), ("measured", "right"), ("error", "right")
            )
            for c in worst(checked):
                what = " ".join(filter(None, (*c.group[1:], f"batch {c.run.scenario.batch}")))
                cells = (
                    shortened(c.model.rpartition("/")[2], 24),
                    shortened(what, out.width - 50),
                    f"{1e3 * c.run.measured_s:.4g} ms",
                    percent(c.error, "+"),
                )
                worst_table.add_row(*cells)
            show(out, worst_table)
        reasons = refusals([c for c in checked if c.run.source not in told])
        if reasons:
            section(out, f"{sum(n for _, n in reasons)} rows without a forecast")
            for reason, number in reasons[:25]:
                say(out, reason, first=f"{number:5d}  ")
            if len(reasons) > 25:
                say(
                    out,
                    f"{sum(n for _, n in reasons[25:])} rows for {len(reasons) - 25} further"
                    " reasons (all with --json or -o)",
                )
        if table is not None:
            if checked:
                out.print()
            out.print(
                Text("Kernels: |predicted / measured - 1| in percent, median / mean", style="bold")
            )
            show(out, kernel_table(table))


def run_table(groups: list[Summary], width: int):
    """One line a group; its worst row where there is room."""
    wide = width >= 110
    extra = (("worst", "left"),) if wide else ()
    table = plain_table(
        ("", "left"),
        ("rows", "right"),
        ("error", "right"),
        ("bias", "right"),
        ("roofline", "right"),
        ("80 %", "right"),
        *extra,
    )
    for g in groups:
        what = shortened(" ".join(filter(None, g.group[1:])), width - (72 if wide else 50))
        cells = [
            what,
            str(g.rows),
            f"{percent(g.median)} / {percent(g.mean)}",
            percent(g.bias, "+"),
            f"{percent(g.roofline_median)} / {percent(g.roofline_mean)}",
            f"{100 * g.inside:.0f}",
        ]
        table.add_row(*cells, *((g.worst,) if wide else ()))
    return table


def shortened(text: str, width: int) -> str:
    """The text, cut at the width with an ellipsis."""
    return text if len(text) <= max(width, 20) else text[: max(width, 20) - 1] + "…"


def kernel_rows(table) -> list[dict]:
    """Groups of kernels."""
    from roofcast.scenarios.measured.kernel_errors import summary

    figures = summary(table).reset_index()
    return [
        {key: value if isinstance(value, str) else float(value) for key, value in row.items()}
        for row in figures.to_dict("records")
    ]


def kernel_table(table):
    """Errors of the kernel formulas, a row a device, kind and format [%]."""
    out = plain_table(
        ("", "left"),
        ("rows", "right"),
        ("error", "right"),
        ("bias", "right"),
        ("roofline", "right"),
    )
    for row in kernel_rows(table):
        what = " ".join(dict.fromkeys((row["device"], *row["kind"].split(), row["format"])))
        out.add_row(
            what,
            f"{row['rows']:.0f}",
            f"{percent(row['median'])} / {percent(row['mean'])}",
            percent(row["bias"], "+"),
            f"{percent(row['roofline_median'])} / {percent(row['roofline_mean'])}",
        )
    return out


def to_json(checked: list[Checked], table) -> dict:
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
        "kernels": [] if table is None else kernel_rows(table),
    }
