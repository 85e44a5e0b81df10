"""Lower bounds of a run on a device, without a search: a device that cannot meet a constraint, or
cannot beat what was found, is not searched.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.forecast.run import run_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.memory import held_on
from roofcast.simulator.times.roofline import time_all
from roofcast.simulator.work.step import Step, trace

MICROS = {"sequence": (1, 8), "image": (32, 512), "table": (1024, 8192)}  # micro-batches timed


class Floor(NamedTuple):
    """Bounds of a run on devices of one kind."""

    steps: float
    batch: int
    sample_s: float  # device seconds of a sample: its kernels alone, whole on one device
    weights_bytes: float  # weights, gradients and states, shared by all devices at best

    def run_s(self, devices: int) -> float:
        """Seconds of the run if all devices compute all the time."""
        return self.steps * self.batch * self.sample_s / devices

    def fits(self, devices: int, capacity: float | None) -> bool:
        """Whether weights, gradients and states could fit, sharded over all devices."""
        return capacity is None or self.weights_bytes / devices <= capacity


Traces = dict[tuple, Step]  # by what a step depends on, for all devices


def floor(s: Scenario, names: Named, traces: Traces) -> Floor:
    """The bounds of a scenario with a batch and a length. Raises BadInput where the device cannot
    run it, or where the run has no length.
    """
    recipe, _ = recipe_of(s, names.model, names.device)
    steps = run_of(s, recipe, names.model, names.device).steps
    assert steps is not None, "checked where it was asked"
    per_sample, held = [], 0.0
    for micro in MICROS[names.model.takes]:
        key = (names.device.kind, recipe.precision, recipe.stack.name, micro)
        if key not in traces:
            traces[key] = trace(names.model, msgspec.structs.replace(recipe, batch=micro))
        step = traces[key]
        seconds = time_all(step, names.device).seconds
        computing = np.array([k.phase != "update" for k in step.kernels])
        per_sample.append(float(seconds[computing].sum()) / micro)
        memory = held_on(step, names.device)
        held = memory.parameters + memory.gradients + memory.optimizer
    return Floor(steps, recipe.batch, min(per_sample), float(held))
