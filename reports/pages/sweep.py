"""A sweep as a table: one row per point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, page, say, show
from roofcast.reports.format import (
    binary,
    duration,
    energy,
    long_count,
    money,
    percent,
    rate,
    seconds,
    si,
)
from roofcast.simulator.choose.axes import Axis
from roofcast.simulator.forecast.scenario import Scenario

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 24  # rows
CAP = "power.cap"  # the axis beside which watts and joules are shown
BOUNDS = {  # parts of a step, as a cell
    "matrix": "matrix", "vector": "vector", "memory": "memory", "latency": "latency",
    "host": "host", "optimizer": "optimizer", "network": "network", "waiting": "waiting",
}  # fmt: skip
LEGEND = (
    "80 % interval: of the step time; fits: by the forecast peak, without its error; most time:"
    " what most of the step goes to: matrix or vector units, memory bandwidth, latency (fixed cost"
    " of small kernels), host, optimizer, network (communication that nothing hides) or waiting"
    " (pipeline bubbles, uneven stages)"
)
ENDS = {"tokens", "samples", "epochs"}  # axes that set how long the run is
OF_RUN = {  # by whether it is a training
    True: "whole run, cost, energy: of the whole training, checkpoints and failures included",
    False: "whole run, cost, energy: of all passes",
}
SCOPE = "energy: at the site, unless another scope is named"


def print_sweep(table: DataFrame, axes: Sequence[Axis], scenario: Scenario) -> None:
    """Print the rows to stdout, and how many more there are."""
    names = [axis.name for axis in axes]
    where = "" if "on" in names else f" on {scenario.device}"
    with page() as out:
        title = f"{scenario.model}{where}: {number_of(len(table), 'point')} over {', '.join(names)}"
        say(out, title, indent=0, style="bold")
        out.print()
        good = table[table["refused"].isna()]
        ends = bool(good["run_time_s"].notna().any())
        throughput = "tokens_per_s" if good["tokens_per_s"].notna().any() else "samples_per_s"
        columns: list[tuple[str, Justify]] = [(name, "right") for name in names]
        columns += [("step", "right"), ("80 % interval", "right")]
        if CAP in names:
            columns += [("board", "right"), ("node per step", "right")]
        columns += [(throughput.replace("_per_", "/"), "right"), ("MFU", "right")]
        columns += [("peak memory", "right"), ("fits", "left")]
        if ends:
            columns += [("whole run", "right"), ("cost", "right"), ("energy", "right")]
        columns += [("most time", "left")]
        rows = [_row(row, names, throughput, ends) for row in good.head(SHOWN).to_dict("records")]
        if rows:
            spare = ["80 % interval", "MFU", "peak memory", "most time"]
            spare += [throughput.replace("_per_", "/"), *(["energy", "step"] if ends else [])]
            show(out, fitted_table(out.width - 2, columns, rows, spare=spare))
        if len(good) > SHOWN:
            say(out, f"... {len(good) - SHOWN:,} more; -o FILE.csv writes all")
        best = [_fastest(good, names, throughput), _cheapest(good, names)]
        best.append(_least_energy(good, names) if CAP in names else "")
        if any(best):
            out.print()
        for line in filter(None, best):
            say(out, line)
        _refused(out, table, names)
        if rows:
            out.print()
            of_run = f"; {OF_RUN[scenario.mode == 'train']}; {SCOPE}" if ends else ""
            say(out, f"{LEGEND}{of_run}")


def _row(row: dict[Any, Any], names: Sequence[str], throughput: str, ends: bool) -> list[str]:
    interval = "—"
    if row["low_s"] == row["low_s"] and row["low_s"] is not None:
        interval = f"{seconds(row['low_s'])} to {seconds(row['high_s'])}"
    return [
        *(_typed(name, row[name]) for name in names),
        seconds(row["step_time_s"]),
        interval,
        *([si(row["power_w"], "W"), si(row["node_step_energy_j"], "J")] if CAP in names else []),
        rate(row[throughput]),
        percent(_known(row["mfu"])),
        binary(row["peak_bytes"]),
        {True: "yes", False: "no"}.get(row["fits"], "—"),
        *(_of_run(row) if ends else []),
        BOUNDS[row["bound"]],
    ]


def _of_run(row: dict[Any, Any]) -> list[str]:
    """Duration, cost and energy of the whole run."""
    usd, joules = _known(row["run_cost_usd"]), _known(row["run_energy_j"])
    scope = row["run_energy_scope"]
    return [
        duration(_known(row["run_time_s"])),
        "—" if usd is None else money(usd),
        "—" if joules is None else energy(joules) + ("" if scope == "site" else f" ({scope})"),
    ]


def _known(value: float | None) -> float | None:
    """None for the NaN that a table holds where nothing is known."""
    return None if value is None or value != value else value


def _at(row: Any, names: Sequence[str]) -> str:
    """Where a point is: the names of the axes and their values."""
    return ", ".join(f"{name} {_typed(name, row[name])}" for name in names)


def _typed(name: str, value: Any) -> str:
    """A value of an axis; lengths of runs with the suffixes that they are typed with."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if name in ENDS:
        return long_count(value)
    return f"{value:,.12g}" if isinstance(value, int | float) else f"{value}"


