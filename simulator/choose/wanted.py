"""What a choice has to meet, what it is ranked by, and how likely a forecast meets it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.market import CLASSES, RENTS, Own
from roofcast.simulator.choices import GOALS

LIMITS = {  # constraint: what it limits
    "within_s": "time_s",
    "under_usd": "cost_usd",
    "max_power_w": "power_w",
    "max_energy_j": "energy_j",
}
GOAL_OF = {  # constraint: the objective that comes nearest to it
    "within_s": "time", "under_usd": "cost", "max_power_w": "power", "max_energy_j": "energy",
}  # fmt: skip
MOST_DEVICES = 1024  # that a choice considers, unless more are asked for
DEAREST = 1e15  # of any limit
YEAR = 365.25 * 86400.0  # seconds beyond which a run is no answer to a question without a deadline


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Constraints and objective of a choice."""

    within_s: float | None = None  # the run's time [s]
    under_usd: float | None = None  # rent of the run, or purchase with electricity [USD]
    max_power_w: float | None = None  # printed power of all devices together [W]
    max_energy_j: float | None = None  # of all devices together, the whole run [J]
    longest_s: float | None = None  # a run that takes longer is no answer; None: any
    sure: float | None = None  # probability with which deadline and budget hold; None: as forecast
    goal: str | None = None  # one of GOALS; default: see `objective`
    contract: str = "on-demand"  # one of hwdb.market.RENTS
    provider: str | None = None  # class of provider; default: the first of CLASSES with quotes
    buy: bool = False  # purchase, not rent
    devices: int = MOST_DEVICES  # at most
    joined: bool = False  # desktop machines too, which no network joins by default
    owned: dict[str, int] = {}  # devices there are; where given, no others are chosen from
    prices: dict[str, Own] = {}  # the user's, by device; a number is a rent

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None and not 0 < value <= DEAREST:
                raise BadInput(f"{name} {value:g}: a positive number up to {DEAREST:g} is wanted")
        if self.sure is not None and not 0.5 <= self.sure < 1:
            raise BadInput(f"sure {self.sure:g}: a probability from 0.5 to below 1 is wanted")
        if self.goal is not None and self.goal not in GOALS:
            raise unknown("goal", self.goal, GOALS, f"known: {', '.join(GOALS)}")
        if self.contract not in RENTS:
            raise unknown("contract", self.contract, RENTS, f"known: {', '.join(RENTS)}")
        if self.provider is not None and self.provider not in CLASSES:
            raise unknown("provider", self.provider, CLASSES, f"known: {', '.join(CLASSES)}")
        if self.buy and (self.owned or self.contract != RENTS[0]):
            other = "owned" if self.owned else f"contract {self.contract}"
            raise BadInput(f"buy and {other}: two ways to pay; give one of them")
        if self.devices < 1:
            raise BadInput(f"devices {self.devices}: at least 1 is wanted")

    @property
    def objective(self) -> str:
        """What choices are ranked by: where it is not given, cost under a deadline or without any
        limit, else time.
        """
        if self.goal is not None:
            return self.goal
        if self.within_s is not None:
            return "cost"
        return "time" if self.limits or self.owned else "cost"

    @property
    def limits(self) -> dict[str, float]:
        """The constraints that are given."""
        given = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in given.items() if value is not None}


def probability(
    interval_s: Mapping[str, tuple[float, float]], limit: float, step_s: float
) -> float:
    """The probability that a step takes at most `limit` seconds, from its intervals by level in
    percent: between their ends linear in the logarithm of the time and the quantile of a normal
    distribution, and beyond them along the last piece.

    >>> interval = {"50": (0.9, 1.1), "80": (0.8, 1.25), "95": (0.7, 1.5)}
    >>> round(probability(interval, 1.1, 1.0), 3), round(probability(interval, 1.25, 1.0), 3)
    (0.75, 0.9)
    """
    points: dict[float, float] = {}
    for level, (low, high) in interval_s.items():
        tail = 0.5 - float(level) / 200
        for share, seconds in ((tail, low), (1 - tail, high)):
            if seconds > 0:
                points[NormalDist().inv_cdf(share)] = float(np.log(seconds))
    if limit <= 0 or not points:
        return float(step_s <= limit)
    z = np.array(sorted(points))
    at = np.maximum.accumulate([points[each] for each in z])
    at = at + 1e-12 * np.arange(len(at))  # two quantiles may be one time
    x = float(np.log(limit))
    if x <= at[0] or x >= at[-1]:
        i, j = (0, 1) if x <= at[0] else (-2, -1)
        slope = (z[j] - z[i]) / max(at[j] - at[i], 1e-9)
        value = z[i if x <= at[0] else j] + slope * (x - at[i if x <= at[0] else j])
    else:
        value = float(np.interp(x, at, z))
    return NormalDist().cdf(float(value))
