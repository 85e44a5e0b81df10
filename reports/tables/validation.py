"""Forecasts beside measured runs and kernels: what `roofcast validate` computes."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.reports.files import replacing
from roofcast.reports.progress import watched
from roofcast.scenarios.measured.heard import heard
from roofcast.scenarios.measured.nets import Run, read
from roofcast.simulator.forecast.chain import forecast

if TYPE_CHECKING:
    import pandas as pd

ADDED = (
    "predicted_step_time_s",
    "predicted_low_s",
    "predicted_high_s",
    "error",
    "kernel_generation",
    "refused_because",
)
SEVERAL = "several"  # the last part of the group of a run on more than one device
BROKEN = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)


class Checked(NamedTuple):
    """A measured run and its forecast; numbers of the forecast are None where it was refused."""

    run: Run
    group: tuple[str, ...]  # source, device, mode, precision, memory format, several devices
    predicted: float | None
    low: float | None  # of the 80 % interval
    high: float | None
    inside: dict[str, bool]  # by level of the interval
    bound: float | None  # roofline lower bound at datasheet peaks [s]
    klass: str  # of its interval
    model: str
    refused: str

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None where the forecast was refused."""
        return None if self.predicted is None else self.predicted / self.measured_s - 1.0

    @property
    def measured_s(self) -> float:
        """Seconds of the measured step, NaN where none is known."""
        return math.nan if self.run.measured_s is None else self.run.measured_s


class Summary(NamedTuple):
    """One group of rows. Errors are |predicted / measured - 1|."""

    group: tuple[str, ...]
    rows: int
    median: float
    mean: float
    bias: float  # median of predicted / measured - 1
    roofline_median: float
    roofline_mean: float
    inside: float  # share of the rows inside the 80 % interval
    worst: str


def check(run: Run) -> Checked:
    """One run and its forecast. An error inside the engine refuses the row, not the table."""
    row, s = run.row, run.scenario
    layout = (row.get("layout") or "").partition(" ")[0]  # "nhwc (configs.yml ..)"
    many = "" if s is None or (s.devices or 1) == 1 else SEVERAL
    asked = (s.mode, s.precision or "", layout, many) if s else ("", "", layout, many)
    group = (run.source, (row.get("device") or "").strip(), *asked)
    refused = run.refused
    if s is not None and run.measured_s is not None:
        try:
            f = forecast(s)
            inside = {level: a <= run.measured_s <= b for level, (a, b) in f.interval_s.items()}
            return Checked(
                run, group, f.step_time_s, f.low_s, f.high_s, inside, f.lower_bound_s,
                f.interval_class, f.model, "",
            )  # fmt: skip
        except RoofcastError as error:
            refused = str(error)
        except BROKEN as error:
            refused = f"{s.model}: {type(error).__name__}: {error}"
    why = " ".join(refused.split())
    return Checked(run, group, None, None, None, {}, None, "", row.get("model") or "", why)


def check_files(paths: Iterable[str | Path]) -> list[Checked]:
    """Every row of the files."""
    runs = [run for path in paths for run in read(path)]
    return [check(run) for run in watched(runs, "runs")]


def summarise(
    checked: Iterable[Checked], by: Callable[[Checked], tuple[str, ...]] = lambda c: c.group
) -> list[Summary]:
    """Groups of the rows that could be forecast, in order of the group."""
    groups: dict[tuple[str, ...], list[Checked]] = {}
    for c in checked:
        if c.predicted is not None:
            groups.setdefault(by(c), []).append(c)
    return [_summary(group, rows) for group, rows in sorted(groups.items())]


def _summary(group: tuple[str, ...], rows: list[Checked]) -> Summary:
    signed = [c.error or 0.0 for c in rows]
    size = [abs(error) for error in signed]
    roofline = [abs((c.bound or 0.0) / c.measured_s - 1.0) for c in rows]
    furthest = max(range(len(rows)), key=size.__getitem__)
    return Summary(
        group,
        len(rows),
        median(size),
        sum(size) / len(rows),
        median(signed),
        median(roofline),
        sum(roofline) / len(rows),
        fmean(c.inside.get("80", False) for c in rows),
        f"{rows[furthest].model} {signed[furthest]:+.0%}",
    )


def refusals(checked: Iterable[Checked]) -> list[tuple[str, int]]:
    """Reasons and how many rows they refuse, the most frequent first."""
    return Counter(c.refused for c in checked if c.predicted is None).most_common()


def worst(checked: Iterable[Checked], count: int = 10) -> list[Checked]:
    """The largest |ln(predicted / measured)|, one row per model, device and mode."""
    order = sorted((c for c in checked if c.predicted is not None), key=_distance, reverse=True)
    chosen: dict[tuple[str | None, ...], Checked] = {}
    for c in order:
        chosen.setdefault((c.model, c.run.row.get("device"), c.run.row.get("mode")), c)
    return list(chosen.values())[:count]


def _distance(c: Checked) -> float:
    return abs(math.log((c.predicted or math.nan) / c.measured_s))


def write_runs(checked: list[Checked], path: str) -> None:
    """Write the rows as they came, with the columns of ADDED."""
    read = (key for c in checked for key in c.run.row if key and key not in ADDED)
    fields = list(dict.fromkeys(read)) + list(ADDED)
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for c in checked:
            numbers = (c.predicted, c.low, c.high, c.error)
            cells = ["" if n is None else f"{n:.6g}" for n in numbers]
            taken = heard(c.run.scenario) if c.run.scenario and not c.refused else {}
            words = [taken.get("kernel_generation", ""), c.refused]
            writer.writerow(c.run.row | dict(zip(ADDED, [*cells, *words], strict=True)))


def kernels(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Measured kernels beside their forecasts.

    Columns: file, device, op, kind, format, seconds, predicted, roofline, and the arguments.
    Raises BadInput where no row is a kernel of a known device and op.
    """
    import pandas as pd

    from roofcast.scenarios.measured.kernel_errors import evaluate

    paths = list(paths)
    tables = [evaluate(str(path)) for path in paths]
    if not any(len(t) for t in tables):
        names = ", ".join(str(path) for path in paths)
        raise BadInput(f"{names}: no kernel of a known device and op in it")
    return pd.concat(tables, ignore_index=True)


def write_kernels(table: pd.DataFrame, path: str) -> None:
    """Write the kernels with their forecasts and errors."""
    with replacing(path) as part:
        table.assign(error=table.predicted / table.seconds - 1.0).to_csv(
            part, index=False, lineterminator="\n", float_format="%.6g"
        )
