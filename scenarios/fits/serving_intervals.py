"""Writes the 80 % intervals of serving forecasts (hwdb/serving.toml) from a table of measured
servers.

    python -m roofcast.scenarios.fits.serving_intervals TABLE.csv.gz [--write]

For each class of software and quantity, the bounds of ln(measured / forecast) hold 80 % of the
rows, every source with the same weight. Left out are suspect rows, those that do not state their
format or layout, and bursts, which begin with a client's ramp and end with a tail. The share of a
source's rows that the bounds of the other sources hold is printed: the coverage for a source that
nobody has seen; and the same for devices.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from roofcast.scenarios.measured.cells import rows
from roofcast.scenarios.measured.serving.forecasts import QUANTITIES, score_all
from roofcast.simulator.serving.interval import FILE, LOCAL, class_of

TAILS = (0.1, 0.9)
FEWEST = 2  # sources of a class; below, those of both
SOURCE = "scenarios/fits/serving_intervals.py: errors of measured servers, sources weighted alike"


class Error(NamedTuple):
    """ln(measured / forecast) of one quantity of a row."""

    kind: str  # of software
    quantity: str
    source: str
    device: str
    value: float


def errors(path: str) -> list[Error]:
    """The errors of every row that has a forecast."""
    found = []
    for s in score_all(rows(Path(path), "measured servers")):
        guessed = s.taken or s.row.get("load_kind") == "all_at_once"
        if s.suspect or s.refused or guessed:
            continue
        for name, quantity in QUANTITIES.items():
            error = s.error(name)
            if error is not None:
                source, device = s.row.get("source_name", ""), s.row.get("device", "")
                value = -math.log1p(error)
                found.append(Error(class_of(s.stack), quantity, source, device, value))
    return found


def bounds(found: list[Error], by: str = "source") -> tuple[float, float]:
    """Between which 80 % lie, each source (or device) with the same weight."""
    groups: dict[str, list[float]] = defaultdict(list)
    for error in found:
        groups[getattr(error, by)].append(error.value)
    values = np.array([v for group in groups.values() for v in group])
    weights = np.array([1.0 / len(group) for group in groups.values() for _ in group])
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = (float(values[order][np.searchsorted(share, tail)]) for tail in TAILS)
    return low, high


def coverage(found: list[Error], by: str) -> float:
    """Share of rows inside the bounds of the others, each source or device left out in turn, with
    the same weight.
    """
    shares = []
    for name in {getattr(e, by) for e in found}:
        others = [e for e in found if getattr(e, by) != name]
        if others:
            low, high = bounds(others)
            own = [e.value for e in found if getattr(e, by) == name]
            shares.append(float(np.mean([min(low, 0.0) <= v <= max(high, 0.0) for v in own])))
    return float(np.mean(shares)) if shares else math.nan


def main(arguments: list[str]) -> None:
    """Print, and with --write rewrite, the bounds."""
    found = errors(arguments[0])
    lines = ["# Where ln(measured / forecast) of serving lies, 80 %.", f'source = "{SOURCE}"']
    for kind in ("server", "local"):
        for quantity in QUANTITIES.values():
            own = [e for e in found if (e.kind, e.quantity) == (kind, quantity)]
            if len({e.source for e in own}) < FEWEST:  # one source tells nothing of another
                own = [e for e in found if e.quantity == quantity]
            low, high = bounds(own)
            sources = {e.source for e in own}
            covered = ", ".join(f"by {by} {coverage(own, by):.0%}" for by in ("source", "device"))
            print(f"{kind} {quantity}: {low:+.3f} to {high:+.3f}, {len(own)} rows; held {covered}")
            lines += ["", f"[{kind}.{quantity}]", f"low = {low:.3f}", f"high = {high:.3f}"]
            lines += [f"rows = {len(own)}", f"sources = {len(sources)}"]
    print(f"local: profiles whose names begin with {', '.join(LOCAL)}")
    if "--write" in arguments:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
