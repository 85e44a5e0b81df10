"""The whole chain: Scenario -> Model -> Step -> times, memory -> Forecast. The only file that knows every stage."""

from __future__ import annotations

import msgspec

import hwdb
from hwdb.errors import BadInput
from simulator import layout as layouts
from simulator import models, roofline
from simulator.forecast import Forecast
from simulator.interval import with_interval
from simulator.memory import held
from simulator.model import Model
from simulator.report import assemble
from simulator.resolve import decide
from simulator.scenario import Scenario
from simulator.step import Recipe, of_one_batch, trace
from simulator.traced import Parallel


def predict(scenario=None, /, **asked) -> Forecast:
    """Forecast one step, and the run, of a scenario, or of its fields given by name; a torch module in hand comes first:

        predict(net, inputs=["64x3x32x32"], device="h100-sxm5")

    >>> round(predict(model="llama-3-8b", device="h100-sxm5", batch=1).parameters / 1e9, 2)
    8.03
    """
    if scenario is not None and not isinstance(scenario, Scenario):
        scenario = Scenario(model=scenario, **asked)
    scenario, device, model = prepared(scenario or Scenario(**asked))
    recipe, said = decide(scenario, model, device)
    if layouts.spread(scenario):
        return over_devices(scenario, model, device, recipe, said)
    step = of_one_batch(trace(model, recipe))
    times = roofline.time_all(step, device)
    memory = held(step, recipe.stack.framework_bytes if device.kind != "cpu" else 0.0, recipe.stack.slack)
    return with_interval(assemble(scenario, device, model, step, times, memory, [*said, *step.said]), device, step)


def prepared(scenario: Scenario) -> tuple[Scenario, hwdb.Device, Model]:
    """Device and model of a scenario; a traced module's own batch, and a system's devices, where none were given."""
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    if scenario.batch is None and model.batch:
        scenario = msgspec.structs.replace(scenario, batch=model.batch)
    system = _system(scenario, device)
    if system is not None and scenario.devices is None and scenario.dp is None:
        scenario = msgspec.structs.replace(scenario, devices=int(system.count))
    return scenario, device, model


def over_devices(scenario: Scenario, model: Model, device: hwdb.Device, recipe: Recipe, said: list[str]) -> Forecast:
    """The chain over several devices: one rank's micro-batch, then stages, schedule, reduction."""
    from simulator.report_spread import assemble_spread  # one device does without

    layout, step, times, outcome, more = spread_of(scenario, model, device, recipe)
    whole = trace(model, msgspec.structs.replace(recipe, batch=layout.micro_batch), Parallel(stages=layout.parallel.stages))
    forecast = assemble_spread(scenario, device, model, recipe, layout, whole, step, times, outcome, [*said, *more, *step.said])
    return with_interval(forecast, device, step)


def spread_of(scenario: Scenario, model: Model, device: hwdb.Device, recipe: Recipe):
    """Layout, one rank's step and times, and the step over all devices, with what was assumed."""
    from simulator import parallel
    from simulator.fabric import fabric_of

    system = _system(scenario, device)
    layout, said = layouts.decide(scenario, model, recipe.batch, recipe.size)
    fabric = fabric_of(system, device, layout.devices)
    step = trace(model, msgspec.structs.replace(recipe, batch=layout.micro_batch), layout.parallel)
    layouts.check(layout, step, model.name)
    times = roofline.time_all(step, device)
    return layout, step, times, parallel.spread(step, times, device, layout, fabric), [*said, *fabric.assumptions]


def _system(scenario: Scenario, device: hwdb.Device) -> hwdb.System | None:
    """The system that was asked for, if it is made of this device."""
    if scenario.system is None or isinstance(scenario.system, hwdb.System):
        return scenario.system
    system = hwdb.system(scenario.system)
    if system.device not in (device.id, device.base) and device.id in hwdb.devices():
        raise BadInput(f"system {scenario.system} is made of {system.device}, not of {device.id}; use --on {system.device}")
    return system


def largest_batch(scenario: Scenario) -> int | None:
    """The largest batch whose fullest moment fits the device, all else equal; None where the capacity is unknown.

    Over several devices micro-batches grow, and stay as many.
    """
    device = hwdb.device(scenario.device, scenario.set)
    if device.memory.capacity is None:
        return None
    if layouts.spread(scenario):
        layout = predict(scenario).layout
        parts = layout.micro_batches * layout.dp

        def fits_all(micro: int) -> bool:
            return predict(msgspec.structs.replace(scenario, batch=micro * parts, micro_batch=micro)).memory.fits

        return parts * _most(fits_all, scenario)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)

    def fits(batch: int) -> bool:
        recipe, _ = decide(msgspec.structs.replace(scenario, batch=batch), model, device)
        need = held(trace(model, recipe), recipe.stack.framework_bytes if device.kind != "cpu" else 0.0, recipe.stack.slack)
        return need.total <= device.memory.capacity

    return _most(fits, scenario)


def _most(fits, scenario: Scenario) -> int:
    """The largest number that fits; 0 where not even 1 does."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
        if high > 2**24:
            raise BadInput(f"{scenario.model}: any batch fits {scenario.device}; memory does not limit it")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
