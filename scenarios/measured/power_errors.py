"""How far forecasts of measured watts are off, by kind and scope; intervals from that.

    python -m roofcast.scenarios.measured.power_errors FILE.csv[.gz]     rewrite power/errors.csv

Of each kind of row the factors between which measured over forecast values lie, every workload with
the same weight: the narrowest that hold 80 % of each workload's rows when made from the others.
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from roofcast.scenarios.measured.cells import rows, text
from roofcast.scenarios.measured.power_answers import Answered, answers, number

TABLE = Path(__file__).parent / "power" / "errors.csv"
LEVEL = 0.8
WIDER = (0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94)  # levels of the rows that are tried
WIDEST = (0.6, 1.6)  # of a kind that was never measured


class Error(NamedTuple):
    """A row's measured over forecast values; None where they are not compared."""

    kind: str
    scope: str
    workload: str
    device: str
    power: float | None
    time: float | None


class Line(NamedTuple):
    """Errors of some rows: means of |forecast / measured - 1|, and the bias of watts."""

    kind: str
    scope: str
    rows: int  # forecast
    power: float | None
    power_median: float | None
    bias: float | None
    time: float | None
    coverage: float | None  # of the interval made without the row's workload


def error_of(each: Answered) -> Error:
    """What is compared of a row."""
    row, a = each.row, each.answer
    watts, seconds = number(row, "avg_power_w"), number(row, "time_s")
    power = watts / a.power_w if watts is not None and a.power_w else None
    time = seconds / a.time_s if seconds is not None and a.time_s and not a.anchor else None
    return Error(
        text(row, "kind"), a.scope, text(row, "workload"), text(row, "device"), power, time
    )


def factors(
    errors: Iterable[Error], quantity: str, level: float = LEVEL
) -> tuple[float, float] | None:
    """Between which factors on the forecast a part of the measured values lies."""
    found = [(e.workload, getattr(e, quantity)) for e in errors if getattr(e, quantity)]
    if len(found) < 5:
        return None
    names, values = zip(*found, strict=True)
    weight = np.array([1.0 / names.count(name) for name in names])
    order = np.argsort(values)
    at = (np.cumsum(weight[order]) - 0.5 * weight[order]) / weight.sum()
    tail = (1.0 - level) / 2
    low, high = np.exp(np.interp((tail, 1.0 - tail), at, np.log(np.array(values)[order])))
    return float(low), float(high)


@functools.cache
def shipped() -> dict[tuple[str, str], tuple[float, float]]:
    """The shipped factors by kind and quantity."""
    return {
        (text(r, "kind"), text(r, "quantity")): (float(r["low"]), float(r["high"]))
        for r in rows(TABLE, "errors of forecast watts")
    }


def band(kind: str, quantity: str) -> tuple[float, float]:
    """The factors of the 80 % interval of a kind of row."""
    return shipped().get((kind, quantity), WIDEST)


def lines(found: Sequence[Answered]) -> list[Line]:
    """Errors by kind and scope, with the coverage of intervals made without the workload."""
    errors = [error_of(each) for each in found]
    keys = dict.fromkeys((e.kind, e.scope) for e in errors if e.scope)
    result = []
    for kind, scope in keys:
        mine = [e for e in errors if (e.kind, e.scope) == (kind, scope)]
        power = [1.0 / e.power - 1.0 for e in mine if e.power]
        time = [1.0 / e.time - 1.0 for e in mine if e.time]
        bias = float(np.mean(power)) if power else None
        held = coverage(mine, "power", level_of(mine))
        line = Line(kind, scope, len(mine), _mean(power), _median(power), bias, _mean(time), held)
        result.append(line)
    return result


def _mean(values: list[float]) -> float | None:
    return float(np.mean(np.abs(values))) if values else None


def _median(values: list[float]) -> float | None:
    return float(np.median(np.abs(values))) if values else None


def level_of(errors: Sequence[Error], quantity: str = "power") -> float:
    """The level of the rows at which intervals hold LEVEL of a workload that is left out."""
    for level in WIDER:
        held = coverage(errors, quantity, level)
        if held is None or held >= LEVEL:
            return level
    return WIDER[-1]


def coverage(errors: Sequence[Error], quantity: str, level: float) -> float | None:
    """Part of the rows inside the interval that the other workloads give."""
    inside: list[bool] = []
    for workload in dict.fromkeys(e.workload for e in errors):
        limits = factors([e for e in errors if e.workload != workload], quantity, level)
        mine = [getattr(e, quantity) for e in errors if e.workload == workload]
        if limits is not None:
            inside += [limits[0] <= each <= limits[1] for each in mine if each]
    return float(np.mean(inside)) if inside else None


def main(path: str) -> None:
    """Rewrite the shipped factors."""
    errors = [error_of(each) for each in answers(Path(path)) if not each.answer.refused]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        file.write("# measured over forecast values, 80 %: scenarios/measured/power_errors.py\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "quantity", "low", "high", "rows"))
        for kind in dict.fromkeys(e.kind for e in errors):
            for quantity in ("power", "time"):
                mine = [e for e in errors if e.kind == kind]
                limits = factors(mine, quantity, level_of(mine, quantity))
                if limits is not None:
                    count = sum(bool(getattr(e, quantity)) for e in mine)
                    writer.writerow((kind, quantity, *(f"{x:.3f}" for x in limits), count))


if __name__ == "__main__":
    main(sys.argv[1])
