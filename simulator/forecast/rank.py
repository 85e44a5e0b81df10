"""One rank's micro-batch under a layout: its step with the seconds of its kernels, and the
micro-batch where none was given.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.records import Device, System
from roofcast.simulator.forecast.memory_error import band
from roofcast.simulator.parallel.holdings import share
from roofcast.simulator.parallel.layout import Layout, check
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.stages import Unit, units
from roofcast.simulator.parallel.step import dealt, peak_bytes, unlike
from roofcast.simulator.parallel.traffic import Placement, network
from roofcast.simulator.times import roofline
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe, Step, trace


class Traced(NamedTuple):
    """One rank's step of one micro-batch, and the seconds of its kernels."""

    step: Step
    times: OpTimes


def _step(model: Model, recipe: Recipe, layout: Layout) -> Step:
    micro = msgspec.structs.replace(recipe, batch=layout.micro_batch)
    step = trace(model, micro, layout.parallel)
    check(layout, step, model.name)
    return step


class _Candidate(NamedTuple):
    """A micro-batch, and what a device holds at peak with it."""

    at: Placement
    rows: list[Unit]  # their seconds are not known yet
    peak: float  # bytes


def fitting(
    layout: Layout, model: Model, recipe: Recipe, device: Device, system: System | None
) -> tuple[Layout, Traced | None, str]:
    """The largest micro-batch that fits even where memory is as far above its forecast as measured
    runs are (`most_above`), of a rank's whole batch and the powers of two that divide it; 1 where
    none does.

    layout: without a pipeline, with the whole batch of a rank as its micro-batch. Also gives that
    rank where it was traced, and why this micro-batch, in words.
    """
    capacity, each = device.memory.limit, layout.micro_batch
    if capacity is None or each == 1:
        return layout, None, ""
    above = most_above(recipe.mode)
    most = float(capacity) / above
    fabric = fabric_of(system, device, layout.devices)

    def candidate(micro: int) -> _Candidate:
        cut = _cut(layout, micro)
        step = _step(model, recipe, cut)
        at = Placement(step, device, cut, network(cut, fabric))
        unknown = np.zeros(len(step.kernels))
        rows = units(at, OpTimes(unknown, unknown, unknown, ()))
        return _Candidate(at, rows, _peak(at, rows))

    def timed(found: _Candidate) -> Traced:
        return Traced(found.at.step, roofline.time_all(found.at.step, device))

    whole = candidate(each)
    if whole.peak <= most:
        return layout, timed(whole), ""
    powers = [2**n for n in range(1, each.bit_length()) if each % 2**n == 0 and each > 2**n]
    promising = bisect.bisect_right(powers, most, key=lambda micro: _least(whole, micro))
    for micro in reversed(powers[:promising]):
        if (found := candidate(micro)).peak <= most:
            why = f"the largest that fits even at {above:.2f} times its forecast memory"
            return found.at.layout, timed(found), why
    return _cut(layout, 1), None, f"no larger one fits at {above:.2f} times its forecast memory"


def most_above(mode: str) -> float:
    """Measured peak over forecast peak that 10 % of the runs exceed; of training where no run of
    the mode was measured.
    """
    return band(1.0, mode)[1] or band(1.0, "train")[1] or 1.0


def _cut(layout: Layout, micro: int) -> Layout:
    """A layout of one micro-batch per step, with its samples in smaller ones."""
    parts = layout.micro_batch // micro
    return msgspec.structs.replace(layout, micro_batch=micro, micro_batches=parts)


def _peak(at: Placement, rows: list[Unit]) -> float:
    how, width = at.step.recipe.recompute, at.step.weight_width
    kinds = unlike(at.layout, dealt(at, rows)).items()
    return float(peak_bytes(at, [(i, share(list(mine), rows, how, width)) for mine, i in kinds]))


def _least(whole: _Candidate, micro: int) -> float:
    """Bytes at peak if everything that a micro-batch adds shrank with its samples: copies of
    weights do not, so that a trace may need more.
    """
    part, step = micro / whole.at.layout.micro_batch, whole.at.step
    rows = [
        u._replace(kept=part * u.kept, largest=part * u.largest, inside=part * u.inside)
        for u in whole.rows
    ]
    step = step._replace(input_bytes=part * step.input_bytes)
    return _peak(whole.at._replace(step=step, layout=_cut(whole.at.layout, micro)), rows)
