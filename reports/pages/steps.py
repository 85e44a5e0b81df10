"""Steps of several scenarios that run in turn, as those of a GAN's two nets: each, and the sum."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import binary, duration, energy, money, seconds
from roofcast.reports.pages.asked import what
from roofcast.reports.pages.layout import on_what
from roofcast.simulator.forecast.result import Forecast

MEMORY = (
    "memory: the largest of the steps' peaks, beside it parameters and optimizer states of the"
    " other steps' nets (an upper bound where steps share a net)"
)


def total(run: Sequence[Forecast]) -> dict[str, float | None]:
    """The sum of the steps: seconds, peak memory [B], and of the whole run time [s], cost
    [USD] and energy [J]; None where a step does not know its part.
    """
    fields = ("step_time_s", "lower_bound_s", "time_to_train_s", "cost_usd", "energy_j")
    found: dict[str, float | None] = {}
    for field in fields:
        values = [getattr(f, field) for f in run]
        found[field] = None if None in values else sum(values)
    states = [f.memory.parameters_bytes + f.memory.optimizer_bytes for f in run]
    peaks = [f.memory.peak_bytes + sum(states) - own for f, own in zip(run, states, strict=True)]
    found["peak_bytes"] = max(peaks)
    return found


def print_steps(name: str, runs: Sequence[Sequence[Forecast]], assumed: Sequence[str]) -> None:
    """Print a table per run, a row per step and one for the sum, to stdout."""
    columns: list[tuple[str, Justify]] = [
        ("step of", "fold"), ("batch", "right"), ("time", "right"), ("lower bound", "right"),
        ("peak memory", "right"), ("whole run", "right"), ("cost", "right"), ("energy", "right"),
    ]  # fmt: skip
    with page() as out:
        for n, run in enumerate(runs):
            if n:
                out.print()
            title = f"{name} on {on_what(run[0])}: {len(run)} steps in turn"
            say(out, title, indent=0, style="bold")
            for f in run:
                say(out, what(f), first=f"{f.model}: ")
            out.print()
            rows = [[f.model, f"{f.batch:,}", *_cells(total([f]))] for f in run]
            rows.append(["together", "", *_cells(total(run))])
            styles = [""] * len(run) + ["bold"]
            spare = ("lower bound", "energy", "cost", "batch")
            show(out, fitted_table(out.width - 2, columns, rows, spare, styles))
        section(out, "Assumed")
        for line in (*assumed, MEMORY):
            say(out, line, first="- ")
        say(out, "each step by itself: roofcast run, with its own scenario")


def _cells(numbers: dict[str, float | None]) -> list[str]:
    cost, joules = numbers["cost_usd"], numbers["energy_j"]
    return [
        seconds(numbers["step_time_s"]),
        seconds(numbers["lower_bound_s"]),
        binary(numbers["peak_bytes"]),
        duration(numbers["time_to_train_s"]),
        "—" if cost is None else money(cost),
        "—" if joules is None else energy(joules),
    ]
