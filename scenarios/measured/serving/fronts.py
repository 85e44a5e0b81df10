"""Regret on measured fronts of servers: how much throughput the layout that forecasts choose gives
away, where several layouts of one model on one device were measured.

A front: closed loops of one source, model, device, format and lengths, at different layouts and
numbers of users. For a limit on the time per token, the layout is chosen whose forecasts reach the
most output tokens per second and device within it; regret is what the best measured layout reaches
more, within the same limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import NamedTuple

from roofcast.hwdb.errors import number_of
from roofcast.scenarios.measured.cells import text
from roofcast.scenarios.measured.serving.forecasts import Scored
from roofcast.simulator.serving.profiles import program

LIMITS = (0.01, 0.02, 0.03, 0.05, 0.1)  # seconds per token
ALIKE = ("source_name", "model", "roofcast_device", "w_prec", "input_len", "output_len")
LAYOUT = ("n_devices", "tp", "pp", "ep", "dp")


class Point(NamedTuple):
    """One layout at one number of users."""

    layout: tuple[str, ...]
    measured: tuple[float, float]  # seconds per token, output tokens per second and device
    forecast: tuple[float, float]


class Chosen(NamedTuple):
    """A layout that was chosen within a limit."""

    source: str
    front: str  # of which model, device, format and lengths
    limit: float  # seconds per token
    layout: str
    best: str
    regret: float | None  # best / chosen - 1; None: no measured run of it holds the limit


class Regrets(NamedTuple):
    """What was chosen on the fronts of one source."""

    source: str  # "": all
    fronts: int
    chosen: int
    same: float  # share of them that are the best layout
    median: float  # regret, of those that hold the limit
    mean: float
    worst: float
    missed: int  # of those chosen, no measured run holds the limit


def choices(scored: Iterable[Scored]) -> list[Chosen]:
    """What is chosen on every front within every limit that two layouts or more hold."""
    fronts: dict[tuple[str, ...], list[Point]] = defaultdict(list)
    for s in scored:
        if (point := _point(s)) is not None:
            key = (*(text(s.row, name) for name in ALIKE), program(s.stack))
            fronts[key].append(point)
    found = []
    for key, points in fronts.items():
        for limit in LIMITS:
            if (one := _chosen(key, points, limit)) is not None:
                found.append(one)
    return found


def _point(s: Scored) -> Point | None:
    p = s.predicted
    tpot, output = s.value("tpot_s"), s.value("output_tokens_per_s")
    loop = s.row.get("load_kind") == "concurrency" and not s.suspect and not s.taken
    if not (loop and tpot and output and p.tpot_s and p.output_tokens_per_s):
        return None
    devices = float(text(s.row, "n_devices") or 1.0)
    layout = tuple(text(s.row, name) or "1" for name in LAYOUT)
    return Point(layout, (tpot, output / devices), (p.tpot_s, p.output_tokens_per_s / devices))


def _chosen(key: tuple[str, ...], points: Sequence[Point], limit: float) -> Chosen | None:
    """The choice within a limit; None where fewer than two layouts hold it, or none is forecast
    to.
    """
    measured, forecast = (_best_of(points, limit, i) for i in (0, 1))
    if len(measured) < 2 or not forecast:
        return None
    best, chosen = (max(each, key=lambda name: each[name]) for each in (measured, forecast))
    held = measured.get(chosen)
    regret = None if held is None else measured[best] / held - 1.0
    return Chosen(key[0], ", ".join(key[1:]), limit, _words(chosen), _words(best), regret)


def _best_of(points: Sequence[Point], limit: float, of: int) -> dict[tuple[str, ...], float]:
    """Of each layout the most tokens per second and device within a limit; of: 0 measured,
    1 forecast.
    """
    found: dict[tuple[str, ...], float] = {}
    for point in points:
        tpot, rate = (point.measured, point.forecast)[of]
        if tpot <= limit:
            found[point.layout] = max(rate, found.get(point.layout, 0.0))
    return found


def _words(layout: tuple[str, ...]) -> str:
    """
    >>> _words(("8", "4", "1", "1", "2"))
    '8 devices, tp 4, dp 2'
    """
    cut = [f"{name} {n}" for name, n in zip(LAYOUT[1:], layout[1:], strict=True) if n != "1"]
    return ", ".join([number_of(float(layout[0]), "device"), *cut])


def regrets(found: Sequence[Chosen]) -> list[Regrets]:
    """A line for each source, and one for all."""
    sources = sorted({one.source for one in found})
    lines = [_line(source, [c for c in found if c.source == source]) for source in sources]
    return [*lines, _line("", found)] if found else []


def _line(source: str, found: Sequence[Chosen]) -> Regrets:
    held = [c.regret for c in found if c.regret is not None]
    return Regrets(
        source,
        len({c.front for c in found}),
        len(found),
        mean(c.layout == c.best for c in found),
        median(held) if held else 0.0,
        mean(held) if held else 0.0,
        max(held, default=0.0),
        len(found) - len(held),
    )
