"""The whole chain: Scenario -> Model -> Step -> times, memory -> Forecast. The only file that knows
every stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.simulator import models
from roofcast.simulator.forecast import layouts
from roofcast.simulator.forecast.assemble import assemble
from roofcast.simulator.forecast.interval import with_interval
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.memory import Held, held
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.times import roofline
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe, Step, of_one_batch, trace
from roofcast.simulator.work.traced import Parallel

if TYPE_CHECKING:
    from roofcast.simulator.parallel.step import ParallelStep

ANY_BATCH = 2**24  # samples; where as many fit, memory does not limit the batch


class Placed(NamedTuple):
    """One micro-batch on one rank of a layout, and the step over all devices."""

    layout: Layout
    step: Step
    times: OpTimes
    outcome: ParallelStep
    assumptions: list[str]


def forecast(scenario: Scenario) -> Forecast:
    """Forecast one step of a scenario, and the run where its length is given."""
    scenario, device, model = prepared(scenario)
    recipe, assumptions = recipe_of(scenario, model, device)
    if layouts.is_parallel(scenario):
        return over_devices(scenario, model, device, recipe, assumptions)
    step = of_one_batch(trace(model, recipe))
    times = roofline.time_all(step, device)
    memory = _held(step, device)
    assumptions += step.said
    found = assemble(scenario, device, model, step, times, memory, assumptions)
    return with_interval(found, device, step)


def _held(step: Step, device: hwdb.Device) -> Held:
    """Memory at peak on one device; a CPU has no context to hold."""
    stack = step.recipe.stack
    return held(step, stack.framework_bytes if device.kind != "cpu" else 0.0, stack.slack)


def prepared(scenario: Scenario) -> tuple[Scenario, hwdb.Device, Model]:
    """Device and model of a scenario; a traced module's own batch, and the devices of a system,
    where none were given.
    """
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    if scenario.batch is None and model.batch:
        scenario = msgspec.structs.replace(scenario, batch=model.batch)
    system = _system(scenario, device)
    if system is not None and scenario.devices is None and scenario.dp is None:
        scenario = msgspec.structs.replace(scenario, devices=int(system.count))
    return scenario, device, model


def over_devices(
    scenario: Scenario, model: Model, device: hwdb.Device, recipe: Recipe, assumptions: list[str]
) -> Forecast:
    """The chain over several devices: one rank's micro-batch, then stages, schedule, reduction."""
    # one device does without
    from roofcast.simulator.forecast.assemble_parallel import assemble_parallel

    at = placed(scenario, model, device, recipe)
    micro = msgspec.structs.replace(recipe, batch=at.layout.micro_batch)
    whole = trace(model, micro, Parallel(stages=at.layout.parallel.stages))
    found = assemble_parallel(
        scenario,
        device,
        model,
        recipe,
        at.layout,
        whole,
        at.step,
        at.times,
        at.outcome,
        [*assumptions, *at.assumptions, *at.step.said],
    )
    return with_interval(found, device, at.step)


def placed(scenario: Scenario, model: Model, device: hwdb.Device, recipe: Recipe) -> Placed:
    """Layout, one rank's step and times, and the step over all devices."""
    from roofcast.simulator.parallel import step as parallel
    from roofcast.simulator.parallel.fabric import fabric_of

    system = _system(scenario, device)
    layout, assumptions = layouts.layout_of(scenario, model, recipe.batch, recipe.size)
    fabric = fabric_of(system, device, layout.devices)
    micro = msgspec.structs.replace(recipe, batch=layout.micro_batch)
    step = trace(model, micro, layout.parallel)
    layouts.check(layout, step, model.name)
    times = roofline.time_all(step, device)
    outcome = parallel.over_devices(step, times, device, layout, fabric)
    return Placed(layout, step, times, outcome, [*assumptions, *fabric.assumptions])


def _system(scenario: Scenario, device: hwdb.Device) -> hwdb.System | None:
    """The system that was asked for, if it is made of this device."""
    if scenario.system is None or isinstance(scenario.system, hwdb.System):
        return scenario.system
    system = hwdb.system(scenario.system)
    if system.device not in (device.id, device.base) and device.id in hwdb.devices():
        raise BadInput(
            f"system {scenario.system} is made of {system.device}, not of {device.id}; use --on"
            f" {system.device}"
        )
    return system


def largest_batch(scenario: Scenario) -> int | None:
    """The largest batch that fits the device at peak, all else equal [samples]; None where the
    capacity is unknown. Raises BadInput where any batch fits.

    Over several devices the micro-batch grows, and the number of micro-batches stays.
    """
    device = hwdb.device(scenario.device, scenario.set)
    if device.memory.capacity is None:
        return None
    if layouts.is_parallel(scenario):
        layout = forecast(scenario).layout
        assert layout is not None, "several devices have a layout"
        parts = layout.micro_batches * layout.dp

        def fits_all(micro: int) -> bool:
            asked = msgspec.structs.replace(scenario, batch=micro * parts, micro_batch=micro)
            return bool(forecast(asked).memory.fits)

        return parts * _most(fits_all, scenario)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)

    def fits(batch: int) -> bool:
        recipe, _ = recipe_of(msgspec.structs.replace(scenario, batch=batch), model, device)
        return _held(trace(model, recipe), device).total <= device.memory.capacity

    return _most(fits, scenario)


def with_largest_batch(found: Forecast, scenario: Scenario) -> Forecast:
    """The forecast with the largest batch that fits; None where capacity does not limit it."""
    if found.memory.capacity_bytes is None:
        return found
    try:
        most = largest_batch(scenario)
    except BadInput:  # any batch fits
        most = None
    memory = msgspec.structs.replace(found.memory, largest_batch=most)
    return msgspec.structs.replace(found, memory=memory)


def _most(fits: Callable[[int], bool], scenario: Scenario) -> int:
    """The largest number that fits; 0 where not even 1 does."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
        if high > ANY_BATCH:
            raise BadInput(
                f"{scenario.model}: any batch fits {scenario.device}; memory does not limit it"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
