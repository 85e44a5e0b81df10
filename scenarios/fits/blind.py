"""Forecast the shipped measured runs that no constant is fitted to: `python -m
roofcast.scenarios.fits.blind [FILE.csv ..] [--rows]`.

Tables whose first line starts with `# Blind:` are never read by a fit
(scenarios.measured.read_to_fit). For each source and device this prints how many rows can be
forecast, the median and mean of |predicted / measured - 1|, the bias (median of ln(predicted /
measured), as a percentage), and how many measured times lie inside the 50, 80 and 95 % intervals
that are made without the run's own source. Where tables have it, the same of the memory allocated
at the fullest moment, forecast without what the framework adds.
"""

from __future__ import annotations

import argparse
import sys
from statistics import mean, median
from typing import NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.intervals import traits_of
from roofcast.scenarios.measured.nets import blind, read
from roofcast.simulator.forecast import interval
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.interval import LEVELS


class Scored(NamedTuple):
    """One run beside its forecast."""

    id: str
    source: str
    device: str
    stack: str
    klass: str  # of its interval
    measured_s: float
    predicted_s: float
    inside: tuple[bool, ...]  # of the intervals of LEVELS
    measured_bytes: float | None = None  # allocated at the fullest moment
    # held at the fullest moment, without context, workspaces and slack
    predicted_bytes: float | None = None

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0


def score(paths) -> tuple[list[Scored], list[str]]:
    """Every run of the tables that can be forecast, and why the others cannot. Intervals are made
    without the run's own source.
    """
    done, refused, known = [], [], interval.residuals()
    for run in (run for path in paths for run in read(path)):
        if run.scenario is None:
            refused.append(f"{run.id}: {run.refused}")
            continue
        try:
            f = forecast(run.scenario)
        except RoofcastError as error:
            refused.append(f"{run.id}: {error}")
            continue
        rest = known.only(known.source != run.source)
        traits = traits_of(run.scenario, f)
        klass = interval.class_of(traits, rest)
        found = interval.spread(traits, rest, interval.stretches()[klass], klass).factors
        inside = tuple(
            low <= run.measured_s / f.step_time_s <= high
            for low, high in (found[level] for level in LEVELS)
        )
        name = hwdb.device(run.scenario.device).id
        tensors = f.memory.peak_bytes - f.memory.framework_bytes
        done.append(
            Scored(
                run.id,
                run.source,
                name,
                f.stack,
                klass,
                run.measured_s,
                f.step_time_s,
                inside,
                run.peak_bytes,
                tensors,
            )
        )
    return done, refused


def line(name: str, rows: list[Scored]) -> str:
    """One line of the table, in Markdown."""
    shares = " / ".join(f"{100 * mean(r.inside[i] for r in rows):.0f}" for i in range(len(LEVELS)))
    return f"{sums(name, [r.predicted_s / r.measured_s for r in rows])} {shares} |"


def memory_line(name: str, rows: list[Scored]) -> str:
    """One line of the table of memory, in Markdown; every row has a measured peak."""
    return sums(name, [r.predicted_bytes / r.measured_bytes for r in rows])


def sums(name: str, ratios: list[float]) -> str:
    """How many ratios predicted / measured there are, the median and mean of their distance from 1,
    and their bias [%].
    """
    size = [100 * abs(x - 1.0) for x in ratios]
    bias = 100 * np.expm1(median(np.log(x) for x in ratios))
    return f"| {name} | {len(ratios)} | {median(size):.1f} / {mean(size):.1f} | {bias:+.1f} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="tables; default: all that are kept for blind tests",
    )
    parser.add_argument("--rows", action="store_true", help="every row as well")
    asked = parser.parse_args()
    try:
        done, refused = score(asked.files or blind())
    except RoofcastError as error:
        print(f"roofcast: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if asked.rows:
        for r in done:
            print(
                f"{r.id:20s} {r.device:16s} {r.stack:24s} {r.klass:32s} {r.measured_s:10.4g}"
                f" {r.predicted_s:10.4g} {100 * r.error:+7.1f}"
            )
    print(
        f"| source, device | rows | median / mean | bias | inside {' / '.join(map(str, LEVELS))} %"
        " |\n|---|---:|---|---:|---|"
    )
    for key in dict.fromkeys((r.source, r.device) for r in done):
        print(line(", ".join(key), [r for r in done if (r.source, r.device) == key]))
    for klass in dict.fromkeys(r.klass for r in done):
        print(line(f"*{klass}*", [r for r in done if r.klass == klass]))
    if done:
        print(line("all", done))
    weighed = [r for r in done if r.measured_bytes]
    if weighed:
        print(
            "\n| peak memory: source, device | rows | median / mean | bias |\n|---|---:|---|---:|"
        )
        for key in dict.fromkeys((r.source, r.device) for r in weighed):
            print(memory_line(", ".join(key), [r for r in weighed if (r.source, r.device) == key]))
        print(memory_line("all", weighed))
    for why in refused:
        print(why)


if __name__ == "__main__":
    main()
