"""Rows of a search as they are shown: where mean values do not hold, with the means of a replay.

A search ranks its rows by mean values. Those that are shown are then forecast as `serve` forecasts
a single load, and ranked again among each other, so that the command of a row repeats its figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.asked import Level
from roofcast.simulator.serving.result import REPLAY, ServingForecast
from roofcast.simulator.serving.search import GOALS, LESS, holding, unbeaten

POINTS = 10  # of a front that are shown
ROUNDS = 4  # in which rows that miss the service level are replaced by the next ones
ENDS = ("_low", "_high")  # of an interval


class Searched(Protocol):
    """What a search found."""

    @property
    def goal(self) -> str:
        """What layouts are ranked by."""
        ...

    @property
    def level(self) -> Level | None:
        """Limits of mean times."""
        ...

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """A column per quantity."""
        ...

    def best(self, top: int = 10) -> list[int]:
        """Rows of the best layouts."""
        ...

    def front(self) -> list[int]:
        """Rows that no other beats."""
        ...


class Shown(NamedTuple):
    """Rows that are shown, as they are told."""

    best: list[int]
    front: list[int]  # some of the front
    whole: list[int]  # all of it, by mean values
    replayed: list[int]  # whose means are those of a replay


Of = TypeVar("Of", bound=Searched)


def settled(
    found: Of, forecast: Callable[[Of, int], ServingForecast], top: int, points: int = POINTS
) -> tuple[Of, Shown]:
    """What a search found, the rows that are shown settled; and which these are.

    forecast: of a row, as it is told alone. top: layouts; points: of the front.
    """
    rows = {name: values.copy() for name, values in found.rows.items()}
    now: Of = found._replace(rows=rows)  # type: ignore[attr-defined]
    whole, done, replayed = found.front(), set[int](), list[int]()
    some = spread(whole, points)
    for _ in range(ROUNDS):
        best = now.best(top)
        for i in dict.fromkeys([*best, *some]):
            if i in done:
                continue
            done.add(i)
            one = forecast(now, i)
            if one.means == REPLAY:
                replayed.append(i)
                _write(rows, i, one)
        holds = holding(rows, now.level)
        if holds[best].all():
            break
    best = [i for i in best if holds[i]]
    return now, Shown(_ranked(now, best), _unbeaten(now, some), whole, replayed)


def spread(front: list[int], count: int) -> list[int]:
    """So many rows of a front, both ends among them."""
    if len(front) <= count:
        return front
    return [front[round(k * (len(front) - 1) / (count - 1))] for k in range(count)]


def _ranked(found: Searched, some: list[int]) -> list[int]:
    """Rows by the objective, the best first."""
    column = found.rows[GOALS[found.goal]][some]
    value = column if found.goal in LESS else -column
    return [some[k] for k in np.argsort(value, kind="stable").tolist()]


def _unbeaten(found: Searched, some: list[int]) -> list[int]:
    """Those of some rows that hold the level and that no other of them beats."""
    rows = {name: values[some] for name, values in found.rows.items()}
    return [some[k] for k in unbeaten(rows, holding(rows, found.level))]


def _write(rows: dict[str, np.ndarray], i: int, one: ServingForecast) -> None:
    """The columns of a row, those of its forecast; ends of intervals move with their middle."""
    times = {"ttft_s": one.ttft_s, "tpot_s": one.tpot_s, "e2e_s": one.e2e_s}
    known = {name: time.mean for name, time in times.items()}
    known["peak_bytes"] = one.memory.peak_bytes
    for name in rows:
        if name.endswith(ENDS):
            continue
        value = known.get(name, getattr(one, name, None))
        if value is None or name == "amount":
            continue
        before = rows[name][i]
        for end in ENDS:
            if f"{name}{end}" in rows and before:
                rows[f"{name}{end}"][i] *= value / before
        rows[name][i] = value
