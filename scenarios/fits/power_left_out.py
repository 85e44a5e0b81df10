"""Errors of forecast watts, and of times under power limits, of workloads that fits have not seen.

    python -m roofcast.scenarios.fits.power_left_out [FILE.csv[.gz]]

Rows: FILE, default scenarios/measured/power/boards.csv, of boards (power_cap_training and
inference_serving) and of nodes (node_power_training). Each network is left out in turn: the
constants of fits.power and fits.nodes, and the serial part of a pass in watts of several boards
(power_answers.SERIAL), are fitted again to the rows of the others, and its own rows are forecast
with them as `roofcast validate --power` does. Networks that no fit reads are forecast with the
shipped constants. In serving, whole tasks are left out as well, where FILE has another one to fit
to. No prior holds constants at values that the left-out rows gave: fits start from START. Writes
nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np

from roofcast.hwdb import constants
from roofcast.hwdb.sites import nodes
from roofcast.scenarios.fits import nodes as node_fit
from roofcast.scenarios.fits import power as fit
from roofcast.scenarios.measured import power_answers, power_serving
from roofcast.scenarios.measured.cells import Row, rows, text
from roofcast.scenarios.measured.power_answers import Answered, answered, number
from roofcast.scenarios.measured.power_errors import error_of
from roofcast.scenarios.measured.watts import TABLE, is_kept, of_row
from roofcast.simulator.times import power

# round numbers that no row told: leakage and clock tree of a tenth and two tenths of the TDP, the
# voltage of a chip that scales from 1.05 to 0.75 V, DRAM at 60 to 200 pJ per byte, 20 pJ per fp32
# FLOP and 1 pJ per 16-bit FLOP
START = {
    "idle": 0.1, "active": 0.2, "lowest_voltage": 0.7, "knee": 0.7, "hbm": 60e-12,
    "cached": 200e-12,
}  # fmt: skip
VECTOR, MATRIX = 20e-12, 1e-12
PARTS = (0.0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06)  # serial parts that are tried
TASKS = ("lm-arena-chat", "gpqa")  # of text alone, to whose dense models decoding is fitted


WHAT = "a table of measured watts"
BOARDS = ("training under limits", "decoding", "images and video")
Steps = dict[str, fit.Decoded]  # by id of a row
_limits: dict[tuple[str, ...], fit.Limits] = {}  # by ids of the rows


class Learned(NamedTuple):
    """Constants that a fit without a network found."""

    power: constants.Power
    vector: dict[str, float]  # by family [J/FLOP]
    flop: float  # of the 4N chips, 16-bit [J/FLOP]


class Group(NamedTuple):
    """Rows of one network or task that were left out, with their forecasts."""

    kind: str
    device: str
    name: str
    found: list[Answered]
    refitted: bool


@contextmanager
def learned(these: Learned) -> Iterator[None]:
    """A context in which forecasts use these constants."""
    read = constants.family
    shipped = constants.kernels().power
    names = shipped.__struct_fields__
    factors = {f"power.{n}": getattr(these.power, n) / getattr(shipped, n) for n in names}

    def family(name: str) -> constants.Family:
        found = read(name)
        if name in these.vector:
            value = constants.Fraction(these.vector[name], "fit")
            found = msgspec.structs.replace(found, joule_per_vector_flop=value)
        if name in fit.FOUR_N:
            table = found.joule_per_flop | {"bf16": constants.Fraction(these.flop, "fit")}
            found = msgspec.structs.replace(found, joule_per_flop=table)
        return found

    caches = (power.board_of, power_answers.trained, power_serving.passed)
    for cached in caches:
        cached.cache_clear()
    try:
        with constants.scaled(factors), patch.object(constants, "family", family):
            yield
    finally:
        for cached in caches:
            cached.cache_clear()


def network(row: Row) -> str:
    """The network of a row, as its table names it without sizes of batches or versions."""
    name = power_answers.model_of(text(row, "model"))[0].split("/")[-1]
    return f"{name} (stands for {text(row, 'model')})" if _alike(row) else name


def _alike(row: Row) -> bool:
    return power_answers.model_of(text(row, "model"))[1]


def limits_of(training: Sequence[Row]) -> fit.Limits:
    """Constants of fits.power from these rows under limits alone."""
    key = tuple(text(r, "id") for r in training)
    if key not in _limits:
        c = constants.kernels()
        c = msgspec.structs.replace(c, power=msgspec.structs.replace(c.power, **START))
        vector = {"volta": VECTOR, "pascal": VECTOR}
        _limits[key] = fit.fit_limits([of_row(r) for r in training], c, vector, quiet=True)
    return _limits[key]


def of_training(training: Sequence[Row]) -> Learned:
    """Constants from these rows under limits; decoding has no part in them."""
    found = limits_of(training)
    return Learned(
        found.c.power, found.vector, constants.family("hopper").joule_per_flop["bf16"].value
    )


def of_decoding(training: Sequence[Row], serving: Sequence[Row], steps: Steps) -> Learned:
    """Constants from these rows of both kinds."""
    limits = limits_of(training)
    known = [steps[text(r, "id")] for r in serving]
    found = fit.fit_decoding(known, limits.c, MATRIX, quiet=True)
    return Learned(found.c.power, limits.vector, found.flop)


def boards(table: Sequence[Row]) -> list[Group]:
    """Rows of boards, each network left out of the fits that read it; and whole tasks of serving
    where there are several that the fit could read.
    """
    caps = [r for r in table if text(r, "kind") == "power_cap_training"]
    served = [r for r in table if text(r, "kind") == "inference_serving"]
    training = [r for r in caps if is_kept(r)]
    serving = [r for r in served if is_kept(r, "workload") and text(r, "workload") in TASKS]
    steps = {text(r, "id"): s for r in serving for s in fit.decoding([of_row(r)])}
    serving = [r for r in serving if text(r, "id") in steps]
    fixed = [r for r in served if number(r, "tokens_per_s") is None]
    rated = [r for r in served if number(r, "tokens_per_s") is not None]
    groups = []
    for name, own in _by(network, caps):
        rest = _others(network, name, training)
        can = len(rest) < len(training) and any(network(r) != "ncf" for r in rest)
        groups += _group(BOARDS[0], name, own, of_training(rest) if can else None)
    for name, own in _by(network, rated):
        rest = _others(network, name, serving)
        can = 0 < len(rest) < len(serving)
        groups += _group(BOARDS[1], name, own, of_decoding(training, rest, steps) if can else None)
    for name, own in _by(network, fixed):
        with serial_without(_others(network, name, fixed)):
            groups += _group(BOARDS[2], name, own, None)
    tasks = [name for name, _ in _by(task, serving)]
    for name in tasks if len(tasks) > 1 else []:
        rest = _others(task, name, serving)
        own = [r for r in serving if task(r) == name]
        groups += _group(f"{BOARDS[1]}, a task", name, own, of_decoding(training, rest, steps))
    return groups


def task(row: Row) -> str:
    """The task of a row of serving."""
    return text(row, "workload")


def _by(name_of: Callable[[Row], str], some: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    names = dict.fromkeys(map(name_of, some))
    return [(name, [r for r in some if name_of(r) == name]) for name in names]


def _others(name_of: Callable[[Row], str], name: str, some: Sequence[Row]) -> list[Row]:
    return [r for r in some if name_of(r) != name]


def _group(kind: str, name: str, own: Sequence[Row], these: Learned | None) -> list[Group]:
    """The rows with their forecasts, by device."""
    if these is None:
        found = answered(own)
    else:
        with learned(these):
            found = answered(own)
    of = [text(r, "device").split()[0] for r in own]
    return [
        Group(kind, device, name, [a for a, d in zip(found, of, strict=True) if d == device],
              these is not None)
        for device in dict.fromkeys(of)
    ]  # fmt: skip


@contextmanager
def serial_without(others: Sequence[Row]) -> Iterator[None]:
    """A context in which the serial parts of passes are those that fit these rows best."""
    best = dict(power_answers.SERIAL)
    for kind in best:
        mine = [r for r in others if ("video" in text(r, "workload")) == (kind == "video")]
        losses = []
        for part in PARTS if mine else ():
            with patch.dict(power_answers.SERIAL, {kind: part}):
                errors = [e.power for e in map(error_of, answered(mine)) if e.power]
            losses.append(float(np.abs(np.log(errors)).mean()))
        if losses:
            best[kind] = PARTS[int(np.argmin(losses))]
    with patch.dict(power_answers.SERIAL, best):
        yield


def of_nodes(path: Path) -> list[Group]:
    """Rows of nodes, the share of fans fitted without each network."""
    table = [r for r in rows(path, WHAT) if text(r, "kind") == "node_power_training"]
    if not table:
        return []
    shipped, errors = nodes().fans, node_fit.errors(path)
    groups = []
    for name, own in _by(lambda r: text(r, "model"), table):
        others = {n: e for n, e in errors.items() if n != name}
        share = node_fit.fitted(others, shipped) if others else shipped
        scale = (1.0 - shipped) / (1.0 - share)
        found = [
            a._replace(answer=a.answer._replace(power_w=a.answer.power_w * scale))
            for a in answered(own)
            if a.answer.power_w is not None
        ]
        groups.append(Group("nodes of 8 boards", "H100", name, found, True))
    return groups


class Line(NamedTuple):
    """Mean errors of some rows [%]; nan where there are none."""

    rows: int
    watts: float
    bias: float
    times: int
    time: float


def line(found: Sequence[Answered]) -> Line:
    """Errors of rows: of watts, and of times under limits but the highest of a run."""
    errors = [error_of(a) for a in found if not a.answer.refused]
    watts = np.array([1.0 / e.power - 1.0 for e in errors if e.power])
    times = np.array([1.0 / e.time - 1.0 for e in errors if e.time])
    return Line(len(watts), _mean(np.abs(watts)), _mean(watts), len(times), _mean(np.abs(times)))


def _mean(values: np.ndarray) -> float:
    return 100.0 * float(values.mean()) if len(values) else float("nan")


def show(groups: Sequence[Group]) -> None:
    """Print the table: a line for each group, and for each kind and device."""
    print("kind | device | left out | rows | watts | bias | time")
    for kind in dict.fromkeys(g.kind for g in groups):
        for device in dict.fromkeys(g.device for g in groups if g.kind == kind):
            mine = [g for g in groups if (g.kind, g.device) == (kind, device)]
            for g in mine:
                _say(kind, device, g.name + ("" if g.refitted else " (as shipped)"), g.found)
            _say(kind, device, "all", [a for g in mine for a in g.found])
    whole = [a for g in groups if g.kind in BOARDS for a in g.found]
    _say("boards", "all", "all", whole)


def _say(kind: str, device: str, name: str, found: Sequence[Answered]) -> None:
    x = line(found)
    time = f"{x.time:.1f}" if x.times else ""
    print(f"{kind} | {device} | {name} | {x.rows} | {x.watts:.1f} | {x.bias:+.1f} | {time}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=TABLE)
    path = parser.parse_args(argv).file
    show([*boards(list(rows(path, WHAT))), *of_nodes(path)])


if __name__ == "__main__":
    main()
