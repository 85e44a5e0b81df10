"""A forecast step as a timeline: op after op on one device, or micro-batch after micro-batch over
pipeline stages.
"""

from __future__ import annotations

import itertools

from roofcast.simulator.forecast.chain import forecast, placed
from roofcast.simulator.forecast.resolve import Asked, resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.pipeline.replay import Event, replay
from roofcast.simulator.work.step import Step, trace


def timeline(scenario: Scenario) -> tuple[Event, ...]:
    """Events of one step; the last ends when the forecast step does."""
    asked = resolve(scenario)
    if asked.layout is not None:
        return _over_stages(asked)
    return _on_one_device(forecast(scenario), trace(asked.model, asked.recipe))


def _on_one_device(whole: Forecast, step: Step) -> tuple[Event, ...]:
    """Ops in forward order, in backward order, then the update; repeated layers one by one."""
    rows = {layer.name: layer for layer in whole.layers}
    blocks = [list(nodes) for _, nodes in itertools.groupby(step.nodes, key=lambda n: n.layer)]
    events: list[Event] = []
    clock = 0.0
    for phase, order in (("forward", blocks), ("backward", blocks[::-1]), ("update", blocks)):
        for nodes in order:
            once = phase == "update" or not nodes[0].layer
            repeats = 1 if once else nodes[0].count
            for i in range(repeats):
                index = i if phase == "forward" else repeats - 1 - i
                for node in nodes if phase != "backward" else nodes[::-1]:
                    row = rows[node.name]
                    part = node.count / row.count / repeats
                    seconds = getattr(row, f"{phase}_s") * part
                    if seconds > 0:
                        name = f"{node.name} [{index}]" if repeats > 1 else node.name
                        events.append(Event(0, phase, name, clock, seconds))
                        clock += seconds
    return tuple(events)


def _over_stages(asked: Asked) -> tuple[Event, ...]:
    """The schedule replayed, then the exposed reduction of gradients, then the update, on every
    stage.
    """
    layout, outcome = asked.layout, placed(asked).outcome
    assert layout is not None, "several devices have a layout"
    pipe = outcome.pipe
    run = replay(pipe.schedule, pipe.stages, layout.pp, layout.vpp, layout.micro_batches, pipe.hop)
    events, clock = list(run.events), run.total
    for name, seconds in (("gradients", pipe.reducing), ("optimizer", outcome.update_s)):
        if seconds > 0:
            events += [Event(stage, "compute", name, clock, seconds) for stage in range(layout.pp)]
        clock += seconds
    return tuple(events)
