"""Every shipped measured run beside its forecast, with its traits and whether a fit read it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple, TypeVar

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.intervals import without_source
from roofcast.scenarios.fits.nets import STAGES, selects
from roofcast.scenarios.measured import training
from roofcast.scenarios.measured.nets import Run, of_training, read, tables
from roofcast.scenarios.measured.peaks import counted
from roofcast.scenarios.measured.scores import Scored, score_all
from roofcast.simulator.forecast import interval
from roofcast.simulator.forecast.chain import without_interval

STATUSES = ("fitted", "left out", "never seen")
T = TypeVar("T")
LEVEL = 80  # percent, of the interval that the tables report on


class Row(NamedTuple):
    """A measured run and its forecast."""

    run: Run
    status: str  # one of STATUSES
    traits: interval.Traits
    device: str
    devices: int
    model: str
    predicted_s: float
    bound_s: float  # roofline lower bound at datasheet peaks
    error: float  # predicted / measured - 1
    klass: str  # of its interval
    inside: bool  # measured time lies inside the interval made without the run's own source
    predicted_bytes: float  # peak of allocated memory


class Figures(NamedTuple):
    """Errors of a group of rows, as fractions."""

    name: str
    status: str
    rows: int
    median: float  # of |predicted / measured - 1|
    mean: float
    bias: float  # median of predicted / measured - 1
    inside: float | None  # share of the rows inside the 80 % interval
    worst: str  # the row furthest off


def status_of(run: Run, path: Path) -> str:
    """Whether fits read a run: `fitted`, `left out`, or `never seen` (a table that fits refuse).

    Fits of single devices select rows by device, framework and batch (scenarios/fits/nets.py);
    the fit of whole training steps reads every table of runs on many devices that is not blind.
    """
    if training.is_blind(path):
        return "never seen"
    if path.parent == training.HERE:
        return "fitted"
    return "fitted" if any(selects(stage, run) for stage in STAGES.values()) else "left out"


@functools.cache
def rows() -> tuple[Row, ...]:
    """Every shipped run that can be forecast: about twenty seconds."""
    return tuple(
        row for path in tables() for run in runs(path) if (row := _row(run, status_of(run, path)))
    )


@functools.cache
def runs(path: Path) -> tuple[Run, ...]:
    """The runs of a shipped table."""
    if path.parent == training.HERE:
        return tuple(of_training(run) for run in training_runs(path))
    return tuple(read(path))


@functools.cache
def training_runs(path: Path) -> tuple[training.LlmRun, ...]:
    """The runs of a shipped table of training runs."""
    return tuple(training.read(path))


@functools.cache
def scored(path: Path) -> tuple[Scored, ...]:
    """The runs of a shipped table of training runs and their forecasts."""
    return tuple(score_all(training_runs(path)))


def _row(run: Run, status: str) -> Row | None:
    if run.scenario is None or run.measured_s is None:
        return None
    try:
        f, traits, _ = without_interval(run.scenario)
    except RoofcastError:
        return None
    found = without_source(traits, run.source)
    low, high = found.factors()[LEVEL]
    return Row(
        run,
        status,
        traits,
        hwdb.device(run.scenario.device).id,
        f.devices,
        f.model,
        f.step_time_s,
        f.lower_bound_s,
        f.step_time_s / run.measured_s - 1.0,
        found.klass,
        low <= run.measured_s / f.step_time_s <= high,
        counted(f, "allocated", run.outputs_held),
    )


def grouped(of: Iterable[Row], key: Callable[[Row], str]) -> list[Figures]:
    """Figures of each group and status, in order of the group's name."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in of:
        groups.setdefault((key(row), STATUSES.index(row.status)), []).append(row)
    return [
        figures(
            name,
            STATUSES[status],
            [(r.error, f"{r.model}, {r.device}") for r in members],
            fmean(r.inside for r in members),
        )
        for (name, status), members in sorted(groups.items())
    ]


def figures(
    name: str, status: str, errors: list[tuple[float, str]], inside: float | None = None
) -> Figures:
    """Figures of signed errors; each comes with the name of its row."""
    signed = [error for error, _ in errors]
    size = [abs(error) for error in signed]
    worst, label = max(errors, key=lambda pair: abs(pair[0]))
    return Figures(
        name,
        status,
        len(errors),
        median(size),
        fmean(size),
        median(signed),
        inside,
        f"{label} {100 * worst:+.0f} %",
    )


def roofline(of: list[Row]) -> tuple[float, float]:
    """Median and mean error of the roofline lower bound on these rows."""
    errors = [abs(row.bound_s / (row.run.measured_s or 1.0) - 1.0) for row in of]
    return median(errors), fmean(errors)


def memory() -> list[Figures]:
    """Errors of peak memory by source; what each source measures follows its name."""
    found = []
    paths = sorted(path for path in training.HERE.glob("*.csv") if not training.is_blind(path))
    measured = [s for path in paths for s in scored(path) if s.run.memory_gib and not s.run.oom]
    for source, members in _by(measured, lambda s: f"{s.run.source} ({s.run.memory_kind})"):
        errors = [
            (s.memory_gib / s.run.memory_gib - 1.0, s.run.id)
            for s in members
            if s.memory_gib and s.run.memory_gib
        ]
        # context, communicators and buckets of DeepSpeed were set on the rows of nvidia-smi
        status = "fitted" if "nvidia-smi" in source else "left out"
        found.append(figures(source, status, errors))
    single = [row for row in rows() if row.run.peak_bytes]
    for source, nets in _by(single, lambda row: f"{row.run.source} (allocated)"):
        errors = [
            (row.predicted_bytes / row.run.peak_bytes - 1.0, row.run.id)
            for row in nets
            if row.run.peak_bytes
        ]
        found.append(figures(source, nets[0].status, errors))
    return found


class Verdicts(NamedTuple):
    """Runs of one source that ran, and what is forecast of their memory."""

    source: str
    status: str  # one of STATUSES
    ran: int
    refused: int  # of these forecast not to fit
    median: float | None  # of peak / capacity - 1 of the refused
    within: int  # of the refused: capacity within the 80 % band of the forecast peak


@functools.cache
def verdicts() -> tuple[Verdicts, ...]:
    """Published training runs on devices of known capacity: how many are forecast not to fit."""
    found = []
    for path in sorted(training.HERE.glob("*.csv")):
        ran = [s for s in scored(path) if s.run.measured_s and not s.run.oom]
        told = [(s.run.source, s.memory) for s in ran if s.memory and s.memory.fits is not None]
        for source, members in _by(told, lambda pair: pair[0]):
            over = [m for _, m in members if m.fits is False]
            found.append(
                Verdicts(
                    source,
                    "never seen" if training.is_blind(path) else "fitted",
                    len(members),
                    len(over),
                    median(m.peak_bytes / (m.capacity_bytes or 1.0) - 1.0 for m in over)
                    if over
                    else None,
                    sum((m.low_bytes or m.peak_bytes) <= (m.capacity_bytes or 0.0) for m in over),
                )
            )
    return tuple(found)


def _by(of: Iterable[T], key: Callable[[T], str]) -> list[tuple[str, list[T]]]:
    groups: dict[str, list[T]] = {}
    for each in of:
        groups.setdefault(key(each), []).append(each)
    return list(groups.items())


def furthest(of: Iterable[Row], count: int = 12) -> list[Row]:
    """The rows with the largest error, one per model and kind of device."""
    chosen: dict[tuple[str, str], Row] = {}
    for row in sorted(of, key=lambda r: -abs(r.error)):
        chosen.setdefault((row.model, row.traits.family), row)
    return list(chosen.values())[:count]
