"""A sweep as a table: one row per point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from roofcast.reports.console import Justify, fitted_table, page, say, show
from roofcast.reports.format import binary, percent, rate, seconds, si
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


def print_sweep(table: DataFrame, axes: Sequence[Axis], scenario: Scenario) -> None:
    """Print the rows to stdout, and how many more there are."""
    names = [axis.name for axis in axes]
    where = "" if "on" in names else f" on {scenario.device}"
    with page() as out:
        title = f"{scenario.model}{where}: {len(table):,} points over {', '.join(names)}"
        say(out, title, indent=0, style="bold")
        out.print()
        good = table[table["refused"].isna()]
        throughput = "tokens_per_s" if good["tokens_per_s"].notna().any() else "samples_per_s"
        columns: list[tuple[str, Justify]] = [(name, "right") for name in names]
        columns += [("step", "right"), ("80 % interval", "right")]
        if CAP in names:
            columns += [("board", "right"), ("node per step", "right")]
        columns += [(throughput.replace("_per_", "/"), "right"), ("MFU", "right")]
        columns += [("peak memory", "right"), ("fits", "left"), ("most time", "left")]
        rows = [_row(row, names, throughput) for row in good.head(SHOWN).to_dict("records")]
        if rows:
            spare = ["80 % interval", "MFU", "peak memory", "most time"]
            spare.append(throughput.replace("_per_", "/"))
            show(out, fitted_table(out.width - 2, columns, rows, spare=spare))
        if len(good) > SHOWN:
            say(out, f"... {len(good) - SHOWN:,} more; -o FILE.csv writes all")
        _fastest(out, good, names, throughput)
        if CAP in names:
            _least_energy(out, good, names)
        _refused(out, table, names)
        if rows:
            out.print()
            say(out, LEGEND)


def _row(row: dict[Any, Any], names: Sequence[str], throughput: str) -> list[str]:
    interval = "—"
    if row["low_s"] == row["low_s"] and row["low_s"] is not None:
        interval = f"{seconds(row['low_s'])} to {seconds(row['high_s'])}"
    return [
        *(_typed(row[name]) for name in names),
        seconds(row["step_time_s"]),
        interval,
        *([si(row["power_w"], "W"), si(row["node_step_energy_j"], "J")] if CAP in names else []),
        rate(row[throughput]),
        percent(_known(row["mfu"])),
        binary(row["peak_bytes"]),
        {True: "yes", False: "no"}.get(row["fits"], "—"),
        BOUNDS[row["bound"]],
    ]


def _known(value: float | None) -> float | None:
    """None for the NaN that a table holds where nothing is known."""
    return None if value is None or value != value else value


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,.12g}" if isinstance(value, int | float) else f"{value}"


def _fastest(out: Any, good: DataFrame, names: Sequence[str], throughput: str) -> None:
    """The point of the highest throughput among those that fit."""
    fitting = good[good["fits"].isna() | (good["fits"] == True)]  # noqa: E712  # a column
    if len(good) < 2:
        return
    out.print()
    if fitting.empty:
        say(out, "no point fits the memory of its device")
        return
    rows: list[dict[Any, Any]] = fitting.to_dict("records")
    best = max(rows, key=lambda row: float(row[throughput]))
    at = ", ".join(f"{name} {_typed(best[name])}" for name in names)
    unit = throughput.replace("_per_", "/")
    say(out, f"highest throughput that fits: {at}: {rate(best[throughput])} {unit}")


def _least_energy(out: Any, good: DataFrame, names: Sequence[str]) -> None:
    """The point of the least energy of the node for the same work."""
    known = good[good["node_step_energy_j"].notna()]
    per = known["samples_per_s"] * known["step_time_s"]  # samples of a step
    if len(known) < 2:
        return
    rows: list[dict[Any, Any]] = known.to_dict("records")
    best = rows[int((known["node_step_energy_j"] / per).to_numpy(dtype=float).argmin())]
    at = ", ".join(f"{name} {_typed(best[name])}" for name in names)
    joules, watts = si(best["node_step_energy_j"], "J"), si(best["power_w"], "W")
    say(out, f"least energy of the node: {at}: {joules} per step ({watts} per board)")


def _refused(out: Any, table: DataFrame, names: Sequence[str]) -> None:
    """How many points cannot be, by reason."""
    refused = table[table["refused"].notna()]
    if refused.empty:
        return
    out.print()
    say(out, f"{len(refused):,} of {len(table):,} points cannot be:")
    reasons = refused.groupby("refused", sort=False)
    for reason, rows in list(reasons)[:5]:
        first = rows.iloc[0]
        at = ", ".join(f"{name} {_typed(first[name])}" for name in names)
        say(out, f"{len(rows):,}: {reason} (first: {at})", indent=4)
    if len(reasons) > 5:
        say(out, f"... {len(reasons) - 5:,} more reasons; -o FILE.csv writes all", indent=4)
