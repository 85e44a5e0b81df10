"""Write the errors of the shipped measured runs and calibrate the intervals made of them.

    python -m roofcast.scenarios.fits.intervals [--runs FILE.csv..] [--write]

Rows: every table of measured runs in scenarios/measured/runs and scenarios/measured/published,
those for blind tests too; or those of FILEs. --write puts

    hwdb/residuals.csv     ln(measured / predicted) of every row, and what makes runs similar
    hwdb/intervals.toml    how far the quantiles of the errors are stretched, by class of forecast

Each run is left out with its source, with its device, with its model, and, where no constant was
fitted to any device of its maker, with its maker. An interval is made from the other runs, and how
far it has to be stretched for the run to lie inside is noted. A class is stretched so that 80 % of
its left-out runs lie inside; a run of a large group (source, device, stack) counts less. Prints the
percentage of runs inside the 50, 80 and 95 % intervals, by class and by what was left out.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.nets import Run, blind, read, shipped
from roofcast.scenarios.measured.training import is_blind
from roofcast.simulator import models
from roofcast.simulator.forecast import interval
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.step import trace

TARGET = 0.8  # part of the left-out runs that the 80 % interval shall hold
LEAST = 8  # left-out runs that calibrate a class
CROWD = 0.25  # a run of a group of n counts n^-CROWD
# stretch of classes with fewer left-out runs, of the widest class; other classes take the first's
UNSEEN = {"imagined device": 1.0, "mixture of experts": 1.25, "several devices": 1.0}
CLASSES = (
    "known device and stack",
    "known device and stack, another kind of step",
    "bound by the host",
    "known family and stack",
    "known device, unknown stack",
    "inherited device, known stack",
    "inherited device, unknown stack",
    "mixture of experts",
    "unfitted maker, known device",
    "unfitted maker, inherited device",
    "unknown maker",
    "several devices",
    "imagined device",
)
WAYS = ("source", "device", "model", "maker")


class Held(NamedTuple):
    """A run that was left out."""

    way: str  # what it was left out with: one of WAYS
    group: str  # its source, device and stack
    klass: str
    needed: float  # stretch at which it lies on the edge of its 80 % interval
    inside: dict[int, float]  # the same of each level [%]


def traits_of(scenario: Scenario, forecast: Forecast) -> interval.Traits:
    """What a run is compared by."""
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    step = trace(model, recipe_of(scenario, model, device)[0])
    host_share = (forecast.host_s + forecast.between_steps_s) / forecast.step_time_s
    return interval.traits(device, step, host_share, forecast.devices)


def rows(paths: Iterable[str | Path]) -> Iterator[dict[str, str]]:
    """The row of hwdb/residuals.csv of every run that can be forecast; the others go to stderr."""
    for path in paths:
        for run in read(path):
            try:
                row = row_of(run, is_blind(path))
            except RoofcastError as error:
                print(f"{run.id}: left out: {error}", file=sys.stderr)
                continue
            if row:
                yield row


def row_of(run: Run, unseen: bool) -> dict[str, str] | None:
    """The row of one run, None without a scenario; unseen: no constant is fitted to its table."""
    if run.scenario is None or run.measured_s is None:
        return None
    found = forecast(run.scenario)
    mode = "training" if found.mode == "train" else "inference"
    tokens = f" × {found.sequence} tokens" if found.sequence else ""
    return {
        "name": f"{called(found)}, batch {found.batch}{tokens}, {mode} in {found.precision}",
        "source": run.source,
        "blind": "yes" if unseen else "no",
        **traits_of(run.scenario, found)._asdict(),
        "devices": str(found.devices),
        "measured_s": f"{run.measured_s:.5g}",
        "error": f"{np.log(run.measured_s / found.step_time_s):.4f}",
    }


def called(found: Forecast) -> str:
    """The name of a model; with its size where benchmarks cut the model that it is named after.

    >>> from roofcast import predict
    >>> called(predict("llama-3-8b", device="h100-sxm5"))
    'llama-3-8b'
    """
    named = re.search(r"(\d+(?:\.\d+)?)b\b", found.model.lower())
    if named is None or found.parameters > 0.7e9 * float(named[1]):
        return found.model
    return f"{found.model} reduced to {found.parameters / 1e9:.3g} billion parameters"


def residuals_of(table: list[dict[str, str]]) -> interval.Residuals:
    """The rows in columns, as `interval.residuals` reads them from the file."""

    def texts(key: str) -> np.ndarray:
        return np.array([row[key] for row in table], dtype=object)

    def numbers(key: str) -> np.ndarray:
        return np.array([float(row[key]) for row in table])

    fields = {key: texts(key) for key in interval.FIELDS}
    unseen = texts("blind") == "yes"
    return interval.columns(
        texts("name"),
        texts("source"),
        fields,
        unseen,
        numbers("measured_s"),
        numbers("error"),
        numbers("devices"),
    )


def write_residuals(table: list[dict[str, str]]) -> None:
    """Write hwdb/residuals.csv."""
    with (interval.HERE / "residuals.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(
            "# Written by `python -m roofcast.scenarios.fits.intervals --write` from the tables of"
            " scenarios/measured/runs and published, whose heads name the sources.\n"
        )
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def left_out(r: interval.Residuals) -> list[Held]:
    """Every run, left out with its source, device, model, and maker where nothing was fitted to it.

    A way that leaves no other run, or a maker with a fitted device, is passed over.
    """
    keys = {
        "source": r.source,
        "device": r.traits["device"],
        "model": np.array([name.split(",")[0] for name in r.name]),
        "maker": r.traits["maker"],
    }
    found = []
    for way in WAYS:
        for value in np.unique(keys[way]):
            gone = keys[way] == value
            if gone.all() or (way == "maker" and not r.blind[gone].all()):
                continue
            rest = r.only(~gone)
            found += [_held(r, int(i), rest, way) for i in np.flatnonzero(gone)]
    return found


def _held(r: interval.Residuals, i: int, rest: interval.Residuals, way: str) -> Held:
    """Run `i` beside the interval that the rest gives it."""
    traits = interval.Traits(*(r.traits[field][i] for field in interval.FIELDS))
    w = interval.weights(traits, rest)
    error, inside = r.error[i], {}
    for level in interval.LEVELS:
        levels = (0.5 - level / 200, 0.5, 0.5 + level / 200)
        low, middle, high = interval.quantiles(rest.error, w, levels)
        side = high - middle if error > middle else middle - low
        # the forecast itself is always inside, and what lies between it and the median
        spared = 0.0 <= error <= max(middle, 0.0) or min(middle, 0.0) <= error <= 0.0
        inside[level] = 0.0 if spared else abs(error - middle) / max(side, 1e-6)
    group = f"{r.source[i]}|{r.traits['device'][i]}|{r.traits['stack'][i]}"
    return Held(way, group, interval.class_of(traits, rest), inside[80], inside)


def level_of(held: list[Held], share: float) -> float:
    """Stretch at which that fraction of the runs lies inside."""
    sizes: dict[tuple[str, str], int] = {}
    for h in held:
        sizes[h.way, h.group] = sizes.get((h.way, h.group), 0) + 1
    order = sorted(held, key=lambda h: h.needed)
    w = np.array([sizes[h.way, h.group] ** -CROWD for h in order])
    return float(np.interp(share, (np.cumsum(w) - 0.5 * w) / w.sum(), [h.needed for h in order]))


def calibrated(held: list[Held]) -> dict[str, float]:
    """Stretch by class; a class of fewer than LEAST runs takes that of the first, or UNSEEN times
    the widest.
    """
    result: dict[str, float] = {}
    for klass in CLASSES:
        mine = [h for h in held if h.klass == klass]
        if len(mine) >= LEAST:
            result[klass] = level_of(mine, TARGET)
    widest, first = max(result.values()), result[CLASSES[0]]
    return {
        klass: result.get(klass, widest * UNSEEN[klass] if klass in UNSEEN else first)
        for klass in CLASSES
    }


def write_stretches(stretch: dict[str, float], held: list[Held]) -> None:
    """Write hwdb/intervals.toml; the comments at its head stay."""
    path = interval.HERE / "intervals.toml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for klass, value in stretch.items():
        runs = sum(h.klass == klass for h in held)
        source = f"{runs} left-out runs"
        if klass in UNSEEN and runs < LEAST:
            source = f"assumed: {UNSEEN[klass]:g} of the widest class"
        lines += ["", f'["{klass}"]', f"stretch = {value:.3f}", f'source = "{source}"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def report(held: list[Held], stretch: dict[str, float]) -> None:
    """Print the percentage of left-out runs inside their intervals, and the stretches."""
    print(f"{'left out by':12s} {'class':34s} {'runs':>5s}  inside 50 / 80 / 95 %")
    for way in WAYS:
        for klass in (*CLASSES, None):
            mine = [h for h in held if h.way == way and klass in (None, h.klass)]
            if not mine:
                continue
            inside = [
                100 * np.mean([h.inside[level] <= stretch[h.klass] for h in mine])
                for level in interval.LEVELS
            ]
            shares = " / ".join(f"{s:.0f}" for s in inside)
            print(f"{way:12s} {klass or 'all':34s} {len(mine):5d}  {shares}")
    for name, value in stretch.items():
        print(f"{name:34s} stretch {value:.2f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", nargs="+", metavar="FILE", help="tables of measured runs; default: every one"
    )
    parser.add_argument(
        "--write", action="store_true", help="write hwdb/residuals.csv and hwdb/intervals.toml"
    )
    options = parser.parse_args()
    table = list(rows(options.runs or (*shipped(), *blind())))
    if not table:
        sys.exit("fits.intervals: no run could be forecast, so there is nothing to write")
    held = left_out(residuals_of(table))
    stretch = calibrated(held)
    report(held, stretch)
    if options.write:
        write_residuals(table)
        write_stretches(stretch, held)


if __name__ == "__main__":
    main()
