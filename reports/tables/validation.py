"""Forecasts beside measured runs and kernels: what `roofcast validate` computes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.reports.files import replacing
from roofcast.scenarios.measured.nets import Run, read
from roofcast.simulator.forecast.chain import forecast

ADDED = ("predicted_step_time_s", "predicted_low_s", "predicted_high_s", "error", "refused_because")


class Checked(NamedTuple):
    """A measured run and its forecast; forecast numbers are None where it was refused."""

    run: Run
    group: tuple[str, ...]
    predicted: float | None
    low: float | None  # of the 80 % interval
    high: float | None
    inside: dict[str, bool]  # by level
    bound: float | None  # the printed roofline's seconds
    klass: str
    model: str
    refused: str

    @property
    def error(self) -> float | None:
        """Forecast over measured, less one; None where the forecast was refused."""
        return None if self.predicted is None else self.predicted / self.run.measured_s - 1.0


class Summary(NamedTuple):
    """One group of rows: errors are |predicted / measured - 1|."""

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
    """One run's forecast."""
    row = run.row
    s = run.scenario
    layout = (row.get("layout") or "").partition(" ")[0]  # "nhwc (configs.yml ..)"
    many = "" if s is None or (s.devices or 1) == 1 else "several"
    asked = (s.mode, s.precision or "", layout, many) if s else ("", "", layout, many)
    group = (run.source, (row.get("device") or "").strip(), *asked)
    refused = run.refused
    if run.scenario is not None:
        try:
            f = forecast(run.scenario)
            inside = {level: a <= run.measured_s <= b for level, (a, b) in f.interval_s.items()}
            return Checked(
                run,
                group,
                f.step_time_s,
                f.low_s,
                f.high_s,
                inside,
                f.lower_bound_s,
                f.interval_class,
                f.model,
                "",
            )
        except RoofcastError as error:
            refused = str(error)
        except (
            ArithmeticError,
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            refused = f"{run.scenario.model}: {type(error).__name__}: {error}"
    return Checked(
        run,
        group,
        None,
        None,
        None,
        {},
        None,
        "",
        row.get("model") or "",
        " ".join(refused.split()),
    )


def check_files(paths: Iterable[str | Path]) -> list[Checked]:
    """Every row of the files."""
    return [check(run) for path in paths for run in read(path)]


def median(values: list[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def summarise(
    checked: list[Checked], by: Callable[[Checked], tuple[str, ...]] = lambda c: c.group
) -> list[Summary]:
    """Groups of the rows that could be forecast."""
    groups: dict[tuple[str, ...], list[Checked]] = {}
    for c in checked:
        if c.predicted is not None:
            groups.setdefault(by(c), []).append(c)
    return [_summary(group, rows) for group, rows in sorted(groups.items())]


def _summary(group: tuple[str, ...], rows: list[Checked]) -> Summary:
    errors = [abs(c.error) for c in rows]
    naive = [abs(c.bound / c.run.measured_s - 1.0) for c in rows]
    worst = max(rows, key=lambda c: abs(c.error))
    return Summary(
        group,
        len(rows),
        median(errors),
        sum(errors) / len(rows),
        median([c.error for c in rows]),
        median(naive),
        sum(naive) / len(rows),
        sum(c.inside.get("80", False) for c in rows) / len(rows),
        f"{worst.model} {worst.error:+.0%}",
    )


def refusals(checked: list[Checked]) -> list[tuple[str, int]]:
    """Reasons and how many rows they refuse, the most frequent first."""
    return Counter(c.refused for c in checked if c.predicted is None).most_common()


def worst(checked: list[Checked], count: int = 10) -> list[Checked]:
    """The rows furthest off, by |ln(predicted / measured)|, one a model, device and mode."""
    order = sorted((c for c in checked if c.predicted is not None), key=lambda c: -abs(_log(c)))
    chosen: dict[tuple, Checked] = {}
    for c in order:
        chosen.setdefault((c.model, c.run.row.get("device"), c.run.row.get("mode")), c)
    return list(chosen.values())[:count]


def _log(c: Checked) -> float:
    from math import log

    return log(c.predicted / c.run.measured_s)


def write_runs(checked: list[Checked], path: str) -> None:
    """The rows as they came, with ADDED columns."""
    fields = list(dict.fromkeys(key for c in checked for key in c.run.row if key)) + list(ADDED)
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for c in checked:
            numbers = (c.predicted, c.low, c.high, c.error)
            writer.writerow(
                c.run.row
                | dict(
                    zip(
                        ADDED,
                        [*("" if n is None else f"{n:.6g}" for n in numbers), c.refused],
                        strict=True,
                    )
                )
            )


def kernels(paths: Iterable[str | Path]):
    """Measured kernels as a pandas table: columns file, device, op, kind, format, seconds,
    predicted, roofline and the arguments.
    """
    import pandas as pd

    from roofcast.scenarios.measured.kernel_errors import evaluate

    tables = [evaluate(str(path)) for path in paths]
    if not any(len(t) for t in tables):
        raise BadInput(
            f"{', '.join(str(p) for p in paths)}: no kernel of a known device and op in it"
        )
    return pd.concat(tables, ignore_index=True)


def write_kernels(table, path: str) -> None:
    """The kernels with their forecasts."""
    with replacing(path) as part:
        table.assign(error=table.predicted / table.seconds - 1.0).to_csv(
            part, index=False, lineterminator="\n", float_format="%.6g"
        )
