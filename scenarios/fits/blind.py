"""Forecast the measured runs that no constant is fitted to; writes nothing.

    python -m roofcast.scenarios.fits.blind [FILE.csv..] [--rows]

Rows: the shipped tables whose first line starts with `# Blind:`, or those of FILEs; no fit reads
such a table (measured.nets.read_to_fit). For each source and device, and for each class of
interval, this prints the rows that can be forecast, the median and mean of
|predicted / measured - 1|, the bias (median of ln(predicted / measured), as a percentage), and the
percentage of measured times inside the 50, 80 and 95 % intervals that are made without the run's
own source. Where tables have a peak of allocated memory, the same errors of it follow, forecast
without what the framework adds. --rows prints every row as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.intervals import without_source
from roofcast.scenarios.measured.nets import Run, blind, read
from roofcast.scenarios.measured.peaks import counted
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.interval import LEVELS
from roofcast.simulator.forecast.scenario import Scenario


class Scored(NamedTuple):
    """One run and its forecast."""

    id: str
    source: str
    device: str
    stack: str
    klass: str  # of its interval
    measured_s: float
    predicted_s: float
    inside: tuple[bool, ...]  # whether the measured time lies in the intervals of LEVELS
    measured_bytes: float | None = None  # peak of allocated memory
    predicted_bytes: float = 0.0  # peak of allocated memory

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0


def score(paths: Iterable[str | Path]) -> tuple[list[Scored], list[str]]:
    """Every run of the tables that can be forecast, and for each of the others the reason."""
    done, refused = [], []
    for run in (run for path in paths for run in read(path)):
        if run.scenario is None or run.measured_s is None:
            refused.append(f"{run.id}: {run.refused}")
            continue
        try:
            done.append(_scored(run, run.scenario, run.measured_s))
        except RoofcastError as error:
            refused.append(f"{run.id}: {error}")
    return done, refused


def _scored(run: Run, scenario: Scenario, measured_s: float) -> Scored:
    """A run beside its forecast and the interval that other sources give it."""
    f, traits, _ = without_interval(scenario)
    found = without_source(traits, run.source)
    factors = found.factors()
    ratio = measured_s / f.step_time_s
    return Scored(
        id=run.id,
        source=run.source,
        device=hwdb.device(scenario.device).id,
        stack=f.stack,
        klass=found.klass,
        measured_s=measured_s,
        predicted_s=f.step_time_s,
        inside=tuple(factors[level][0] <= ratio <= factors[level][1] for level in LEVELS),
        measured_bytes=run.peak_bytes,
        predicted_bytes=counted(f, "allocated", run.outputs_held),
    )


def line(name: str, rows: list[Scored]) -> str:
    """One line of the table of times, in Markdown."""
    inside = " / ".join(f"{100 * mean(r.inside[i] for r in rows):.0f}" for i in range(len(LEVELS)))
    return f"{errors(name, [r.predicted_s / r.measured_s for r in rows])} {inside} |"


def memory_line(name: str, rows: list[Scored]) -> str:
    """One line of the table of peak memory, in Markdown, over the rows that measured it."""
    ratios = [r.predicted_bytes / r.measured_bytes for r in rows if r.measured_bytes]
    return errors(name, ratios)


def errors(name: str, ratios: list[float]) -> str:
    """Number of ratios predicted / measured, median / mean of |ratio - 1|, bias [%]."""
    size = [100 * abs(x - 1.0) for x in ratios]
    bias = 100 * np.expm1(median(np.log(x) for x in ratios))
    return f"| {name} | {len(ratios)} | {median(size):.1f} / {mean(size):.1f} | {bias:+.1f} |"


def print_times(done: list[Scored]) -> None:
    """The table of times: by source and device, by class, and all."""
    levels = " / ".join(map(str, LEVELS))
    print(f"| source, device | rows | median / mean | bias | inside {levels} % |")
    print("|---|---:|---|---:|---|")
    for key in dict.fromkeys((r.source, r.device) for r in done):
        print(line(", ".join(key), [r for r in done if (r.source, r.device) == key]))
    for klass in dict.fromkeys(r.klass for r in done):
        print(line(f"*{klass}*", [r for r in done if r.klass == klass]))
    if done:
        print(line("all", done))


def print_memory(done: list[Scored]) -> None:
    """The table of peak memory, where any row measured it."""
    measured = [r for r in done if r.measured_bytes]
    if not measured:
        return
    print("\n| peak memory: source, device | rows | median / mean | bias |\n|---|---:|---|---:|")
    for key in dict.fromkeys((r.source, r.device) for r in measured):
        print(memory_line(", ".join(key), [r for r in measured if (r.source, r.device) == key]))
    print(memory_line("all", measured))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="tables; default: all kept for blind tests"
    )
    parser.add_argument("--rows", action="store_true", help="print every row as well")
    options = parser.parse_args()
    try:
        done, refused = score(options.files or blind())
    except RoofcastError as error:
        print(f"roofcast: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for r in done if options.rows else ():
        what = f"{r.id:20s} {r.device:16s} {r.stack:24s} {r.klass:32s}"
        print(f"{what} {r.measured_s:10.4g} {r.predicted_s:10.4g} {100 * r.error:+7.1f}")
    print_times(done)
    print_memory(done)
    for why in refused:
        print(why)


if __name__ == "__main__":
    main()
