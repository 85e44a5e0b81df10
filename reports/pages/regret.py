"""Regret of choosing by forecasts, for reading."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.reports.console import Justify, fitted_table, page, say, show
from roofcast.reports.format import digits, percent
from roofcast.reports.parts import Console
from roofcast.scenarios.measured.regret import REPEATS, Regrets


def print_regret(lines: Sequence[Regrets], left_out: Sequence[Regrets] = ()) -> None:
    """Print a line per source, and one of all.

    left_out: the same with constants fitted without each source; none where no fit read the runs.
    """
    with page() as out:
        say(out, "Regret of choosing by forecasts", indent=0, style="bold")
        _table(out, lines)
        if left_out:
            say(out, "With constants fitted without the run's source", indent=0, style="bold")
            _table(out, left_out)
        say(
            out,
            "group: one model, format, batch and number of devices of a source, under three or more"
            " layouts or devices, repeated runs taken together; regret: measured time of the run"
            " that is forecast fastest of those that fit, beyond that of the fastest; tau:"
            f" Kendall's, over pairs of a group that differ by more than {percent(REPEATS)};"
            " constants are those shipped, fitted to some of these sources"
            + (", but for the second table" if left_out else ""),
        )


def _table(out: Console, lines: Sequence[Regrets]) -> None:
    columns: list[tuple[str, Justify]] = [
        ("groups", "right"), ("runs", "right"), ("median", "right"), ("90 % below", "right"),
        ("tau", "right"), ("source", "fold"),
    ]  # fmt: skip
    rows = []
    for line in lines:
        tau = "—" if line.tau is None else digits(line.tau, 2)
        cells = [f"{line.groups:,}", f"{line.runs:,}", percent(line.median), percent(line.high)]
        rows.append([*cells, tau, line.source or "all"])
    show(out, fitted_table(out.width - 2, columns, rows, ("runs",)))
