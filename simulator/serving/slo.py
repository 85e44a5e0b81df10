"""The highest rate of requests that a service level holds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.units import check_has_unit, quantity
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.asked import PERCENTILE, SLO, Level, Serving
from roofcast.simulator.serving.chain import costs, held_of, replayed, replica, serve
from roofcast.simulator.serving.interval import error_at
from roofcast.simulator.serving.likeness import Likeness
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import mean
from roofcast.simulator.serving.result import ServingForecast

HALVINGS = 14  # of the search for a rate
SLOWEST = 0.01  # share of the highest rate below which no rate is looked for
HIGHEST = 0.95  # and above which none is: the queue grows without bound near 1
GRID = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, HIGHEST)  # shares of it at which the level is looked at
CLOSE = 0.002  # of a rate: how near to the highest it is looked for
SURE = 0.9  # probability with which a level is wanted


def level(text: str) -> Level:
    """A service level as it is typed: ttft=500ms,tpot=30ms, and p99 for another percentile.

    >>> level("ttft=500ms,tpot=0.03s,p99")
    Level(limits={'ttft': 0.5, 'tpot': 0.03}, percent=99)
    """
    limits: dict[str, float] = {}
    percent = PERCENTILE
    for part in filter(None, (p.strip() for p in text.split(","))):
        if found := re.fullmatch(r"p(\d{1,2})", part):
            percent = int(found[1])
            continue
        name, sign, value = (p.strip() for p in part.partition("="))
        if not sign or name not in SLO:
            raise BadInput(
                f"slo {quoted(part)}: wanted {', '.join(SLO)} with a time, for example"
                " ttft=500ms,tpot=30ms"
            )
        try:
            check_has_unit(value, "s", "s" if len(value.partition(".")[0]) < 2 else "ms")
        except BadInput as error:
            raise BadInput(f"slo {quoted(part)}: {error}") from None
        try:
            seconds = quantity(value, "s")
        except BadInput:
            seconds = 0.0
        if not 0 < seconds < 1e6:
            raise BadInput(f"slo {quoted(part)}: not a time above zero; write for example 500ms")
        if name in limits:
            raise BadInput(f"slo {name}: given twice; keep one")
        limits[name] = float(seconds)
    if not limits:
        raise BadInput("slo: no limit; write for example ttft=500ms,tpot=30ms")
    if not 1 <= percent <= 99:
        raise BadInput(f"slo p{percent}: give a percentile from p1 to p99")
    return Level(limits, percent)


def factors(of: Likeness, sure: float) -> dict[str, float]:
    """Times as multiples of their forecasts, by what a level limits, that this share of measured
    servers stays below.
    """
    slow, first = (math.exp(error_at(name, of, sure)) for name in ("tpot", "ttft"))
    return {"ttft": first, "tpot": slow, "e2e": slow}


class Curve:
    """A percentile of the times of requests over the rate at which they arrive, by replays."""

    def __init__(self, of: Replica, load: Load, wanted: Level) -> None:
        self.of, self.load, self.wanted = of, load, wanted
        self.likeness = of.server.likeness
        self.held = held_of(of, load)
        full = msgspec.structs.replace(load, kind="offline")
        ramp = of.server.profile.ramp
        self.highest = mean(of.server, full, self.held, of.spec, ramp, costs).requests_per_s
        self.found: dict[float, dict[str, float]] = {}

    def at(self, rate: float) -> dict[str, float]:
        """Seconds by what is limited, at a rate of one replica."""
        if rate not in self.found:
            one = msgspec.structs.replace(self.load, amount=rate)
            there = mean(self.of.server, one, self.held, self.of.spec, made=costs)
            met = replayed(self.of, one, self.held, there)  # the requests of a single forecast
            assert met is not None, "a rate is replayed"
            self.found[rate] = {
                name: met.percentile(name, self.wanted.percent)
                for name in self.wanted.limits
                if np.isfinite(getattr(met.found, name)).any()
            }
        return self.found[rate]

    def worst(self, rate: float) -> tuple[float, str]:
        """The time that misses its limit most, as a multiple of the limit, and its name."""
        ratios = [(value / self.wanted.limits[name], name) for name, value in self.at(rate).items()]
        return max(ratios, default=(0.0, ""))

    def between(self, rate: float) -> dict[str, float]:
        """The times at a rate, between those of the rates that were replayed."""
        rates = sorted(self.found)
        return {
            name: float(np.interp(rate, rates, [self.found[r][name] for r in rates]))
            for name in self.found[rates[0]]
        }

    def probability(self, rate: float) -> float:
        """That the level holds at a rate on a real server, from 0 to 1."""
        self.spread()
        return _most(lambda p: self.holds(rate, p))

    def spread(self) -> None:
        """Replay rates from low to high, between which others lie."""
        for share in GRID:
            self.at(share * self.highest)

    def holds(self, rate: float, sure: float) -> bool:
        """Whether the level holds at a rate with this probability, by the errors of forecasts.

        A server whose steps take f times as long as forecast is, at a rate, the server of the
        forecast at f times the rate with all times f times as long. Errors of the time to the first
        token are wider; all are taken to rise together.
        """
        longer = factors(self.likeness, sure)
        there = rate * longer["tpot"]
        if there > HIGHEST * self.highest:
            return False
        times = self.between(there)
        return all(
            value * longer[name] <= self.wanted.limits[name] for name, value in times.items()
        )


def with_level(asked: Serving, wanted: Level) -> ServingForecast:
    """The forecast at the highest rate that holds a service level.

    asked: its load gives the lengths; how many requests come is what is looked for.
    Raises BadInput where not even requests that come alone hold it.
    """
    of = replica(asked)
    n = of.cut.replicas
    own = None if asked.load.requests is None else max(asked.load.requests // n, 1)
    load = msgspec.structs.replace(asked.load, kind="rate", requests=own)
    curve = Curve(of, load, wanted)

    def at_rate_of(rate: float) -> ServingForecast:
        at = msgspec.structs.replace(asked.load, kind="rate", amount=rate * n)
        return serve(msgspec.structs.replace(asked, load=at))

    return reached(curve, at_rate_of, lambda worst: _missed(of, load, wanted, worst), n)


def reached(
    curve: Curve,
    forecast: Callable[[float], ServingForecast],
    missed: Callable[[str], str],
    replicas: int = 1,
) -> ServingForecast:
    """The forecast at the highest rate of a curve.

    forecast: of a rate of one replica; missed: what is said where no rate holds the level, of the
    limit that is missed most. Raises BadInput with it.
    """
    wanted = curve.wanted
    ratio, worst = curve.worst(SLOWEST * curve.highest)
    if ratio > 1.0:
        raise BadInput(missed(worst))
    low, high = _highest(curve)
    found = forecast(low)
    near = f"no rate above {HIGHEST:.0%} of the capacity is looked at: the level holds up to there"
    return msgspec.structs.replace(
        found,
        slo=wanted.words(),
        assumptions=(*found.assumptions, *((near,) if low == high else ())),
        slo_probability=curve.probability(low),
        slo_sure_requests_per_s=replicas * low * _most(lambda x: curve.holds(x * low, SURE)),
    )


def _highest(curve: Curve) -> tuple[float, float]:
    """The highest rate at which the level holds, and one up to CLOSE above at which it does not:
    the same rate where no higher one is looked at. Between two rates it is looked for where a line
    through their times meets the level, a little below and above that in turn.
    """
    rates = [SLOWEST, *GRID]
    missed = next((s for s in GRID if curve.worst(s * curve.highest)[0] > 1.0), None)
    if missed is None:
        return HIGHEST * curve.highest, HIGHEST * curve.highest
    low, high = (s * curve.highest for s in (rates[rates.index(missed) - 1], missed))
    for turn in range(HALVINGS):
        if high - low < CLOSE * high:
            break
        below, above = (curve.worst(rate)[0] for rate in (low, high))
        share, least = 0.5, CLOSE * high / 4
        if turn % 3 < 2:
            share = (1.0 - below) / (above - below)
        aim = low + share * (high - low) + (0.0, -least, least)[(turn + 1) % 3]
        middle = min(max(aim, low + least), high - least)
        low, high = (middle, high) if curve.worst(middle)[0] <= 1.0 else (low, middle)
    return low, high


def _most(holds: Callable[[float], bool]) -> float:
    """The largest number from 0 to 1 up to which something holds."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _missed(of: Replica, load: Load, wanted: Level, worst: str) -> str:
    """That no rate holds a level, and what a request alone needs."""
    alone = float(of.server.prefill(1, load.new, load.hit)) + of.server.request_s
    step = float(of.server.decode(1, load.context)) / of.spec.tokens
    need = {"ttft": alone, "tpot": step, "e2e": alone + (load.output_len - 1) * step}[worst]
    return (
        f"slo {worst} {1000 * wanted.limits[worst]:g} ms: no rate holds it; a request alone needs"
        f" about {1000 * need:.3g} ms; allow more, or use more or faster devices"
    )
