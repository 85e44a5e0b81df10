"""What a page shows: forecasts as `predict --json` has them, and what its pictures draw beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.reports.options import to_json
from roofcast.reports.pages.asked import what
from roofcast.reports.pages.layout import losses, on_what
from roofcast.reports.pages.memory import kinds
from roofcast.reports.pictures.roofs import machine, visible
from roofcast.simulator.choose.sensitivity import Sensitivity, sensitivity
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.timeline import moments, timeline

EVENTS = 3000  # passes that a picture of the pipeline shows


class Answer(NamedTuple):
    """A scenario, its forecast, and what the page draws of it."""

    scenario: Scenario
    forecast: Forecast
    sensitivity: Sensitivity | None


def answered(scenario: Scenario, forecast: Forecast, effects: bool) -> Answer:
    """A forecast with its sensitivity, where that is wanted and defined."""
    return Answer(scenario, forecast, sensitivity(scenario) if effects else None)


def document(answers: Sequence[Answer]) -> dict[str, Any]:
    """The data of a page, in SI units: what its script draws, and what a reader can take from it.

    `forecasts[i].json` is the object that `roofcast predict --json` prints.
    """
    return {
        "forecasts": [
            drawn(a, through(a.scenario)) | {"pipeline": _pipeline(a.scenario, a.forecast)}
            for a in answers
        ]
    }


def through(scenario: Scenario) -> list[dict[str, Any]]:
    """Memory through the backward pass of a step on one device, by kind [bytes]."""
    return [moment._asdict() | {"total": moment.total} for moment in moments(scenario)]


def drawn(answer: Answer, held: list[dict[str, Any]]) -> dict[str, Any]:
    """The data of one forecast, without its pipeline. held: its memory through the step."""
    f, scenario = answer.forecast, answer.scenario
    found: dict[str, Any] = {
        "title": f"{f.model} on {on_what(f)}",
        "what": what(f),
        "json": to_json(f),
        "points": _points(f),
        "roofs": _roofs(scenario, f),
        "tree": _layers(f),
        "memory": {"kinds": kinds(f), "moments": held},
        "sensitivity": None,
    }
    if answer.sensitivity is not None:
        found["sensitivity"] = [effect._asdict() for effect in answer.sensitivity.effects]
    return found


def _points(f: Forecast) -> list[dict[str, Any]]:
    """Ops in one phase, longest first; updates of all weights are one point."""
    return [msgspec.to_builtins(point) for point in visible(f)]


def _roofs(scenario: Scenario, f: Forecast) -> list[dict[str, Any]]:
    """The roofs of the device; none for a device that has integer rates only."""
    try:
        device = hwdb.device(scenario.device, scenario.set)
        return [msgspec.to_builtins(roof) for roof in machine(device, f.mode == "train").roofs]
    except BadInput:
        return []


def _layers(f: Forecast) -> list[dict[str, Any]]:
    """Rows of time by layer, and the parts of the step outside of layers."""
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "op": layer.op,
            "count": layer.count,
            "bound": layer.bound,
            "time_s": layer.forward_s + layer.backward_s,
        }
        for layer in f.layers
        if layer.forward_s + layer.backward_s > 0.0
    ]
    for part in losses(f):
        rows.append(
            {
                "name": _said(part.name),
                "op": part.name,
                "count": 1,
                "bound": "",
                "time_s": part.time,
            }
        )
    return rows


def _said(part: str) -> str:
    """
    >>> _said("comm: data"), _said("optimizer")
    ('communication: data', 'optimizer')
    """
    return part.replace("comm:", "communication:")


def _pipeline(scenario: Scenario, f: Forecast) -> dict[str, Any] | None:
    """Passes of the pipeline stages over time; None on one stage, or where there are too many."""
    if f.layout is None or f.layout.pp == 1:
        return None
    try:
        events = [e for e in timeline(scenario) if e.stream == "compute"]
    except BadInput as error:
        return {"why_not": str(error), "events": [], "shown": 0, "all": 0, "end_s": f.step_time_s}
    rows = [[e.stage, e.name, e.start, e.duration] for e in sorted(events, key=lambda e: e.start)]
    return {
        "why_not": "",
        "events": rows[:EVENTS],
        "shown": min(len(rows), EVENTS),
        "all": len(rows),
        "end_s": f.step_time_s,
    }
