"""Forecasts beside measured fine-tuning: what `roofcast validate --finetune` computes."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.files import replacing
from roofcast.reports.progress import watched
from roofcast.reports.tables.validation import BROKEN
from roofcast.scenarios.measured.finetune.rows import Tuned, read
from roofcast.scenarios.measured.peaks import counted
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.reserve import over_lengths
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

GIB = 2**30
QUANTITIES = ("peak_mem_gib", "samples_per_s", "tokens_per_s")
ADDED = (
    *(f"predicted_{q}{end}" for q in QUANTITIES for end in ("", "_low", "_high")),
    "refused_because",
    "assumed",
)
Range = tuple[float, float, float]  # estimate, low and high end of the 80 % interval


class Checked(NamedTuple):
    """A measured run of fine-tuning and its forecast; None where a number is not forecast."""

    run: Tuned
    peak_gib: Range | None
    samples_per_s: Range | None
    tokens_per_s: Range | None
    refused: str

    def error(self, quantity: str) -> float | None:
        """predicted / measured - 1 of one of QUANTITIES; None where either is not known."""
        field = "peak_gib" if quantity == "peak_mem_gib" else quantity
        found, measured = getattr(self, field), getattr(self.run, field)
        return None if found is None or not measured else found[0] / measured - 1.0


class Line(NamedTuple):
    """Errors of one group of rows. They are |predicted / measured - 1|."""

    group: str
    quantity: str
    rows: int
    median: float
    mean: float
    bias: float  # median of predicted / measured - 1
    worst: str


def check_files(paths: Iterable[str | Path]) -> list[Checked]:
    """Every row of the files and its forecast."""
    runs = [run for path in paths for run in read(path)]
    known: dict[bytes, tuple[Forecast, float] | str] = {}
    return [_check(run, known) for run in watched(runs, "runs of fine-tuning")]


def _check(run: Tuned, known: dict[bytes, tuple[Forecast, float] | str]) -> Checked:
    """One row and its forecast. An error inside the engine refuses the row, not the table.

    known: forecasts of equal scenarios and what the allocator reserves, by their JSON.
    """
    if run.scenario is None:
        return Checked(run, None, None, None, run.refused)
    key = run.scenario.to_json()
    if key not in known:
        known[key] = _forecast(run.scenario)
    answer = known[key]
    if isinstance(answer, str):
        return Checked(run, None, None, None, answer)
    found, reserved = answer
    samples, tokens = (
        (_rate(getattr(found, name), found, parts) if run.timed else None)
        for name, parts in zip(QUANTITIES[1:], (run.sequences, 1), strict=True)
    )
    return Checked(run, _peak(found, run, reserved), samples, tokens, "")


def _forecast(s: Scenario) -> tuple[Forecast, float] | str:
    """The forecast, and bytes that the allocator reserves where lengths differ, else 0."""
    try:
        found = forecast(s)
        return found, over_lengths(s, found) or 0.0
    except RoofcastError as error:
        return " ".join(str(error).split())
    except BROKEN as error:
        return f"{s.model}: {type(error).__name__}: {error}"


def _peak(found: Forecast, run: Tuned, reserved: float) -> Range:
    """The peak as it was measured [GiB], and its band. Where the measurement counts what the
    allocator reserves, it is that of many micro-batches of different lengths.
    """
    memory = found.memory
    peak = counted(found, run.measured)
    if run.measured != "allocated":
        peak = max(peak, reserved + (memory.framework_bytes if run.measured == "device" else 0.0))
    low, high = (memory.low_bytes, memory.high_bytes)
    if low is None or high is None:
        low = high = memory.peak_bytes
    share = peak / memory.peak_bytes / GIB
    return peak / GIB, low * share, high * share


def _rate(value: float | None, found: Forecast, parts: int) -> Range | None:
    """A rate and its interval, from that of the step's time; parts: sequences of a sample."""
    if value is None:
        return None
    value /= parts
    low, high = found.low_s or found.step_time_s, found.high_s or found.step_time_s
    return value, value * found.step_time_s / high, value * found.step_time_s / low


def lines(checked: list[Checked], by: Callable[[Checked], str]) -> list[Line]:
    """Errors by group, memory before rates; groups in the order of their first row."""
    found = []
    for quantity in QUANTITIES:
        groups: dict[str, list[tuple[float, str]]] = {}
        for c in checked:
            error = c.error(quantity)
            if error is not None:
                name = f"{c.run.id} {c.run.row.get('model') or ''}".strip()
                groups.setdefault(by(c), []).append((error, name))
        found += [_line(group, quantity, rows) for group, rows in groups.items()]
    return found


def _line(group: str, quantity: str, rows: list[tuple[float, str]]) -> Line:
    size = [abs(error) for error, _ in rows]
    worst, name = max(rows, key=lambda row: abs(math.log1p(max(row[0], -0.999))))
    return Line(
        group, quantity, len(rows), median(size), fmean(size),
        median(error for error, _ in rows), f"{name} {worst:+.0%}",
    )  # fmt: skip


def by_source(c: Checked) -> str:
    """The source of a row."""
    return c.run.source or "no source given"


def by_method(c: Checked) -> str:
    """full, LoRA or QLoRA."""
    return c.run.kind


def by_measure(c: Checked) -> str:
    """What a peak counts, and whether it is the largest of samples that differ in length."""
    return f"{c.run.measured}, maximum over varying lengths" if c.run.varies else c.run.measured


def answered(checked: list[Checked]) -> int:
    """Rows with a forecast."""
    return sum(c.peak_gib is not None for c in checked)


def refusals(checked: list[Checked]) -> list[tuple[str, int]]:
    """Reasons and how many rows they refuse, the most frequent first."""
    return Counter(c.refused for c in checked if c.refused).most_common()


def cells(c: Checked) -> dict[str, str]:
    """The forecast of a row, by the names of ADDED."""
    ranges = (c.peak_gib, c.samples_per_s, c.tokens_per_s)
    numbers = [f"{n:.6g}" if r else "" for r in ranges for n in (r or (0.0, 0.0, 0.0))]
    words = (c.refused, "; ".join(c.run.assumed))
    return dict(zip(ADDED, (*numbers, *words), strict=True))


def write(checked: list[Checked], path: str) -> None:
    """Write the rows as they came, with the columns of ADDED."""
    read_ = (key for c in checked for key in c.run.row if key and key not in ADDED)
    fields = [*dict.fromkeys(read_), *ADDED]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for c in checked:
            writer.writerow(c.run.row | cells(c))


def to_json(checked: list[Checked]) -> dict[str, object]:
    """Everything that is printed, and every row."""
    tables = {"sources": by_source, "methods": by_method, "measured_as": by_measure}
    return {
        "rows_answered": answered(checked),
        "rows": len(checked),
        **{name: [line._asdict() for line in lines(checked, by)] for name, by in tables.items()},
        "refused": [{"reason": reason, "rows": number} for reason, number in refusals(checked)],
        "runs": [
            {
                "id": c.run.id,
                "source": c.run.source,
                "method": c.run.kind,
                "measured_as": c.run.measured,
                "scenario": msgspec.to_builtins(c.run.scenario) if c.run.scenario else None,
                **cells(c),
            }
            for c in checked
        ],
    }
