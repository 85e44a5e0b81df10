"""Writes the 80 % intervals of serving forecasts (hwdb/serving.toml) from a table of measured
servers.

    python -m roofcast.scenarios.fits.serving_intervals TABLE.csv.gz [--write]

For each class of software and quantity, the bounds of ln(measured / forecast) hold 80 % of the
rows: on devices that were measured every source has the same weight; on relatives of these every
device, whose family and measured fractions are unknown to the forecast; on devices of other makers
every maker, with such forecasts under both classes of software. None is narrower than the one
before. Left out are suspect rows, those that do not state their format or layout, and bursts, which
begin with a client's ramp and end with a tail. Printed is the share of the rows of a source, a
family of devices and a maker that the bounds of all others hold: the coverage for one that nobody
has seen.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.records import Device
from roofcast.scenarios.fits.serving import table_of
from roofcast.scenarios.measured.cells import rows
from roofcast.scenarios.measured.serving.forecasts import QUANTITIES, completed, score_all
from roofcast.scenarios.measured.serving.rows import device_of, server_of
from roofcast.simulator.serving.likeness import FILE, LOCAL, MEASURED, OTHER, RELATIVE
from roofcast.simulator.times.rates import family_name

TAILS = (0.1, 0.9)
FEWEST = 2  # sources of a class; below, those of both
SOFTWARE = ("server", "local")
SOURCE = "scenarios/fits/serving_intervals.py: errors of measured servers"
UNKNOWN = "unknown"  # a family that no file has


class Error(NamedTuple):
    """ln(measured / forecast) of one quantity of a row."""

    kind: str  # of software
    quantity: str
    source: str
    device: str
    family: str
    maker: str
    value: float


Interval = tuple[float, float]


def errors(path: str) -> list[Error]:
    """The errors of every row that has a forecast."""
    found = []
    for s in score_all(rows(Path(path), "measured servers")):
        guessed = s.taken or s.row.get("load_kind") == "all_at_once"
        if s.suspect or s.refused or guessed:
            continue
        device = _device(s.row)
        traits = device.id, family_name(device), f"{device.vendor} {device.kind}"
        for name, quantity in QUANTITIES.items():
            error = s.error(name)
            if error is not None:
                of = s.likeness.software, quantity, s.row.get("source_name", "")
                found.append(Error(*of, *traits, -math.log1p(error)))
    return found


def _device(row: Any) -> Device:
    """The device of a row, as it is shipped."""
    with patch.object(hwdb, "device", SHIPPED):
        return hwdb.device(device_of(completed(row)[0])[0])


SHIPPED = hwdb.device


@contextmanager
def families_unknown() -> Iterator[None]:
    """Forecasts of every device as if nothing were known of its family, nor measured on it."""

    def stranger(*of: Any) -> Device:
        device = SHIPPED(*of)
        nothing = type(device.achieved)()
        return msgspec.structs.replace(device, family=UNKNOWN, achieved=nothing)

    server_of.cache_clear()
    with patch.object(hwdb, "device", stranger):
        yield
    server_of.cache_clear()


def bounds(found: Sequence[Error], by: str) -> Interval:
    """Between which 80 % lie, each source (device, maker) with the same weight; of a device's or a
    maker's rows, each source.
    """
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for error in found:
        groups[getattr(error, by)][error.source].append(error.value)
    pairs = [
        (value, 1.0 / len(values) / len(sources))
        for sources in groups.values()
        for values in sources.values()
        for value in values
    ]
    values, weights = np.array(sorted(pairs)).T
    share = np.cumsum(weights) / weights.sum()
    low, high = (float(values[np.searchsorted(share, tail)]) for tail in TAILS)
    return low, high


class Class(NamedTuple):
    """Errors that the bounds of one class are made of, the groups that are weighted alike, and the
    traits of which one is left out at a time.
    """

    name: str
    found: list[Error]
    by: str
    left_out: str


def classes(known: list[Error], strange: list[Error], kind: str, quantity: str) -> list[Class]:
    """The classes of a quantity, the nearest first; strange: with `families_unknown`."""

    def of(every: list[Error], kinds: Sequence[str]) -> list[Error]:
        return [e for e in every if e.kind in kinds and e.quantity == quantity]

    kinds: Sequence[str] = (kind,)
    if len({e.source for e in of(known, kinds)}) < FEWEST:  # one source tells nothing of another
        kinds = SOFTWARE
    return [
        Class(MEASURED, of(known, kinds), "source", "source"),
        Class(RELATIVE, of(strange, kinds), "device", "family"),
        Class(OTHER, of(strange, SOFTWARE), "maker", "maker"),
    ]


def widened(every: Sequence[Class], trait: str = "", value: str = "") -> Interval:
    """The widest bounds of these classes, without the errors that have this trait."""
    kept = [[e for e in c.found if not trait or getattr(e, trait) != value] for c in every]
    ends = [bounds(found, c.by) for found, c in zip(kept, every, strict=True) if found]
    return min(low for low, _ in ends), max(high for _, high in ends)


def coverage(every: Sequence[Class]) -> float:
    """Share of the rows of the last class inside the bounds of the others, each source (family,
    maker) left out in turn, with the same weight.
    """
    last = every[-1]
    shares = []
    for name in sorted({getattr(e, last.left_out) for e in last.found}):
        if all(getattr(e, last.left_out) == name for e in last.found):
            return math.nan
        low, high = widened(every, last.left_out, name)
        own = [e.value for e in last.found if getattr(e, last.left_out) == name]
        shares.append(float(np.mean([min(low, 0.0) <= v <= max(high, 0.0) for v in own])))
    return float(np.mean(shares))


def table(known: list[Error], strange: list[Error]) -> list[str]:
    """The lines of hwdb/serving.toml; each class is printed with its coverage."""
    lines = ["# Where ln(measured / forecast) of serving lies, 80 %.", f'source = "{SOURCE}"']
    for name, trait in (("devices", "device"), ("makers", "maker")):
        lines += ["", f"[{name}]"]
        for kind in SOFTWARE:
            values = sorted({getattr(e, trait) for e in known if e.kind == kind})
            lines += [f"{kind} = [", *(f'    "{value}",' for value in values), "]"]
    for kind in SOFTWARE:
        for i, name in enumerate((MEASURED, RELATIVE, OTHER)):
            for quantity in QUANTITIES.values():
                every = classes(known, strange, kind, quantity)[: i + 1]
                low, high = widened(every)
                own = every[-1].found
                held = f"held {coverage(every):.0%} of a left-out {every[-1].left_out}"
                print(
                    f"{kind} {name} {quantity}: {low:+.3f} to {high:+.3f}, {len(own)} rows; {held}"
                )
                lines += ["", f"[{kind}.{name}.{quantity}]", f"low = {low:.3f}"]
                lines += [f"high = {high:.3f}", f"rows = {len(own)}"]
                lines += [f"sources = {len({e.source for e in own})}"]
    return lines


def main(arguments: list[str]) -> None:
    """Print, and with --write rewrite, the bounds."""
    path = table_of(arguments)
    known = errors(path)
    with families_unknown():
        strange = errors(path)
    lines = table(known, strange)
    print(f"local: profiles whose names begin with {', '.join(LOCAL)}")
    if "--write" in arguments:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
