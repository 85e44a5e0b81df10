"""What a scenario asks that its forecast does not depend on, as assumptions."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device
from roofcast.scenarios.own_runs import forecast_with_runs as run
from roofcast.simulator.forecast.chain import SAME_TIME
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

# of a Forecast: what a change of the device can change
_RESULTS = ("step_time_s", "lower_bound_s", "cost_usd", "energy_j", "mfu", "memory")
_ALWAYS = ("memory.bandwidth", "memory.capacity", "clock")  # keys that forecasts depend on


def with_unused(forecast: Forecast, scenario: Scenario) -> Forecast:
    """The forecast with an assumption for each field of the scenario that has no effect on it."""
    found = tuple(unused(scenario, forecast))
    assumptions = forecast.assumptions
    changes = sum(line.startswith("hypothetical: ") for line in assumptions)
    idle = [key for key in scenario.set if _said(key) or without_change(key) in found]
    if 0 < changes == len(idle):
        # each change is said to do nothing: that the time stays follows
        assumptions = tuple(line for line in assumptions if line != SAME_TIME)
    return msgspec.structs.replace(forecast, assumptions=assumptions + found)


def unused(scenario: Scenario, forecast: Forecast) -> Iterator[str]:
    """A line for each field that is given and has no effect: attention without an attention layer,
    a price without a length of the run, a system for one device, changes of figures that the
    forecast does not read.
    """
    s = scenario
    if s.attention is not None and not has_attention(forecast):
        yield without_attention(s.attention, forecast.model)
    if s.price_per_hour is not None and forecast.time_to_train_s is None:
        yield (
            f"price {s.price_per_hour:g} USD per device-hour has no effect: the run has no length"
            " (tokens, or samples and epochs)"
        )
    if s.campaign and forecast.campaign is None:
        none = "inference is no training" if s.mode != "train" else "the run has no length"
        yield f"{', '.join(s.campaign)} of the whole training: no effect, {none}"
    if s.system is not None and forecast.devices == 1 and not forecast.offloaded_bytes:
        yield f"system {forecast.system or s.system} has no effect: one device uses no network"
    for key in s.set:
        if _no_effect(key, scenario, forecast):
            yield without_change(key)


def has_attention(forecast: Forecast) -> bool:
    """Whether any layer of the model is an attention."""
    return any(layer.op == "attention" for layer in forecast.layers)


def without_attention(kind: str, model: str) -> str:
    """The line about an implementation of attention that is asked of a model without it."""
    return f"attention {kind} has no effect: {model} has no attention layer"


def without_change(key: str) -> str:
    """The line about a change of the device that changes nothing."""
    return f"set {key} has no effect: the forecast does not depend on it"


def _said(key: str) -> bool:
    """Does the line of the change itself say that no forecast reads the figure?"""
    return key in SHOWN_ONLY[Device] or key in CROSSCHECK_ONLY


def _no_effect(key: str, scenario: Scenario, forecast: Forecast) -> bool:
    """Does the forecast stay the same without this change of the device? Of a key that no formula
    reads, the change itself says so.
    """
    if _said(key):
        return False
    if key in _ALWAYS or key == f"peak_flops.{forecast.precision.removeprefix('amp-')}":
        return False
    left = {other: value for other, value in scenario.set.items() if other != key}
    without = run(msgspec.structs.replace(scenario, set=left))
    return all(_same(name, forecast, without) for name in _RESULTS)


def _same(name: str, a: Forecast, b: Forecast) -> bool:
    one, other = getattr(a, name), getattr(b, name)
    if name == "memory":
        return one.peak_bytes == other.peak_bytes and one.capacity_bytes == other.capacity_bytes
    return bool(one == other)
