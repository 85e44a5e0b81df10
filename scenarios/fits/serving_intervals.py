"""Writes the 80 % intervals of serving forecasts (hwdb/serving.toml) from measured servers, those
that come with Roofcast or a table of others.

    python -m roofcast.scenarios.fits.serving_intervals [TABLE.csv.gz] [--write]

For each class of software and quantity, the bounds of ln(measured / forecast) hold 80 % of the
rows: on devices that were measured every source has the same weight; on relatives of these every
device, whose family and measured fractions are unknown to the forecast; on devices of other makers
every maker, with such forecasts under both classes of software. None is narrower than the one
before. Not counted are suspect rows, those that do not state their format or layout, and bursts,
which begin with a client's ramp and end with a tail. Printed is the share of the rows of a source,
a device, a family of devices and a maker that the bounds of all others hold: the coverage for one
that nobody has seen.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.records import Device
from roofcast.scenarios.fits.serving import measured
from roofcast.scenarios.measured.cells import Row
from roofcast.scenarios.measured.serving.forecasts import QUANTITIES, completed, score_all
from roofcast.scenarios.measured.serving.rows import device_of, server_of
from roofcast.simulator.serving.likeness import FILE, LOCAL, MEASURED, OTHER, RELATIVE
from roofcast.simulator.times.rates import family_name

TAILS = (0.1, 0.9)
TRAITS = ("device", "maker")  # by which a device is measured, or a relative
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


def errors(table: Iterable[Row]) -> list[Error]:
    """The errors of every row that has a forecast."""
    found = []
    for s in score_all(table):
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
    """Errors that the bounds of one class are made of, and the groups that are weighted alike."""

    name: str
    found: list[Error]
    by: str


def classes(known: list[Error], strange: list[Error], kind: str, quantity: str) -> list[Class]:
    """The classes of a quantity, the nearest first; strange: with `families_unknown`."""

    def of(every: list[Error], kinds: Sequence[str]) -> list[Error]:
        return [e for e in every if e.kind in kinds and e.quantity == quantity]

    kinds: Sequence[str] = (kind,)
    if len({e.source for e in of(known, kinds)}) < FEWEST:  # one source tells nothing of another
        kinds = SOFTWARE
    return [
        Class(MEASURED, of(known, kinds), "source"),
        Class(RELATIVE, of(strange, kinds), "device"),
        Class(OTHER, of(strange, SOFTWARE), "maker"),
    ]


def widened(every: Sequence[Class]) -> Interval:
    """The widest bounds of these classes."""
    ends = [bounds(c.found, c.by) for c in every]
    return min(low for low, _ in ends), max(high for _, high in ends)


def held(
    known: list[Error], strange: list[Error], trait: str, of: tuple[str, str]
) -> dict[str, float]:
    """Share of the rows of each source (device, family, maker) inside the bounds that all others
    make, for a kind of software and a quantity. A row of a device that no other source has is then
    one of a relative, or of another maker's device.
    """
    kind, quantity = of
    rows_of = known if trait == "source" else strange
    own = [e for e in rows_of if (e.kind, e.quantity) == of]
    shares = {}
    for name in sorted({getattr(e, trait) for e in own}):
        rest = [e for e in known if getattr(e, trait) != name]
        every = classes(rest, [e for e in strange if getattr(e, trait) != name], kind, quantity)
        if not all(c.found for c in every):
            continue
        ends = {c.name: widened(every[: i + 1]) for i, c in enumerate(every)}
        devices, makers = ({getattr(e, x) for e in rest if e.kind == kind} for x in TRAITS)
        inside = []
        for e in own:
            if getattr(e, trait) == name:
                near = MEASURED if e.device in devices else RELATIVE if e.maker in makers else OTHER
                low, high = ends[near]
                inside.append(min(low, 0.0) <= e.value <= max(high, 0.0))
        shares[name] = float(np.mean(inside))
    return shares


def coverage(known: list[Error], strange: list[Error]) -> list[str]:
    """What the intervals hold of left-out groups: of each quantity, and of all, every group of a
    quantity with the same weight.
    """
    lines = []
    for trait in ("source", "device", "family", "maker"):
        every: list[float] = []
        parts = []
        for of in itertools.product(SOFTWARE, QUANTITIES.values()):
            shares = list(held(known, strange, trait, of).values())
            every += shares
            if shares:
                parts.append(f"{' '.join(of)} {np.mean(shares):.0%} of {len(shares)}")
        if every:
            lines.append(f"each {trait} left out: {np.mean(every):.0%} held; {', '.join(parts)}")
    return lines


def bounded(known: list[Error], strange: list[Error]) -> list[str]:
    """The lines of hwdb/serving.toml; the bounds are printed."""
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
                print(f"{kind} {name} {quantity}: {low:+.3f} to {high:+.3f}, {len(own)} rows")
                lines += ["", f"[{kind}.{name}.{quantity}]", f"low = {low:.3f}"]
                lines += [f"high = {high:.3f}", f"rows = {len(own)}"]
                lines += [f"sources = {len({e.source for e in own})}"]
    return lines


def main(arguments: list[str]) -> None:
    """Print, and with --write rewrite, the bounds."""
    table = list(measured(arguments))
    known = errors(table)
    with families_unknown():
        strange = errors(table)
    lines = bounded(known, strange)
    print("\n".join(coverage(known, strange)))
    print(f"local: profiles whose names begin with {', '.join(LOCAL)}")
    if "--write" in arguments:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
