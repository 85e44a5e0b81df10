"""How far the plainest CPU models are from a table of `roofcast crosscheck`: F/P + B/D with nothing
fitted; the same with the named causes (simulator/machine/crosscheck/sum_form.py); and that with two
multipliers that have not seen the net they are judged on.

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
    """A table's nets under each model: seconds, in the order of `names`."""

    names: list[str]
    notes: list[str]
    measured: np.ndarray
    chain: np.ndarray  # by the chain
    zero: np.ndarray  # F/P + B/D
    causes: np.ndarray  # the same with the named causes
    fitted: np.ndarray  # that with two multipliers, fitted to all other models


def judge(path: str) -> Judged:
    """Every model's seconds for the rows of a table. A model and its variants (optimizers, engines)
    are left out together.
    """
    runs = [r for r in read(path) if r.scenario is not None]
    measured = np.array([r.measured_s for r in runs])
    work = [sum_form.counted(r.scenario) for r in runs]
    rates = sum_form.Rates(*(np.array([rate(r.row, *keys) for r in runs]) for keys in RATES))
    groups, notes = [r.scenario.model for r in runs], [r.row.get("notes") or "" for r in runs]
    f, b = sum_form.causes(work, rates)
    return Judged(
        [r.id for r in runs],
        notes,
        measured,
        np.array([forecast(r.scenario).step_time_s for r in runs]),
        sum(sum_form.plain(work, rates)),
        f + b,
        sum_form.leave_one_out(f, b, measured, groups),
    )


# columns of a table, the first that is there
RATES = (("gemm_flops",), ("own_flops", "gemm_flops"), ("triad_bytes_s",), ("pool_per_s",))


def rate(row: dict, *keys: str) -> float:
    """A probe's rate; where a table has none, what depends on it takes no time."""
    return next((float(row[key]) for key in keys if row.get(key)), float("inf"))


def errors(judged: Judged) -> dict[str, np.ndarray]:
    """predicted / measured - 1, by model."""
    return {name: getattr(judged, name) / judged.measured - 1.0 for name in HEAD}


def main(path: str) -> None:
    """The table of errors of one file, on stdout."""
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
            say(
                out,
                f"median {percent(float(np.median(size)))}, mean {percent(float(size.mean()))},"
                f" within {percent(WITHIN)}: {percent(float((size <= WITHIN).mean()))}; without the"
                f" named exceptions median {percent(float(np.median(size[plain])))}, within"
                f" {percent(float((size[plain] <= WITHIN).mean()))}",
                first=f"{title}: ",
            )


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (IndexError, RoofcastError) as error:
        sys.exit(f"crosscheck_sum: {error or 'give a table'}")
