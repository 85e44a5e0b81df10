"""Whole trainings of a table beside their forecasts."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.scenarios.campaigns import spread, words
from roofcast.scenarios.campaigns.plans import plan
from roofcast.scenarios.measured.cells import Row, positive, rows, text
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

SHIPPED = Path(__file__).parent / "published.csv"
REQUIRED = ("model", "device")
WHAT = "whole trainings, with columns model, device, tokens or samples, device_hours"
MWH = 3.6e9  # joules


class Range(NamedTuple):
    """A forecast with its 80 % interval."""

    value: float
    low: float
    high: float

    def plus(self, other: Range) -> Range:
        """The sum of two that are off together."""
        return Range(*(a + b for a, b in zip(self, other, strict=True)))


class Trained(NamedTuple):
    """A row and its forecast."""

    row: Row
    kind: str  # of words.KINDS
    group: str  # language model | net; "" where refused early
    hours: Range | None  # device-hours
    energy: Range | None  # MWh, of the scope that the row is of
    goodput: Range | None
    assumed: tuple[str, ...]
    refused: str

    @property
    def source(self) -> str:
        """The source that a row is from."""
        return text(self.row, "source_name")

    @property
    def stated(self) -> float | None:
        """Device-hours of the row; its wall time times its devices where it tells none, or those of
        one node of several.
        """
        told = positive(text(self.row, "device_hours"))
        wall, devices = positive(text(self.row, "wall_hours")), words.devices_of(self.row)
        if wall and devices and (told is None or words.of_one_node(self.row)):
            return wall * devices
        return told

    @property
    def ratio(self) -> float | None:
        """Stated / forecast; None where either is missing."""
        return self.stated / self.hours.value if self.stated and self.hours else None


def read(path: str | Path) -> list[Row]:
    """The rows of a CSV or .csv.gz of whole trainings. Raises BadInput."""
    path = Path(path)
    try:
        reader = rows(path, WHAT)
        columns = reader.fieldnames or ()
        missing = [c for c in REQUIRED if c not in columns]
        if missing:
            raise BadInput(f"{path}: no column {missing[0]!r}; wanted {WHAT}")
        return list(reader)
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of whole trainings ({error})") from None


def score(row: Row) -> Trained:
    """A row and its forecast; where none can be made, why."""
    kind = words.kind_of(row)
    try:
        found = plan(row)
        at = words.scope_of(row)
        parts = [_whole(each.to_json() if isinstance(each.model, str) else each, kind, at)
                 for each in found.phases]  # fmt: skip
    except RoofcastError as error:
        return Trained(row, kind, "", None, None, None, (), str(error))
    hours, energy, goodput = parts[0]
    for more_hours, more_energy, _ in parts[1:]:
        hours = hours.plus(more_hours)
        energy = energy.plus(more_energy) if energy and more_energy else None
    hours, energy = _spread(hours, found.group), _spread(energy, found.group) if energy else None
    return Trained(row, kind, found.group, hours, energy, goodput, found.assumed, "")


def _spread(value: Range, group: str) -> Range:
    """A forecast of a row, as wide as rows of other sources have been off: what a table does not
    tell (software, layout, data, pauses) is among the causes.
    """
    low, high = spread.ends(group)
    return Range(
        value.value, min(value.low, low * value.value), max(value.high, high * value.value)
    )


def _whole(
    s: bytes | Scenario, kind: str, at: tuple[str, float]
) -> tuple[Range, Range | None, Range]:
    return _cached(s, kind, at) if isinstance(s, bytes) else _figures(forecast(s), kind, at)


@functools.lru_cache(maxsize=4096)
def _cached(s: bytes, kind: str, at: tuple[str, float]) -> tuple[Range, Range | None, Range]:
    return _figures(forecast(Scenario.from_json(s)), kind, at)


def _figures(f: Forecast, kind: str, at: tuple[str, float]) -> tuple[Range, Range | None, Range]:
    """Device-hours, megawatt-hours and goodput; of a rate times a length without overhead.

    at: the scope of the energy, and the PUE that is in it.
    """
    scope, pue = at
    c = f.campaign
    assert c is not None and f.steps is not None, "a plan has a length"
    if kind == "rate":
        low, high = (f.low_s or f.step_time_s), (f.high_s or f.step_time_s)
        each = f.steps * f.devices / 3600.0
        hours = Range(each * f.step_time_s, each * low, each * high)
        goodput = Range(1.0, 1.0, 1.0)
        joules = f.step_energy_j * f.steps if f.step_energy_j is not None else None
        widest = "board"
    else:
        hours = Range(c.device_hours, c.device_hours_low, c.device_hours_high)
        goodput = Range(c.goodput, c.goodput_low, c.goodput_high)
        joules, widest = c.energy_j, c.energy_scope
    if joules is None:
        return hours, None, goodput
    known = f.step_energy_by_scope_j
    if scope in known and widest in known:
        joules *= known[scope] / known[widest]
    mwh = joules * pue / MWH
    energy = Range(mwh, mwh * hours.low / hours.value, mwh * hours.high / hours.value)
    return hours, energy, goodput


class Line(NamedTuple):
    """Rows of one kind and group."""

    kind: str
    group: str
    rows: int
    forecast: int
    compared: int  # forecast, and with stated hours
    ratio: float | None  # median of stated / forecast
    by_model: float | None  # the same over models, each with the median of its rows
    low: float | None  # quartiles
    high: float | None
    held: float | None  # share of sources' rows within the 80 % interval, sources with equal weight


def lines(found: Iterable[Trained]) -> list[Line]:
    """The summary by kind and group."""
    grouped: dict[tuple[str, str], list[Trained]] = {}
    for each in found:
        grouped.setdefault((each.kind, each.group), []).append(each)
    return [_line(kind, group, some) for (kind, group), some in sorted(grouped.items())]


def _line(kind: str, group: str, some: list[Trained]) -> Line:
    ratios = sorted(r for each in some if (r := each.ratio) is not None)
    answered = sum(each.hours is not None for each in some)
    if not ratios:
        return Line(kind, group, len(some), answered, 0, None, None, None, None, None)
    n = len(ratios)
    quarters = ratios[n // 4], ratios[(3 * n) // 4] if n > 1 else ratios[0]
    models: dict[tuple[str, str], list[float]] = {}
    for each in some:
        if each.ratio is not None:
            models.setdefault((each.source, text(each.row, "model")), []).append(each.ratio)
    by_model = median(median(of_one) for of_one in models.values())
    return Line(
        kind, group, len(some), answered, n, median(ratios), by_model, *quarters, held(some)
    )


def held(some: Iterable[Trained]) -> float | None:
    """Share of rows whose stated hours lie in the interval, the mean over sources."""
    by_source: dict[str, list[bool]] = {}
    for each in some:
        if each.hours and each.stated:
            inside = each.hours.low <= each.stated <= each.hours.high
            by_source.setdefault(each.source, []).append(inside)
    shares = [sum(v) / len(v) for v in by_source.values()]
    return sum(shares) / len(shares) if shares else None
