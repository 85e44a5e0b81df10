"""Errors of the simplest CPU models on a table of `roofcast crosscheck`.

F/P + B/D with nothing fitted; the same with the named causes of
simulator/machine/crosscheck/sum_form.py; and that with two multipliers, fitted without the network
they are judged on.

    python -m roofcast.reports.tables.crosscheck_sum scenarios/measured/machines/TABLE.csv
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.console import page, plain_table, say, show
from roofcast.reports.format import percent, seconds
from roofcast.scenarios.measured.nets import read
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.machine.crosscheck import sum_form

WITHIN = 0.25
HEAD = {
    "chain": "predict", "zero": "F/P + B/D", "causes": "with causes", "fitted": "2 multipliers",
}  # fmt: skip


class Judged(NamedTuple):
    """Seconds of the networks of a table under each model, in the order of `names`."""

    names: list[str]
    notes: list[str]
    measured: np.ndarray
    chain: np.ndarray  # the forecast
    zero: np.ndarray  # F/P + B/D
    causes: np.ndarray  # F/P + B/D with the named causes
    fitted: np.ndarray  # that with two multipliers, fitted to the other models


def judge(path: str) -> Judged:
    """Seconds of the rows of a table under each model.

    For the fit, all variants of a network (optimizers, engines) are left out together.
    """
    runs, asked = [], []
    for r in read(path):
        if r.scenario is not None:
            runs.append(r)
            asked.append(r.scenario)
    measured = np.array([r.measured_s for r in runs])
    work = [sum_form.counted(scenario) for scenario in asked]
    rates = sum_form.Rates(*(np.array([rate(r.row, *keys) for r in runs]) for keys in RATES))
    groups, notes = [each.model for each in asked], [r.row.get("notes") or "" for r in runs]
    flops_s, bytes_s = sum_form.plain(work, rates)
    f, b = sum_form.causes(work, rates)
    return Judged(
        [r.id for r in runs],
        notes,
        measured,
        np.array([forecast(scenario).step_time_s for scenario in asked]),
        flops_s + bytes_s,
        f + b,
        sum_form.leave_one_out(f, b, measured, groups),
    )


# columns with a rate; of several, the first that the table has
RATES = (("gemm_flops",), ("own_flops", "gemm_flops"), ("triad_bytes_s",), ("pool_per_s",))


def rate(row: dict, *keys: str) -> float:
    """The rate in the first of these columns; infinite without any, so that it takes no time."""
    return next((float(row[key]) for key in keys if row.get(key)), float("inf"))


def errors(judged: Judged) -> dict[str, np.ndarray]:
    """predicted / measured - 1, by model."""
    return {name: getattr(judged, name) / judged.measured - 1.0 for name in HEAD}


def main(path: str) -> None:
    """Print the table of errors of one file to stdout."""
    judged = judge(path)
    found = errors(judged)
    table = plain_table(
        ("net", "left"), ("measured", "right"), *((title, "right") for title in HEAD.values())
    )
    for i, name in enumerate(judged.names):
        table.add_row(name, seconds(judged.measured[i]), *(f"{found[key][i]:+.0%}" for key in HEAD))
    plain = np.array([not note for note in judged.notes])
    with page() as out:
        show(out, table)
        for key, title in HEAD.items():
            size = np.abs(found[key])
            text = f"mean {percent(float(size.mean()))}, {_spread(size)}"
            say(out, f"{text}; without noted exceptions {_spread(size[plain])}", first=f"{title}: ")


def _spread(size: np.ndarray) -> str:
    """Median of absolute errors, and the share that is within WITHIN."""
    within = percent(float((size <= WITHIN).mean()))
    return f"median {percent(float(np.median(size)))}, {within} within {percent(WITHIN)}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("crosscheck_sum: give one table")
    try:
        main(sys.argv[1])
    except RoofcastError as error:
        sys.exit(f"crosscheck_sum: {error}")