def _fastest(good: DataFrame, names: Sequence[str], throughput: str) -> str:
    """The point of the highest throughput among those that fit; empty where all are alike."""
    fitting = _fitting(good)
    if len(good) < 2:
        return ""
    if fitting.empty:
        return "no point fits the memory of its device"
    rows: list[dict[Any, Any]] = fitting.to_dict("records")
    best = max(rows, key=lambda row: float(row[throughput]))
    if len(rows) > 1 and best[throughput] == min(row[throughput] for row in rows):
        return ""
    unit = throughput.replace("_per_", "/")
    return f"highest throughput that fits: {_at(best, names)}: {rate(best[throughput])} {unit}"


def _fitting(good: DataFrame) -> DataFrame:
    """The points that fit, or whose device has no known capacity."""
    return good[good["fits"].isna() | (good["fits"] == True)]  # noqa: E712  # a column


def _cheapest(good: DataFrame, names: Sequence[str]) -> str:
    """The point of the least cost among those that fit; empty where their runs differ."""
    known = _fitting(good)
    known = known[known["run_cost_usd"].notna()]
    if len(known) < 2 or ENDS & set(names):
        return ""
    best = known.to_dict("records")[int(known["run_cost_usd"].to_numpy(dtype=float).argmin())]
    return f"lowest cost that fits: {_at(best, names)}: {money(best['run_cost_usd'])}"


def _least_energy(good: DataFrame, names: Sequence[str]) -> str:
    """The point of the least energy of the node for the same work."""
    known = good[good["node_step_energy_j"].notna()]
    per = known["samples_per_s"] * known["step_time_s"]  # samples of a step
    if len(known) < 2:
        return ""
    rows: list[dict[Any, Any]] = known.to_dict("records")
    best = rows[int((known["node_step_energy_j"] / per).to_numpy(dtype=float).argmin())]
    joules, watts = si(best["node_step_energy_j"], "J"), si(best["power_w"], "W")
    return f"least energy of the node: {_at(best, names)}: {joules} per step ({watts} per board)"


def _refused(out: Any, table: DataFrame, names: Sequence[str]) -> None:
    """How many points cannot be, by reason."""
    refused = table[table["refused"].notna()]
    if refused.empty:
        return
    out.print()
    say(out, f"{len(refused):,} of {number_of(len(table), 'point')} cannot be:")
    reasons = refused.groupby("refused", sort=False)
    for reason, rows in list(reasons)[:5]:
        first = rows.iloc[0]
        say(out, f"{len(rows):,}: {reason} (first: {_at(first, names)})", indent=4)
    if len(reasons) > 5:
        say(
            out,
            f"... {number_of(len(reasons) - 5, 'more reason')}; -o FILE.csv writes all",
            indent=4,
        )
