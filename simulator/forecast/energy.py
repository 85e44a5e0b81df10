"""Joules and watts of a step: those of its kernels, and of the board while it waits or sends."""

from __future__ import annotations

from typing import Any

import numpy as np

from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.campaign import energy as campaign
from roofcast.simulator.campaign.energy import Place, unmodelled
from roofcast.simulator.forecast.run import Run
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.step import ParallelStep
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step

SHARE = "share of TDP"


class Drawn(NamedTuple):
    """What one device draws in a step."""

    joules: float | None
    clock: float | None  # mean over its kernels, weighted by their time, as a share of the highest
    scope: str  # board, or "share of TDP" where the device's power is not modelled


def of_one(device: Device, times: OpTimes, step_s: float) -> Drawn:
    """A step on one device: its kernels, and the board at rest in between."""
    return _drawn(device, times, np.ones(len(times.seconds)), step_s, 0.0)


def of_rank(
    device: Device, step: Step, times: OpTimes, layout: Layout, outcome: ParallelStep
) -> Drawn:
    """A step on a device of a layout, the mean over pipeline stages: kernels of its micro-batches
    and its part of the update; exposed communication; the board at rest while it waits.
    """
    sharded = layout.shard if layout.zero else 1
    update = 0.0 if "optimizer" in layout.offload else 1.0 / (layout.pp * sharded)
    runs = np.array([update if k.phase == "update" else outcome.repeats for k in step.kernels])
    exposed = sum(s for kind, s in outcome.exposed.items() if kind != "offload")
    return _drawn(device, times, runs, outcome.step_s, exposed)


def _drawn(
    device: Device, times: OpTimes, runs: np.ndarray, step_s: float, exposed_s: float
) -> Drawn:
    """runs: how often each kernel runs; exposed_s: communication that nothing hides [s]."""
    board = times.board
    if board is None or times.joules is None or times.clock is None:
        watts, _ = unmodelled(device)
        return Drawn(watts * step_s if watts else None, None, SHARE if watts else "")
    busy = times.seconds * runs
    total = float(busy.sum())
    # kernels of ranks that hide each other's launches may add up to more than the step
    fitted = min(step_s / max(total, 1e-30), 1.0)
    rest = max(step_s - total, 0.0)
    sending = min(exposed_s, rest)
    joules = fitted * float((times.joules * runs).sum()) + board.idle * (rest - sending)
    joules += min(board.communicating, board.limit) * sending
    clock = float((times.clock * busy).sum() / total) if total > 0 else 1.0
    return Drawn(joules, clock, "board")


def said(device: Device, drawn: Drawn, run: Run) -> tuple[str, ...]:
    """Where the power of a device is not modelled, and what node and site draw, as assumptions: if
    energy of the run is shown, or a limit was set.
    """
    lines = []
    shown = bool(run.steps) or run.placed
    if drawn.scope == SHARE:
        if shown:
            lines.append(
                f"{device.id}: its power is not modelled by kernel: {unmodelled(device)[1]} assumed"
            )
        if device.power.cap:
            lines.append(
                f"{device.id}: its power is not modelled, so that the limit changes no time"
            )
    if shown and drawn.joules is not None:
        lines += campaign.said(run.place)
    return tuple(lines)


def fields(
    drawn: Drawn, step_s: float, steps: float | None, devices: int, place: Place
) -> dict[str, Any]:
    """Fields of a Forecast: watts of a device, joules of a step and of the run on all devices."""
    one = drawn.joules
    step = one * devices if one is not None else None
    return {
        "power_w": one / step_s if one is not None else None,
        "power_scope": drawn.scope,
        "clock_share": drawn.clock,
        "step_energy_j": step,
        "energy_j": step * steps if step is not None and steps else None,
        **campaign.fields(place, one / step_s if one is not None else None, step_s, steps, devices),
    }
