"""Forecasts side by side, and why they differ."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.files import replacing
from roofcast.reports.format import binary, digits, duration, energy, money, percent, seconds, si
from roofcast.reports.pages.asked import trained, what
from roofcast.reports.pages.causes import Cause, changed, of_memory, of_time
from roofcast.reports.pages.layout import layout_line, on_what
from roofcast.reports.parts import Console
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

ROUNDING = 0.002  # of what is shown: a difference that is none
LEAST = 0.0005  # of the larger step: a smaller cause is left out of the text
NOTE = (
    "time of a step that each limit bounds, as in the limits of roofcast predict; the differences"
    " sum to that of the steps"
)


def figures(f: Forecast) -> dict[str, float | None]:
    """The figures of a forecast that are compared, in SI units."""
    return {
        "step_time_s": f.step_time_s,
        "low_s": f.low_s,
        "high_s": f.high_s,
        "samples_per_s": f.samples_per_s,
        "tokens_per_s": f.tokens_per_s,
        "mfu": f.mfu,
        "peak_bytes": f.memory.peak_bytes,
        "power_w": f.power_w,
        "step_energy_j": f.step_energy_j,
        "time_to_train_s": f.time_to_train_s,
        "cost_usd": f.cost_usd,
        "run_time_s": f.whole_run.time_s,
        "run_cost_usd": f.whole_run.cost_usd,
        "run_energy_j": f.whole_run.energy_j,
    }


def to_json(names: Sequence[str], forecasts: Sequence[Forecast]) -> dict[str, Any]:
    """The comparison as one object: figures, and what of each difference each cause is."""
    base = forecasts[0]
    return {
        "scenarios": [
            {"name": name, "model": f.model, "device": f.device, **figures(f)}
            for name, f in zip(names, forecasts, strict=True)
        ],
        "differences": [
            {
                "from": names[0],
                "to": name,
                "step_time_s": f.step_time_s - base.step_time_s,
                "causes_s": {c.name: c.difference for c in of_time(base, f)},
                "peak_bytes": f.memory.peak_bytes - base.memory.peak_bytes,
                "causes_bytes": {c.name: c.difference for c in of_memory(base, f)},
            }
            for name, f in zip(names[1:], forecasts[1:], strict=True)
        ],
    }


def write_csv(names: Sequence[str], forecasts: Sequence[Forecast], path: str | Path) -> None:
    """The comparison as a table: a row per scenario, with its causes beside the first one."""
    base = forecasts[0]
    rows = []
    for name, f in zip(names, forecasts, strict=True):
        row: dict[str, Any] = {"scenario": name, "model": f.model, "device": f.device, **figures(f)}
        row |= {f"{c.name} [s]": c.other for c in of_time(base, f)}
        rows.append(row)
    columns = dict.fromkeys(key for row in rows for key in row)
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(columns))
        out.writeheader()
        out.writerows(rows)


def print_compared(
    names: Sequence[str], scenarios: Sequence[Scenario], forecasts: Sequence[Forecast]
) -> None:
    """Print the scenarios, their figures, and why each differs from the first."""
    with page() as out:
        for name, f in zip(names, forecasts, strict=True):
            layout = f"; {layout_line(f.layout, f.system)}" if f.layout else ""
            tuned = f"; {trained(f)}" if trained(f) else ""
            say(out, f"{name}: {f.model} on {on_what(f)}, {what(f)}{tuned}{layout}", indent=0)
        out.print()
        _figures(out, names, forecasts)
        for name, scenario, f in zip(names[1:], scenarios[1:], forecasts[1:], strict=True):
            _why(out, (names[0], name), (scenarios[0], scenario), (forecasts[0], f))


def _figures(out: Console, names: Sequence[str], forecasts: Sequence[Forecast]) -> None:
    """A row per figure that any of them has, a column per scenario."""
    scopes = ", ".join(dict.fromkeys(f.whole_run.energy_scope for f in forecasts))
    shown: list[tuple[str, str, Callable[[float], str]]] = [
        ("step", "step_time_s", seconds),
        ("80 % from", "low_s", seconds),
        ("80 % to", "high_s", seconds),
        ("tokens/s", "tokens_per_s", lambda v: f"{v:,.0f}"),
        ("samples/s", "samples_per_s", digits),
        ("MFU", "mfu", percent),
        ("peak memory", "peak_bytes", binary),
        ("power per board", "power_w", lambda v: si(v, "W")),
        ("energy of a step", "step_energy_j", lambda v: si(v, "J")),
        ("whole run", "run_time_s", duration),
        ("cost", "run_cost_usd", money),
        (f"energy of the run ({scopes})", "run_energy_j", energy),
    ]
    all_ = [figures(f) for f in forecasts]
    rows = [
        [label, *("—" if each[key] is None else form(each[key] or 0.0) for each in all_)]
        for label, key, form in shown
        if any(each[key] is not None for each in all_)
    ]
    columns: list[tuple[str, Justify]] = [("", "left"), *((name, "right") for name in names)]
    show(out, fitted_table(out.width - 2, columns, rows))


def _why(
    out: Console,
    names: tuple[str, str],
    scenarios: tuple[Scenario, Scenario],
    forecasts: tuple[Forecast, Forecast],
) -> None:
    """What differs between two, and the causes of the difference."""
    base, other = forecasts
    by = other.step_time_s - base.step_time_s
    relative = f" ({100 * by / base.step_time_s:+.0f} %)" if base.step_time_s else ""
    section(out, f"From {names[0]} to {names[1]}: {_signed(by, seconds)}{relative}")
    edits = [f"{name} {a} -> {b}" for name, a, b in changed(*scenarios, forecasts)]
    say(out, f"changed: {'; '.join(edits)}" if edits else "nothing was changed")
    least = LEAST * max(base.step_time_s, other.step_time_s)
    _causes(out, of_time(base, other), names, seconds, least, "limit")
    say(out, NOTE, style="dim")
    peaks = (base.memory.peak_bytes, other.memory.peak_bytes)
    if abs(peaks[1] - peaks[0]) > LEAST * max(peaks):
        out.print()
        _causes(out, of_memory(base, other), names, binary, LEAST * max(peaks), "memory at peak")
    if base.samples_read != other.samples_read:
        a, b = (f.step_time_s / f.samples_read for f in forecasts)
        what = "batches" if base.batch != other.batch else "samples of a step"
        say(
            out,
            f"the {what} differ: per sample {seconds(a)} and {seconds(b)}"
            f" ({100 * (b / a - 1):+.0f} %)",
        )


def _causes(
    out: Console,
    causes: Sequence[Cause],
    names: tuple[str, str],
    form: Callable[[float], str],
    least: float,
    title: str,
) -> None:
    columns: list[tuple[str, Justify]] = [(title, "left"), (names[0], "right"), (names[1], "right")]
    columns.append(("difference", "right"))
    rows = [
        [
            c.name,
            form(c.base),
            form(c.other),
            _signed(c.difference if abs(c.difference) > ROUNDING * least else 0.0, form),
        ]
        for c in causes
        if max(c.base, c.other) > least
    ]
    sides = [sum(getattr(c, side) for c in causes) for side in ("base", "other")]
    rows.append(["all", *map(form, sides), _signed(sides[1] - sides[0], form)])
    show(out, fitted_table(out.width - 2, columns, rows))


def _signed(value: float, form: Callable[[float], str]) -> str:
    return f"{'-' if value < 0 else '+'}{form(abs(value))}"
