"""How sure a forecast of serving is: 80 % intervals from the errors of measured servers.

ln(measured / forecast) of a quantity lies between two bounds that hold 80 % of the measured runs
of sources whose rows were left out, every source with the same weight (hwdb/serving.toml, written
by scenarios/fits/serving_intervals.py).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.serving.result import Spread
from roofcast.simulator.serving.server import Server

FILE = Path(hwdb.__file__).parent / "serving.toml"
QUANTITIES = ("ttft", "tpot", "e2e", "output", "prefill")


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where ln(measured / forecast) lies."""

    low: float
    high: float
    rows: int
    sources: int


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of each quantity."""

    ttft: Bounds
    tpot: Bounds
    e2e: Bounds
    output: Bounds
    prefill: Bounds
    source: str


class Ranges(NamedTuple):
    """Times with their intervals, and the intervals of the rates."""

    times: dict[str, Spread]
    output: tuple[float, float]
    prefill: tuple[float, float]


@functools.cache
def errors() -> Errors:
    """The shipped errors."""
    return checked(Errors, load(FILE, "the errors of serving forecasts"), str(FILE))


def around(value: float, quantity: str) -> tuple[float, float]:
    """The 80 % interval of a value; the value itself is always inside."""
    bounds: Bounds = getattr(errors(), quantity)
    low, high = min(bounds.low, 0.0), max(bounds.high, 0.0)
    return value * math.exp(low), value * math.exp(high)


def ranges(server: Server, times: dict[str, Spread], output: float, prefill: float) -> Ranges:
    """The intervals of a forecast."""
    del server
    with_bounds = {}
    for name, spread in times.items():
        low, high = around(spread.mean, name)
        with_bounds[name] = msgspec.structs.replace(spread, low=low, high=high)
    return Ranges(with_bounds, around(output, "output"), around(prefill, "prefill"))
