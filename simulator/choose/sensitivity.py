"""What a percent of each number of the hardware is worth: elasticities of the step time.

    e(x) = d ln t / d ln x,  by the difference of two forecasts at x (1 - h) and x (1 + h)

Rates (FLOP/s, B/s, Hz, W) have elasticities of zero or less, latencies and the times of the host of
zero or more. A machine with all rates doubled and all latencies halved is twice as fast, so the
elasticities of the rates less those of the latencies sum to -1. The power limit is outside of that
sum: a changed rate keeps the watts of the old one (times/power.py), so that none is needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from roofcast import hwdb
from roofcast.hwdb import collective_constants, constants
from roofcast.hwdb.edits import figure_keys
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.chain import forecast, step_seconds
from roofcast.simulator.forecast.resolve import Asked, resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.fabric import Level
from roofcast.simulator.parallel.networks import fabric_of

STEP = 0.005  # relative change of a number, up and down
RATES = ("FLOP/s", "B/s", "Hz", "W")  # units of a device's figures that are rates
LINK = "B/s per device"
LEAST = 5e-4  # elasticities nearer to zero are rounding
KERNELS = "latency of kernels"
COLLECTIVES = "latency of collectives"
HOST = {  # seconds that a stack states
    "dispatch_s": "host: launch of a kernel",
    "step_s": "host: between steps",
    "program_s": "host: launch of a program",
    "sync_s": "host: wait for experts' token counts",
}
OFFLOADED = "the bandwidth of the link to the host is not varied"


class Effect(NamedTuple):
    """What one number of the hardware is worth."""

    number: str  # memory.bandwidth, network.bandwidth, "host: dispatch_s" ...
    unit: str
    value: float | None  # None: several numbers together
    rate: bool  # more is faster; else it is a latency
    elasticity: float  # percent of step time for a percent of the number
    better_s: float  # seconds that a number twice as good saves


class Sensitivity(NamedTuple):
    """The forecast of a scenario, and what each number is worth, largest first."""

    forecast: Forecast
    effects: tuple[Effect, ...]
    total: float  # of the elasticities, those of latencies negated: -1 where nothing is left out
    assumptions: tuple[str, ...]  # beside those of the forecast


class Number(NamedTuple):
    """A number of the hardware that a step can depend on."""

    name: str
    unit: str
    value: float | None
    rate: bool


def sensitivity(scenario: Scenario) -> Sensitivity:
    """The elasticity of the step time to each number of the hardware that it depends on.

    Raises BadInput or UnknownName as predict does.
    """
    asked = resolve(scenario)._replace(rank=None)  # its seconds are of the device as it is
    found = forecast(scenario)
    effects, total = [], 0.0
    for number in numbers(asked):
        up, down = (seconds_with(scenario, asked, {number: 1.0 + h}) for h in (STEP, -STEP))
        slope = math.log(up / down) / math.log((1.0 + STEP) / (1.0 - STEP))
        if abs(slope) < LEAST:
            continue
        if number.unit != "W":
            total += slope if number.rate else -slope
        better = seconds_with(scenario, asked, {number: 2.0 if number.rate else 0.5})
        effects.append(Effect(*number, slope, found.step_time_s - better))
    effects.sort(key=lambda e: -abs(e.elasticity))
    return Sensitivity(found, tuple(effects), total, (OFFLOADED,) if scenario.offload else ())


def together(scenario: Scenario, factor: float) -> float:
    """Step time [s] with all rates times a factor, and all latencies divided by it."""
    asked = resolve(scenario)._replace(rank=None)  # its seconds are of the device as it is
    varied = [n for n in numbers(asked) if n.unit != "W"]
    every = {n: factor if n.rate else 1.0 / factor for n in varied}
    return seconds_with(scenario, asked, every)


def seconds_with(scenario: Scenario, asked: Asked, factors: Mapping[Number, float]) -> float:
    """Step time [s] with numbers times their factors."""
    figures: dict[str, str | float] = {
        n.name: f"{n.value * x!r} {n.unit}"
        for n, x in factors.items()
        if n.unit in RATES and n.value is not None
    }
    by_name = {n.name: x for n, x in factors.items()}
    if figures:
        asked = asked._replace(device=hwdb.device(scenario.device, {**scenario.set, **figures}))
    asked = _with_links(_with_host(asked, by_name), by_name)
    latency = by_name.get(KERNELS, 1.0)
    with (
        constants.scaled(dict.fromkeys(_seconds_of_kernels(), latency)),
        collective_constants.slower(by_name.get(COLLECTIVES, 1.0)),
    ):
        return step_seconds(asked)


def _with_host(asked: Asked, factors: Mapping[str, float]) -> Asked:
    stack = asked.recipe.stack
    changed = {key: getattr(stack, key) * factors.get(HOST[key], 1.0) for key in HOST}
    recipe = msgspec.structs.replace(asked.recipe, stack=msgspec.structs.replace(stack, **changed))
    return asked._replace(recipe=recipe)


def _with_links(asked: Asked, factors: Mapping[str, float]) -> Asked:
    if asked.layout is None:
        return asked
    fabric = fabric_of(asked.system, asked.device, asked.layout.devices)
    levels = tuple(
        level._replace(bandwidth=level.bandwidth * factors.get(link_name(level), 1.0))
        for level in fabric.levels
    )
    return asked._replace(fabric=fabric._replace(levels=levels))


def link_name(level: Level) -> str:
    """The name of the bandwidth of a level of the network."""
    return f"link bandwidth: {level.name}"


def _seconds_of_kernels() -> list[str]:
    """Constants of kernels.toml that are seconds."""
    return [name for name, c in constants.constants().items() if c.unit == "s"]


def numbers(asked: Asked) -> list[Number]:
    """The numbers that a step can depend on."""
    found = [Number(key, unit, value, True) for key, unit, value in _figures(asked.device)]
    if asked.layout is not None:
        found = [n for n in found if not n.name.startswith("scale_up.")]
        fabric = fabric_of(asked.system, asked.device, asked.layout.devices)
        found += [Number(link_name(x), LINK, x.bandwidth, True) for x in fabric.levels]
        found.append(Number(COLLECTIVES, "s", None, False))
    found.append(Number(KERNELS, "s", None, False))
    stack = asked.recipe.stack
    return found + [
        Number(name, "s", getattr(stack, key), False)
        for key, name in HOST.items()
        if getattr(stack, key)
    ]


def _figures(device: Device) -> list[tuple[str, str, float]]:
    """Key, unit and value of the device's figures that are rates and that forecasts read."""
    unread = SHOWN_ONLY[Device] | CROSSCHECK_ONLY
    found = []
    for key, unit in figure_keys().items():
        value: Any = device
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        read = key not in unread and key != "power.chip_tdp"  # what the silicon leaks, no limit
        if unit in RATES and read and value is not None:
            found.append((key, unit, float(value)))
    return found
