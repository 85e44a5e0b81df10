"""The tables of runs and kernels that `roofcast validate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, page, plain_table, say, section, show
from roofcast.reports.format import seconds
from roofcast.reports.parts import Console, Table, Text
from roofcast.reports.tables.validation import SEVERAL, Checked, Summary, refusals, summarise, worst

if TYPE_CHECKING:
    import pandas as pd

REASONS = 25  # that are printed
WIDE = 120  # columns from which on the worst row of each group is printed
ERRORS = (
    "median / mean: of |predicted / measured - 1|. bias: median of predicted / measured - 1"
    " (negative: the forecast is too short)."
)
ROOFLINE = "roofline: median / mean error of the roofline lower bound at datasheet peaks."
INSIDE = (
    "inside 80 %: percent of the measured times that lie inside the forecast's 80 % interval."
    " Intervals rest on the errors of the shipped runs; docs/accuracy.md counts with intervals made"
    " without the run's own source."
)
STATUSES = {  # docs/accuracy.md describes them
    "fitted": "used for fitting",
    "left out": "read by no fit",
    "never seen": "from sources never used for fitting (not in the other tables)",
}


def percent(share: float, sign: str = "") -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * share:{sign}.1f}"


class Shipped(NamedTuple):
    """What is known of shipped runs beyond their forecasts."""

    statuses: list[str]  # of each run that is printed: one of accuracy.STATUSES
    never_seen: list[Checked]  # runs of the sources that fits refuse to read


def print_validation(
    checked: list[Checked],
    kernels: pd.DataFrame | None,
    listed: set[str],
    shipped: Shipped | None = None,
) -> None:
    """Print the errors of runs, what could not be forecast, and the errors of kernels.

    Sources in `listed` are in a table above: they count only in the tables over all sources.
    """
    with page() as out:
        if listed:
            out.print()
        if any(c.predicted is not None for c in checked):
            _print_runs(out, checked, listed, shipped)
        _print_refusals(out, [c for c in checked if c.run.source not in listed])
        if kernels is not None:
            if checked:
                out.print()
            out.print(Text("Kernels: errors in percent", style="bold"))
            say(out, "Columns as for runs." if checked else f"{ERRORS} {ROOFLINE}", 0)
            show(out, kernel_table(kernels))


def _print_runs(
    out: Console, checked: list[Checked], listed: set[str], shipped: Shipped | None
) -> None:
    groups = [g for g in summarise(checked) if g.group[0] not in listed]
    out.print(Text("Runs: errors in percent", style="bold"))
    say(out, f"{ERRORS} {ROOFLINE} {INSIDE}", 0)
    for source in dict.fromkeys(g.group[0] for g in groups):
        section(out, source or "no source given")
        show(out, run_table([g for g in groups if g.group[0] == source], out.width))
    if shipped:
        section(out, "By use in fitting")
        show(out, run_table(by_status(checked, shipped), out.width, inside=False))
    section(out, "By class of interval")
    classes = summarise(checked, lambda c: ("", c.klass))
    (everything,) = summarise(checked, lambda _: ("", "all"))
    above = sum(g.rows for g in groups)
    many = everything.rows - above
    if many:
        name = f"all ({above} above + {many} on many devices)"
        everything = everything._replace(group=("", name))
    show(out, run_table([*classes, everything], out.width))
    section(out, "Largest errors")
    show(out, _worst_table(checked))


def by_status(checked: list[Checked], shipped: Shipped) -> list[Summary]:
    """The runs by whether fits read them; the groups of docs/accuracy.md."""
    groups: dict[str, list[Checked]] = {status: [] for status in STATUSES}
    for c, status in zip(checked, shipped.statuses, strict=True):
        groups[status].append(c)
    groups["never seen"] += shipped.never_seen
    return [
        found._replace(group=("", STATUSES[status]))
        for status, members in groups.items()
        for found in summarise(members, lambda _: ())
    ]


def _worst_table(checked: list[Checked]) -> Table:
    table = plain_table(("model", "fold"), ("run", "fold"), ("measured", "right"),
                        ("error", "right"))  # fmt: skip
    for c in worst(checked):
        batch = f"batch {c.run.scenario.batch}" if c.run.scenario else ""
        name, measured = c.model.rpartition("/")[2], seconds(c.measured_s)
        table.add_row(name, f"{label(c.group)} {batch}", measured, percent(c.error or 0.0, "+"))
    return table


def label(group: tuple[str, ...]) -> str:
    """A group without its source: device, mode, precision, memory format, several devices."""
    return " ".join("several devices" if part == SEVERAL else part for part in group[1:] if part)


def _print_refusals(out: Console, checked: list[Checked]) -> None:
    """Reasons why rows have no forecast, the most frequent first."""
    reasons = refusals(checked)
    if not reasons:
        return
    section(out, f"{number_of(sum(n for _, n in reasons), 'row')} without a forecast")
    for reason, number in reasons[:REASONS]:
        say(out, reason, first=f"{number:5d}  ")
    rest = reasons[REASONS:]
    if rest:
        rows = sum(n for _, n in rest)
        say(
            out,
            f"{number_of(rows, 'row')} for {number_of(len(rest), 'further reason')}"
            " (--json or -o has all)",
        )


def run_table(groups: list[Summary], width: int, inside: bool = True) -> Table:
    """One line per group; its worst row where the terminal is wide enough."""
    wide = width >= WIDE
    more: list[tuple[str, Justify]] = [("worst", "left")] if wide else []
    numbers = _numbers("rows", "median / mean", "bias", "roofline")
    if inside:
        numbers += _numbers("inside 80 %")
    table = plain_table(("", "fold"), *numbers, *more)
    for g in groups:
        cells = [
            label(g.group),
            str(g.rows),
            f"{percent(g.median)} / {percent(g.mean)}",
            percent(g.bias, "+"),
            f"{percent(g.roofline_median)} / {percent(g.roofline_mean)}",
            *([f"{100 * g.inside:.0f}"] if inside else []),
        ]
        table.add_row(*cells, *([g.worst] if wide else []))
    return table


def _numbers(*names: str) -> list[tuple[str, Justify]]:
    return [(name, "right") for name in names]


def kernel_rows(kernels: pd.DataFrame) -> list[dict[str, Any]]:
    """Errors of the kernel formulas, one dict per file, device, kind and format."""
    from roofcast.scenarios.measured.kernel_errors import summary

    return [
        {str(key): v if isinstance(v, str) else float(v) for key, v in row.items()}
        for row in summary(kernels).reset_index().to_dict("records")
    ]


def kernel_table(kernels: pd.DataFrame) -> Table:
    """The same as a table [%]."""
    table = plain_table(("", "fold"), *_numbers("rows", "median / mean", "bias", "roofline"))
    for row in kernel_rows(kernels):
        kind = row["kind"].replace("bfloat16", "bf16")
        table.add_row(
            " ".join(dict.fromkeys((row["device"], *kind.split(), row["format"]))),
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
