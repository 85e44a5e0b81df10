"""Forecasts over a grid of options and hardware numbers, one row per point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choose.axes import Axis, changed
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

CHUNK = 64  # points that a worker takes at a time
FIELDS = (  # of the forecast, as columns
    "step_time_s", "low_s", "high_s", "tokens_per_s", "samples_per_s", "mfu", "power_w",
    "step_energy_j", "time_to_train_s", "cost_usd", "energy_j",
)  # fmt: skip
PARTS = ("matrix", "vector", "memory", "latency", "host", "optimizer", "network", "waiting")
"""What the seconds of a step go to; `waiting`: pipeline bubbles, uneven stages and the rest."""
COLUMNS = (
    *FIELDS, "run_time_s", "run_cost_usd", "run_energy_j", "run_energy_scope", "node_step_energy_j",
    "peak_bytes", "capacity_bytes", "fits", "bound",
    *(f"{part}_s" for part in PARTS), "refused",
)  # fmt: skip
"""Columns of a row after those of the axes. `time_to_train_s`, `cost_usd` and `energy_j` (of the
boards) are of the steps alone, `run_*` of the whole training. `bound` is the
largest of the parts.
"""


class Chunk(NamedTuple):
    """Some points of a sweep, which one worker forecasts."""

    number: int
    scenario: Scenario
    axes: tuple[Axis, ...]
    points: tuple[tuple[Any, ...], ...]


Rows = list[dict[str, Any]]
Runner = Callable[[Sequence[Chunk]], Iterable[tuple[int, Rows]]]


def chunks(
    scenario: Scenario, axes: Sequence[Axis], points: Sequence[tuple[Any, ...]], size: int = CHUNK
) -> list[Chunk]:
    """The points in chunks, in their order."""
    starts = range(0, len(points), size)
    return [
        Chunk(n, scenario, tuple(axes), tuple(points[start : start + size]))
        for n, start in enumerate(starts)
    ]


def run(chunk: Chunk) -> Rows:
    """The rows of a chunk. A point that cannot be is a row that says why."""
    return [row(chunk.scenario, chunk.axes, point) for point in chunk.points]


def here(todo: Sequence[Chunk]) -> Iterator[tuple[int, Rows]]:
    """A runner: one chunk after the other, in this process."""
    return ((chunk.number, run(chunk)) for chunk in todo)


def row(scenario: Scenario, axes: Sequence[Axis], point: Sequence[Any]) -> dict[str, Any]:
    """The forecast of one point: the values of the axes, then COLUMNS."""
    asked = dict(zip((axis.name for axis in axes), point, strict=True))
    try:
        found = forecast(changed(scenario, list(zip(axes, point, strict=True))))
    except RoofcastError as error:
        return {**asked, **dict.fromkeys(COLUMNS), "refused": str(error)}
    parts = parts_of(found)
    return {
        **asked,
        **{field: getattr(found, field) for field in FIELDS},
        "run_time_s": found.whole_run.time_s,
        "run_cost_usd": found.whole_run.cost_usd,
        "run_energy_j": found.whole_run.energy_j,
        "run_energy_scope": found.whole_run.energy_scope,
        "node_step_energy_j": found.step_energy_by_scope_j.get("node"),
        "peak_bytes": found.memory.peak_bytes,
        "capacity_bytes": found.memory.capacity_bytes,
        "fits": found.memory.fits,
        "bound": max(parts, key=lambda part: parts[part]),
        **{f"{part}_s": seconds for part, seconds in parts.items()},
        "refused": None,
    }


def parts_of(found: Forecast) -> dict[str, float]:
    """Seconds of a step by what they go to; they sum to the step time."""
    parts = dict.fromkeys(PARTS, 0.0)
    for layer in found.layers:
        if layer.bound in parts:  # an op that is part of another takes no time of its own
            parts[layer.bound] += layer.forward_s + layer.backward_s
    parts["optimizer"] = found.update_s
    parts["network"] = sum(found.exposed_communication_s.values())
    parts["host"] += found.between_steps_s + (found.waiting_for_host_s or 0.0)
    parts["waiting"] = max(found.step_time_s - sum(parts.values()), 0.0)
    scale = found.step_time_s / (sum(parts.values()) or 1.0)
    return {part: seconds * scale for part, seconds in parts.items()}
