"""The highest rate of requests that a service level holds."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.units import quantity
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.asked import PERCENTILE, SLO, Level, Serving
from roofcast.simulator.serving.chain import held_of, replica, serve, steps_of
from roofcast.simulator.serving.load import Load, requests
from roofcast.simulator.serving.means import mean
from roofcast.simulator.serving.replay import replay
from roofcast.simulator.serving.result import ServingForecast

HALVINGS = 14  # of the search for a rate
TRIED = 2000  # requests of each replay of the search
SLOWEST = 0.01  # share of the highest rate below which no rate is looked for


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


class _Tried(NamedTuple):
    """Whether a rate holds, and by how much the worst limit is missed."""

    holds: bool
    worst: str


def with_level(asked: Serving, wanted: Level) -> ServingForecast:
    """The forecast at the highest rate that holds a service level.

    asked: its load gives the lengths; how many requests come is what is looked for.
    Raises BadInput where not even requests that come alone hold it.
    """
    of = replica(asked)
    load = msgspec.structs.replace(asked.load, kind="rate", requests=TRIED)
    held = held_of(of, load)
    full = msgspec.structs.replace(load, kind="offline")
    ramp = of.server.profile.ramp
    highest = mean(of.server, full, held, of.spec, ramp).requests_per_s
    longest = (1 + load.spread) * (load.input_len + load.output_len)
    steps = steps_of(of, load, held, longest)

    def tried(rate: float) -> _Tried:
        one = msgspec.structs.replace(load, amount=rate)
        found = replay(steps, requests(one, TRIED), held, None, of.server.request_s)
        ratios = {
            name: float(np.nanpercentile(getattr(found, name), wanted.percent)) / most
            for name, most in wanted.limits.items()
            if np.isfinite(getattr(found, name)).any()
        }
        worst = max(ratios, key=lambda name: ratios[name]) if ratios else ""
        return _Tried(not ratios or ratios[worst] <= 1.0, worst)

    low, high = SLOWEST * highest, 0.98 * highest
    first = tried(low)
    if not first.holds:
        raise BadInput(_missed(of, load, wanted, first.worst))
    if tried(high).holds:
        low = high
    else:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if tried(middle).holds else (low, middle)
            if high - low < 0.002 * high:
                break
    rate = low * of.cut.replicas
    counted = TRIED * of.cut.replicas
    at = msgspec.structs.replace(asked.load, kind="rate", amount=rate, requests=counted)
    found = serve(msgspec.structs.replace(asked, load=at))
    return msgspec.structs.replace(found, slo=wanted.words())


def _missed(of: Replica, load: Load, wanted: Level, worst: str) -> str:
    """That no rate holds a level, and what a request alone needs."""
    alone = float(of.server.prefill(1, load.new, load.hit)) + of.server.request_s
    step = float(of.server.decode(1, load.context)) / of.spec.tokens
    need = {"ttft": alone, "tpot": step, "e2e": alone + (load.output_len - 1) * step}[worst]
    return (
        f"slo {worst} {1000 * wanted.limits[worst]:g} ms: no rate holds it; a request alone needs"
        f" about {1000 * need:.3g} ms; allow more, or use more or faster devices"
    )
