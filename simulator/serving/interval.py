"""How sure a forecast of serving is: 80 % intervals from the errors of measured servers.

ln(measured / forecast) of a quantity lies between two bounds that hold 80 % of the measured runs of
sources whose rows were left out, every source with the same weight: hwdb/serving.toml, written by
scenarios/fits/serving_intervals.py. Servers of datacenters and software for one's own machine are
two classes.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import msgspec

from roofcast import hwdb
from roofcast.hwdb.strict import checked, load
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.result import Spread

FILE = Path(hwdb.__file__).parent / "serving.toml"
QUANTITIES = ("ttft", "tpot", "output", "prefill")
LOCAL = ("llama.cpp", "exllama", "transformers")  # how the names of such profiles begin


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where ln(measured / forecast) lies, and what tells it."""

    low: float
    high: float
    rows: int
    sources: int


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of each quantity, by class of software."""

    source: str
    server: dict[str, Bounds]
    local: dict[str, Bounds]


class Ranges(NamedTuple):
    """Times with their intervals, and the intervals of the rates."""

    times: dict[str, Spread]
    output: tuple[float, float]
    prefill: tuple[float, float]


@functools.cache
def errors() -> Errors:
    """The shipped errors."""
    return checked(Errors, load(FILE, "the errors of serving forecasts"), str(FILE))


def class_of(stack: str) -> str:
    """Class of a serving profile: server or local.

    >>> class_of("vllm-2025"), class_of("llama.cpp-metal")
    ('server', 'local')
    """
    return "local" if stack.startswith(LOCAL) else "server"


def around(value: float, quantity: str, stack: str) -> tuple[float, float]:
    """The 80 % interval of a value; the value itself is always inside.

    The time from end to end has the interval of the throughput, turned over.
    """
    table: dict[str, Bounds] = getattr(errors(), class_of(stack))
    bounds = table["output" if quantity == "e2e" else quantity]
    ends = (-bounds.high, -bounds.low) if quantity == "e2e" else (bounds.low, bounds.high)
    return value * math.exp(min(ends[0], 0.0)), value * math.exp(max(ends[1], 0.0))


def error_at(quantity: str, stack: str, share: float) -> float:
    """ln(measured / forecast) that this share of measured runs stays below: normal, through both
    ends of the 80 % interval.

    >>> round(error_at("tpot", "vllm", 0.9), 3), round(error_at("tpot", "vllm", 0.1), 3)
    (0.258, -0.108)
    """
    from statistics import NormalDist

    bounds: Bounds = getattr(errors(), class_of(stack))[quantity]
    one = NormalDist()
    middle, sigma = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    z = one.inv_cdf(min(max(share, 1e-6), 1.0 - 1e-6)) / one.inv_cdf(0.9)
    return middle + sigma * z


def ranges(stack: str, times: dict[str, Spread], output: float, prefill: float) -> Ranges:
    """The intervals of a forecast."""
    with_bounds = {}
    for name, spread in times.items():
        low, high = around(spread.mean, name, stack)
        with_bounds[name] = msgspec.structs.replace(spread, low=low, high=high)
    return Ranges(with_bounds, around(output, "output", stack), around(prefill, "prefill", stack))
