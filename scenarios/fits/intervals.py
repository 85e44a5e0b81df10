"""Write the errors of the shipped measured runs (hwdb/residuals.csv) and calibrate the intervals
made of them (hwdb/intervals.toml).

    python -m roofcast.scenarios.fits.intervals [--runs FILE.csv ..] [--write]

Runs that no constant was fitted to tell of others like them. Each run is left out with its source,
then with its device, its model, and, where no constant was fitted to any of its maker's devices,
its maker; from what is left its interval is made, and how far that had to be stretched for the run
to lie inside. A class is stretched so that 80 % of its left-out runs lie inside, a run of a large
group (source, device, stack) counting less. Prints the shares inside the 50, 80 and 95 % intervals,
by class and by way of leaving out.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.nets import blind, read, shipped
from roofcast.scenarios.measured.training import is_blind
from roofcast.simulator import models
from roofcast.simulator.forecast import interval
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.step import trace

# of the widest, where no left-out run shows them
UNSEEN = {"imagined device": 1.0, "mixture of experts": 1.25, "several devices": 1.0}
SHARE = 0.8
LEAST = 8  # runs of a class that calibrate it
CROWD = 0.25  # a run of a group of n counts n^-CROWD
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


class Held(NamedTuple):
    """A run that was left out."""

    way: str  # source | device | model | maker
    group: str
    klass: str
    needed: float  # stretch at which it lies on the edge of its 80 % interval
    inside: dict[int, float]  # stretch at which it lies on the edge, by level


def traits_of(scenario: Scenario, forecast: Forecast) -> interval.Traits:
    """What the run is compared by."""
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    step = trace(model, recipe_of(scenario, model, device)[0])
    return interval.traits(
        device,
        step,
        (forecast.host_s + forecast.between_steps_s) / forecast.step_time_s,
        forecast.devices,
    )


def rows(paths) -> Iterator[dict[str, str]]:
    """The residual of every run that can be forecast."""
    for unseen, run in ((is_blind(path), run) for path in paths for run in read(path)):
        if run.scenario is None:
            continue
        try:
            found = forecast(run.scenario)
        except RoofcastError as error:
            print(f"{run.id}: left out: {error}", file=sys.stderr)
            continue
        what = (
            f"{found.model}, batch {found.batch},"
            f" {'training' if found.mode == 'train' else 'inference'} in {found.precision}"
        )
        yield {
            "name": what,
            "source": run.source,
            "blind": "yes" if unseen else "no",
            **traits_of(run.scenario, found)._asdict(),
            "measured_s": f"{run.measured_s:.5g}",
            "error": f"{np.log(run.measured_s / found.step_time_s):.4f}",
        }


def write_residuals(table: list[dict[str, str]]) -> None:
    """hwdb/residuals.csv."""
    with (interval.HERE / "residuals.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(
            "# Written by `python -m roofcast.scenarios.fits.intervals --write` from"
            " scenarios/measured/runs/*.csv, whose heads name the sources.\n"
        )
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def left_out(r: interval.Residuals) -> list[Held]:
    """Every run, left out in three ways."""
    groups = np.array(
        [
            f"{s}|{d}|{k}"
            for s, d, k in zip(r.source, r.traits["device"], r.traits["stack"], strict=True)
        ]
    )
    model = np.array([name.split(",")[0] for name in r.name])
    found = []
    for way, key in (
        ("source", r.source),
        ("device", r.traits["device"]),
        ("model", model),
        ("maker", r.traits["maker"]),
    ):
        for value in np.unique(key):
            rest = r.only(key != value)
            gone = key == value
            if not len(rest.error) or (way == "maker" and not r.blind[gone].all()):
                continue  # makers whose devices constants were fitted to are never unknown
            for i in np.flatnonzero(gone):
                t = interval.Traits(*(r.traits[f][i] for f in interval.FIELDS))
                w = interval.weights(t, rest)
                inside = {}
                for level in interval.LEVELS:
                    low, middle, high = interval.quantiles(
                        rest.error, w, (0.5 - level / 200, 0.5, 0.5 + level / 200)
                    )
                    side = high - middle if r.error[i] > middle else middle - low
                    # the forecast itself is always inside
                    spared = (
                        0.0 <= r.error[i] <= max(middle, 0.0)
                        or min(middle, 0.0) <= r.error[i] <= 0.0
                    )
                    inside[level] = 0.0 if spared else abs(r.error[i] - middle) / max(side, 1e-6)
                found.append(Held(way, groups[i], interval.class_of(t, rest), inside[80], inside))
    return found


def level_of(held: list[Held], share: float) -> float:
    """Stretch at which that share of the runs lies inside."""
    sizes: dict[tuple, int] = {}
    for h in held:
        sizes[h.way, h.group] = sizes.get((h.way, h.group), 0) + 1
    order = sorted(held, key=lambda h: h.needed)
    w = np.array([sizes[h.way, h.group] ** -CROWD for h in order])
    return float(np.interp(share, (np.cumsum(w) - 0.5 * w) / w.sum(), [h.needed for h in order]))


def calibrated(held: list[Held]) -> dict[str, float]:
    """Stretch by class. A class of few runs takes that of the first, one of UNSEEN some times the
    widest.
    """
    result: dict[str, float] = {}
    for klass in CLASSES:
        mine = [h for h in held if h.klass == klass]
        if len(mine) >= LEAST:
            result[klass] = level_of(mine, SHARE)
    widest, first = max(result.values()), result[CLASSES[0]]
    return {
        klass: result.get(klass, widest * UNSEEN[klass] if klass in UNSEEN else first)
        for klass in CLASSES
    }


def write_stretches(stretch: dict[str, float], held: list[Held]) -> None:
    """hwdb/intervals.toml."""
    path = interval.HERE / "intervals.toml"
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for klass, value in stretch.items():
        mine = [h for h in held if h.klass == klass]
        assumed = klass in UNSEEN and len(mine) < LEAST
        source = (
            f"assumed: {UNSEEN[klass]:g} of the widest class"
            if assumed
            else f"{len(mine)} left-out runs"
        )
        head += ["", f'["{klass}"]', f"stretch = {value:.3f}", f'source = "{source}"']
    path.write_text("\n".join(head) + "\n", encoding="utf-8")


def report(held: list[Held], stretch: dict[str, float]) -> None:
    """Shares of left-out runs inside their intervals."""
    print(f"{'left out by':12s} {'class':34s} {'runs':>5s}  inside 50 / 80 / 95 %")
    for way in ("source", "device", "model", "maker"):
        for klass in (*CLASSES, None):
            mine = [h for h in held if h.way == way and klass in (None, h.klass)]
            if mine:
                shares = [
                    100 * np.mean([h.inside[level] <= stretch[h.klass] for h in mine])
                    for level in interval.LEVELS
                ]
                print(
                    f"{way:12s} {klass or 'all':34s} {len(mine):5d}  "
                    + " / ".join(f"{s:.0f}" for s in shares)
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", nargs="+", metavar="FILE", help="measured runs; default: those that are shipped"
    )
    parser.add_argument(
        "--write", action="store_true", help="write hwdb/residuals.csv and hwdb/intervals.toml"
    )
    options = parser.parse_args()
    table = list(rows(options.runs or (*shipped(), *blind())))
    if not table:
        sys.exit("fit_intervals: no run could be forecast, so there is nothing to write")
    if options.write:
        write_residuals(table)
    text = {
        key: np.array([row[key] for row in table], dtype=object)
        for key in ("name", "source", "blind", *interval.FIELDS)
    }
    number = {key: np.array([float(row[key]) for row in table]) for key in ("measured_s", "error")}
    fields = {key: text[key] for key in interval.FIELDS}
    left = left_out(
        interval.columns(
            text["name"],
            text["source"],
            fields,
            text["blind"] == "yes",
            number["measured_s"],
            number["error"],
        )
    )
    factors = calibrated(left)
    report(left, factors)
    for name, value in factors.items():
        print(f"{name:34s} stretch {value:.2f}")
    if options.write:
        write_stretches(factors, left)
