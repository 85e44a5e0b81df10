"""The measured runs most like a forecast step, and whether any of them is near it."""

from __future__ import annotations

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.console import say, section
from roofcast.reports.format import percent, seconds
from roofcast.reports.parts import Console
from roofcast.simulator.forecast.interval import residuals
from roofcast.simulator.forecast.result import Forecast, Near
from roofcast.simulator.times.rates import family_name
from roofcast.simulator.work.ops.recurrent import CELLS

_MOE = ("moe", "router", "experts")
_RECURRENT, _LOOKED = 0.2, 0.2  # shares from which on a model counts as recurrent, a recommender
_NAMES = {"moe": "mixture-of-experts"}


def nearest_section(out: Console, forecast: Forecast) -> None:
    """The measured runs most like this step, the errors of their own forecasts; and a line if none
    is of such a model on a device of this family.
    """
    if forecast.nearest:
        section(out, "Most similar measured runs (in device, stack, kind of model and size)")
        if far := none_is_near(forecast):
            say(out, far)
        unit = "step" if forecast.mode == "train" else "pass"
        for run in forecast.nearest:
            off = f"forecast {percent(abs(run.error))} too {'long' if run.error > 0 else 'short'}"
            on = f"{run.devices:,} × {run.device}" if run.devices > 1 else run.device
            where = f"{run.name} on {on}, stack {run.stack} ({run.source})"
            unread = ", no constant was fitted to it" if run.unread else ""
            measured = f"measured {seconds(run.measured_s)} per {unit}"
            say(out, f"{where}: {measured}, {off}{unread}", first="- ")
        if not all(run.unread for run in forecast.nearest):
            text = (
                "constants were fitted to such runs: yours may be as far off as the interval says"
            )
            say(out, text, style="dim")


def none_is_near(forecast: Forecast) -> str:
    """A sentence if no run is of the same kind of model on the same family of devices; else ""."""
    kind, family = model_kind(forecast), _family(forecast.device)
    same_kind = [run for run in forecast.nearest if kind_of_run(run) in (kind, None)]
    same_family = [run for run in forecast.nearest if _alike(run, forecast, family)]
    if any(run in same_kind for run in same_family):
        return ""
    model = f"a {_NAMES.get(kind, kind)} model"
    device = f"{forecast.device} or its family"
    if not same_kind and not same_family:
        what = f"none is of {model}, and none on {device}"
    elif not same_kind:
        what = f"none is of {model}"
    elif not same_family:
        what = f"none is on {device}"
    else:
        what = f"none is of {model} on {device}"
    return f"none is near: {what}; they say little about this step"


def _alike(run: Near, forecast: Forecast, family: str | None) -> bool:
    """Whether a run is on the same device or on another of its fitted family."""
    if run.device == forecast.device:
        return True
    return family is not None and not family.startswith("any-") and _family(run.device) == family


def _family(device: str) -> str | None:
    """The family whose fitted constants a device has; None for a device of a user's own."""
    try:
        return family_name(hwdb.device(device))
    except RoofcastError:
        return None


def kind_of_run(run: Near) -> str | None:
    """The kind of model of a measured run; None where the run is not in the shipped table."""
    r = residuals()
    found = (r.name == run.name) & (r.source == run.source)
    return str(r.traits["model_kind"][found][0]) if found.any() else None


def model_kind(forecast: Forecast) -> str:
    """Kind of a model, by what most of its arithmetic and its traffic are for."""
    flops: dict[str, float] = {}
    looked = moved = 0.0
    for layer in forecast.layers:
        flops[layer.op] = flops.get(layer.op, 0.0) + layer.flops
        moved += layer.bytes
        looked += layer.bytes if layer.op.startswith("embedding") else 0.0
    total = sum(flops.values()) or 1.0
    if any(op in _MOE for op in flops):
        return "moe"
    if sum(flops.get(cell, 0.0) for cell in CELLS) > _RECURRENT * total:
        return "recurrent"
    conv = sum(n for op, n in flops.items() if op.startswith(("conv", "depthwise")))
    if conv > 0.5 * total:
        return "convolutional"
    attention = any(layer.op == "attention" for layer in forecast.layers)
    return "recommender" if looked > _LOOKED * moved and not attention else "transformer"
