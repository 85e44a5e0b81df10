"""Lower bounds of a run on a device, without a search: a device that cannot meet a constraint, or
cannot beat what was found, is not searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np

from roofcast.hwdb.constants import kernels
from roofcast.hwdb.records import Device
from roofcast.simulator.campaign.checkpoints import state_bytes
from roofcast.simulator.campaign.energy import unmodelled
from roofcast.simulator.choose.sieve import Traces, key_of
from roofcast.simulator.choose.space import IMAGES, TOKENS
from roofcast.simulator.forecast.lengths import at_longest, varied_of
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.forecast.run import run_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.power import board_of, clocks, joules_at
from roofcast.simulator.times.roofline import clocked, time_all
from roofcast.simulator.work.step import Step, trace

SMALL = {"image": 32, "table": 1024}  # samples of a small micro-batch


class Floor:
    """Bounds of a run on devices of one kind."""

    def __init__(
        self,
        steps: float,
        batch: int,
        traced: Sequence[Step],
        device: Device,
        traces: Traces,
        samples: float | None = None,
    ) -> None:
        self.steps, self.batch = steps, batch
        self.samples = float(batch) if samples is None else samples  # that a step reads
        self._traced, self._device, self._grouped = traced, device, traces.grouped
        self.recipe = traced[-1].recipe
        held = traces.held_on(traced[-1], device)
        # weights, gradients and states, shared by all devices at best
        self.weights_bytes = float(held.parameters + held.gradients + held.optimizer)
        # what stays where states lie in host memory: weights without their gradients
        self.least_bytes = float(held.parameters)
        self.state_bytes = state_bytes(traced[-1]) if traced[-1].recipe.mode == "train" else None

    @cached_property
    def sample_s(self) -> float:
        """Device seconds of a sample: its kernels alone, whole on one device."""
        found = []
        for step in self._traced:
            seconds = time_all(step, self._device, grouped=self._grouped, bounds=False).seconds
            computing = np.array([k.phase != "update" for k in step.kernels])
            found.append(float(seconds[computing].sum()) / step.recipe.batch)
        return min(found)

    @cached_property
    def step_j(self) -> float | None:
        """Joules of the boards in a step, at least: each kernel at its most efficient clock, whole
        on one device, and no board that waits; None where no power is known.
        """
        found = [_least_joules(step, self._device) for step in self._traced]
        known = [j / s.recipe.batch for j, s in zip(found, self._traced, strict=True) if j]
        return self.batch * min(known) if known else None

    def run_s(self, devices: int) -> float:
        """Seconds of the run if all devices compute all the time."""
        return self.steps * self.batch * self.sample_s / devices

    def fits(self, devices: int, capacity: float | None) -> bool:
        """Whether weights, gradients and states could fit, sharded over all devices."""
        return capacity is None or self.weights_bytes / devices <= capacity

    def could_fit(self, devices: int, capacity: float | None) -> bool:
        """Whether weights alone could, with the rest in host memory."""
        return capacity is None or self.least_bytes / devices <= capacity


def floor(s: Scenario, names: Named, traces: Traces) -> Floor:
    """The bounds of a scenario with a batch; of one step where the run has no length. Raises
    BadInput where the device cannot run it.
    """
    varied, s = varied_of(s), at_longest(s)
    recipe, _ = recipe_of(s, names.model, names.device)
    run = run_of(s, recipe, names.model, names.device, varied=varied)
    size = recipe.size if varied is None else varied.size(1)
    found = []
    for micro in micros(names.model.takes, recipe.size):
        one = msgspec.structs.replace(recipe, batch=micro, size=size)
        key = (names.device.kind, key_of(one))
        if key not in traces:
            traces[key] = trace(names.model, one)
        found.append(traces[key])
    steps = run.steps if run.steps is not None else 1.0
    return Floor(steps, recipe.batch, found, names.device, traces, run.samples)


def _least_joules(step: Step, device: Device) -> float | None:
    """Joules of the kernels of a step but its update, each at the clock that takes least."""
    c = kernels()
    board = board_of(device, c.power)
    computing = np.array([k.phase != "update" for k in step.kernels])
    if board is None:
        watts = unmodelled(device)[0]
        return watts * float(time_all(step, device).seconds[computing].sum()) if watts else None
    count = np.array([k.count for k in step.kernels], dtype=float)
    at = clocked(step, device, board, clocks(c.power))
    joules = joules_at(clocks(c.power)[:, None], at.seconds, at.energy, board, c.power)
    return float((joules.min(axis=0) * count)[computing].sum())


def micros(takes: str, size: int | None) -> tuple[int, ...]:
    """Micro-batches that are timed: the largest of a search, which is the most efficient, and one
    whose working set is small.
    """
    if takes == "sequence":
        return tuple(sorted({1, max(TOKENS // (size or 1), 1)}))
    return tuple(sorted({SMALL[takes], max(IMAGES, SMALL[takes])}))
