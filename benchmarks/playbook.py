"""Step times and memory forecast for a table of nanotron runs, beside what was measured:
`python benchmarks/playbook.py playbook.csv.gz [--rows rows.csv]`.

The table holds the layouts of the Ultra-Scale Playbook (Hugging Face, 2025: Llama-like models of 1B
and 8B on 8 to 512 H100, a million tokens per step) in the columns of `roofcast validate --runs`.
Its column `exclude` marks repeats, and runs in a slow mode of the pipeline engine, in which a
layout took up to 80 times as long as in another run of the same layout. Errors are |predicted /
measured - 1|; the bias is the median of predicted / measured - 1. --rows writes every row with its
forecast.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Callable, Iterator
from statistics import mean, median
from typing import NamedTuple

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.training import LlmRun, run
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast

GIB = 2.0**30
SLOW = "slow mode"  # in `exclude`: runs of a version that gathers inputs of products again
MOST_DEVICES = 256  # 512 devices: every micro-batch took a second that no other run shows


class Told(NamedTuple):
    """A run of the table and its forecast."""

    run: LlmRun
    forecast: Forecast

    @property
    def time(self) -> float:
        """Forecast step time over the measured one."""
        assert self.run.measured_s, "told() takes no others"
        return self.forecast.step_time_s / self.run.measured_s

    @property
    def memory(self) -> float | None:
        """Forecast peak of what the framework allocates, over the measured one."""
        memory = self.forecast.memory
        if not self.run.memory_gib:
            return None
        return (memory.peak_bytes - memory.framework_bytes) / GIB / self.run.memory_gib


def told(path: str) -> Iterator[Told]:
    """The runs of the table that can be forecast."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            found = run(row)
            if found.scenario is None or not found.measured_s:
                print(f"{found.id}: {found.refused}")
                continue
            try:
                yield Told(found, forecast(found.scenario))
            except RoofcastError as error:
                print(f"{found.id}: {error}")


def degree(t: Told, name: str) -> int:
    """A degree of parallelism of a run."""
    return int(getattr(t.forecast.layout, name, None) or 1)


def line(name: str, ratios: list[float]) -> str:
    """Rows, median and mean error, and bias, in Markdown."""
    if not ratios:
        return f"| {name} | 0 | | |"
    errors = [100 * abs(r - 1.0) for r in ratios]
    bias = 100 * (median(ratios) - 1.0)
    return f"| {name} | {len(ratios)} | {median(errors):.1f} / {mean(errors):.1f} | {bias:+.1f} |"


def groups(rows: list[Told]) -> Iterator[tuple[str, list[Told]]]:
    """Named groups of rows: without and with a pipeline, in all and by degree."""
    small = [t for t in rows if t.forecast.devices <= MOST_DEVICES]
    flat = [t for t in small if degree(t, "pp") == 1]
    piped = [t for t in small if degree(t, "pp") > 1]
    yield f"pp 1, up to {MOST_DEVICES} devices", flat
    yield f"pp > 1, up to {MOST_DEVICES} devices", piped
    yield (
        f"pp 1, over {MOST_DEVICES} devices",
        [t for t in rows if t not in small and degree(t, "pp") == 1],
    )
    yield (
        f"pp > 1, over {MOST_DEVICES} devices",
        [t for t in rows if t not in small and degree(t, "pp") > 1],
    )
    by: tuple[tuple[str, Callable[[Told], int]], ...] = (
        ("tp", lambda t: degree(t, "tp")),
        ("zero", lambda t: int(t.run.row["zero_stage"])),
        ("devices", lambda t: t.forecast.devices),
        ("pp", lambda t: degree(t, "pp")),
    )
    for word, of in by:
        for value in sorted({of(t) for t in small}):
            for name, part in (("pp 1", flat), ("pp > 1", piped)):
                mine = [t for t in part if of(t) == value]
                if mine:
                    yield f"{name}, {word} {value}", mine


def write(path: str, rows: list[Told]) -> None:
    """Every row with its forecast, as CSV."""
    names = ("id", "model_name", "n_devices", "tp", "pp", "dp", "zero_stage", "micro_batch")
    told = ("exclude", "measured_s", "forecast_s", "measured_gib", "memory_ratio")
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow((*names, *told))
        for t in rows:
            times = t.run.measured_s, t.forecast.step_time_s
            found = (t.run.excluded, *times, t.run.memory_gib, t.memory)
            out.writerow((*(t.run.row.get(name) for name in names), *found))


def main() -> None:
    """Print the errors of times and of memory, by group."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    parser.add_argument("--rows", metavar="FILE", help="write every row with its forecast")
    options = parser.parse_args()
    rows = list(told(options.table))
    kept = [t for t in rows if not t.run.excluded]
    print(f"{len(rows)} runs, of them {len(rows) - len(kept)} excluded by the table\n")
    print("| step time | rows | median / mean | bias |\n|---|---:|---|---:|")
    for name, part in groups(kept):
        print(line(name, [t.time for t in part]))
    print("\n| memory, allocated | rows | median / mean | bias |\n|---|---:|---|---:|")
    for name, part in (
        ("pp 1", [t for t in rows if degree(t, "pp") == 1]),
        ("pp > 1", [t for t in rows if degree(t, "pp") > 1]),
        ("all", rows),
        ("pp > 1, in the slow mode", [t for t in rows if SLOW in t.run.excluded]),
        ("all but those", [t for t in rows if SLOW not in t.run.excluded]),
    ):
        print(line(name, [ratio for t in part if (ratio := t.memory)]))
    if options.rows:
        write(options.rows, rows)


if __name__ == "__main__":
    main()
