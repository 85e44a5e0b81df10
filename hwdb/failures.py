"""How often long runs are interrupted: hwdb/failures.toml, by run, and the rate for a run to come.

A rate is per 1000 node-days, where a node is eight devices: failures are mostly those of devices,
and grow linearly with their number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import msgspec

from roofcast.hwdb.strict import checked, load

PATH = Path(__file__).parent / "failures.toml"
NODE = 8  # devices of a node
HOURS = 24.0
AGEING = "ageing"  # the table of failures.toml that is not a run
SHORT = 1e-4  # a run against the age of its cluster, below which its rate is that of its middle
Z80 = 1.2815515655446004  # half-width of the interval that holds 80 % of a normal distribution


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Interruptions of one run."""

    device: str
    devices: int
    days: float
    interruptions: int  # unexpected ones
    planned: int
    counted: str  # what is among them
    source: str
    causes: dict[str, int] = {}

    @property
    def rate(self) -> float:
        """Interruptions per 1000 node-days."""
        return 1000.0 * self.interruptions / (self.devices / NODE * self.days)

    @property
    def hours_between(self) -> float:
        """Mean time between interruptions [h]."""
        return HOURS * self.days / self.interruptions


class Rate(NamedTuple):
    """The rate for a run that was not counted [per 1000 node-days]: a log-normal distribution."""

    median: float
    sigma: float  # of its logarithm

    @property
    def low(self) -> float:
        """Lower end of the 80 % interval."""
        return self.median * math.exp(-Z80 * self.sigma)

    @property
    def high(self) -> float:
        """Upper end of the 80 % interval."""
        return self.median * math.exp(Z80 * self.sigma)


@functools.cache
def runs() -> dict[str, Counted]:
    """The runs whose interruptions were counted."""
    tree = load(PATH, "interruptions of runs")
    named = {name: table for name, table in tree.items() if name != AGEING}
    return {name: checked(Counted, table, f"{PATH}: {name}") for name, table in named.items()}


class Ageing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the rate falls with the age of a cluster."""

    shape: float  # failures up to an age t grow as t ** shape
    source: str


@functools.cache
def ageing() -> Ageing:
    """How the rate falls with the age of a cluster."""
    return checked(Ageing, load(PATH, "interruptions of runs")[AGEING], f"{PATH}: {AGEING}")


def aged(days_old: float, days: float, life_days: float) -> float:
    """The mean rate of a run of so many days on a cluster that is so old when it starts, over the
    mean rate of the cluster's life: N(t) = (t / life) ** shape of the life's failures come up to
    the age t (schroeder2006, crow1974), without wear at the end.

    >>> aged(0.0, 1461.0, 1461.0)
    1.0
    >>> [round(aged(age, 54.0, 1461.0), 2) for age in (0.0, 365.0, 1461.0)]
    [2.28, 1.04, 0.75]
    """
    life, shape = life_days, ageing().shape
    if days < SHORT * days_old:  # the difference of two nearly equal powers
        return shape * ((days_old + days / 2) / life) ** (shape - 1.0)
    failures = ((days_old + days) / life) ** shape - (days_old / life) ** shape
    return failures * life / days


def rate(without: Collection[str] = ()) -> Rate:
    """The rate of a further run: geometric mean of the runs, each with the same weight, and the
    spread between them. The spread of a further run is sqrt(1 + 1/n) times theirs.

    >>> rate().low < runs()["llama-3-405b"].rate < rate().high
    True
    """
    logs = [math.log(run.rate) for name, run in runs().items() if name not in without]
    return Rate(math.exp(mean(logs)), stdev(logs) * math.sqrt(1 + 1 / len(logs)))


def hours_between(per_1000_node_days: float, devices: int) -> float:
    """Mean time between interruptions of so many devices [h].

    >>> round(hours_between(3.789, 16384), 2)
    3.09
    """
    return HOURS * 1000.0 * NODE / (per_1000_node_days * devices)
