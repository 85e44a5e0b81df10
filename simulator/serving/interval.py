"""How sure a forecast of serving is: 80 % intervals from the errors of measured servers.

ln(measured / forecast) of a quantity lies between two bounds that hold 80 % of measured runs, every
group of them with the same weight, by how near the server is to those (`Likeness`).
"""

from __future__ import annotations

import math

import msgspec

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.likeness import Likeness
from roofcast.simulator.serving.protocol import Numbers
from roofcast.simulator.serving.result import Spread


class Ranges(NamedTuple):
    """Times with their intervals, and the intervals of the rates."""

    times: dict[str, Spread]
    output: tuple[float, float]
    prefill: tuple[float, float]


def around(value: Numbers, quantity: str, of: Likeness) -> tuple[Numbers, Numbers]:
    """The 80 % interval of a value; the value itself is always inside.

    The time from end to end has the interval of the throughput, turned over.
    """
    bounds = of.bounds["output" if quantity == "e2e" else quantity]
    ends = (-bounds.high, -bounds.low) if quantity == "e2e" else (bounds.low, bounds.high)
    return value * math.exp(min(ends[0], 0.0)), value * math.exp(max(ends[1], 0.0))


def error_at(quantity: str, of: Likeness, share: float) -> float:
    """ln(measured / forecast) that this share of measured runs stays below: normal, through both
    ends of the 80 % interval.

    >>> bounds = Likeness().bounds["tpot"]
    >>> abs(error_at("tpot", Likeness(), 0.9) - bounds.high) < 1e-12
    True
    """
    from statistics import NormalDist

    bounds, one = of.bounds[quantity], NormalDist()
    middle, sigma = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    z = one.inv_cdf(min(max(share, 1e-6), 1.0 - 1e-6)) / one.inv_cdf(0.9)
    return middle + sigma * z


def ranges(of: Likeness, times: dict[str, Spread], output: float, prefill: float) -> Ranges:
    """The intervals of a forecast. A first token comes before the last: its time ends no later; of
    an answer of one token, both are one time.
    """
    with_bounds = {}
    whole = times["e2e"].mean if "e2e" in times else math.inf
    last = around(whole, "e2e", of)[1]
    for name, spread in times.items():
        one = name == "ttft" and math.isclose(spread.mean, whole)
        low, high = around(spread.mean, "e2e" if one else name, of)
        high = max(min(high, last), spread.mean) if name == "ttft" else high
        with_bounds[name] = msgspec.structs.replace(spread, low=low, high=high)
    return Ranges(with_bounds, around(output, "output", of), around(prefill, "prefill", of))
