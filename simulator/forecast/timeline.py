"""A forecast step as a timeline: op after op on one device, micro-batch after micro-batch over
pipeline stages.
"""

from __future__ import annotations

import itertools

from roofcast.simulator.forecast import layouts
from roofcast.simulator.forecast.chain import forecast, placed, prepared
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.pipeline.replay import Event, replay
from roofcast.simulator.work.step import trace


def timeline(scenario: Scenario) -> tuple[Event, ...]:
    """Events of one step; the last ends when the forecast step does."""
    scenario, device, model = prepared(scenario)
    recipe, _ = recipe_of(scenario, model, device)
    if layouts.is_parallel(scenario):
        return over_stages(scenario, model, device, recipe)
    whole, step = forecast(scenario), trace(model, recipe)
    rows = {layer.name: layer for layer in whole.layers}
    blocks = [list(nodes) for _, nodes in itertools.groupby(step.nodes, key=lambda n: n.layer)]
    events: list[Event] = []
    clock = 0.0
    for phase, order in (("forward", blocks), ("backward", blocks[::-1]), ("update", blocks)):
        for nodes in order:
            repeats = nodes[0].count if nodes[0].layer else 1
            for i in range(repeats if phase != "update" else 1):
                for node in nodes if phase != "backward" else nodes[::-1]:
                    row = rows[node.name]
                    seconds = (
                        getattr(row, f"{phase}_s")
                        * (node.count / row.count)
                        / (repeats if phase != "update" else 1)
                    )
                    if seconds > 0:
                        name = (
                            f"{node.name} [{i if phase == 'forward' else repeats - 1 - i}]"
                            if repeats > 1 and phase != "update"
                            else node.name
                        )
                        events.append(Event(0, phase, name, clock, seconds))
                        clock += seconds
    return tuple(events)


def over_stages(scenario: Scenario, model, device, recipe) -> tuple[Event, ...]:
    """The schedule replayed, then the reduction of gradients that nothing hides, then the update,
    on every stage.
    """
    at = placed(scenario, model, device, recipe)
    layout, outcome = at.layout, at.outcome
    pipe = outcome.pipe
    run = replay(pipe.schedule, pipe.stages, layout.pp, layout.vpp, layout.micro_batches, pipe.hop)
    events, clock = list(run.events), run.total
    for name, seconds in (("gradients", pipe.reducing), ("optimizer", outcome.update_s)):
        if seconds > 0:
            events += [Event(stage, "compute", name, clock, seconds) for stage in range(layout.pp)]
        clock += seconds
    return tuple(events)
