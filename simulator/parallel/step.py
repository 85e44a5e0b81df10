"""A step over several devices: one rank's units -> pipeline stages -> the whole step, with what is
exposed and held.

Layers are dealt to pipeline stages, the schedule joins stages and micro-batches, gradients are
reduced, weights updated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.simulator.parallel.fabric import Fabric
from roofcast.simulator.parallel.holdings import Rank, alone, rank
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.pipeline.replay import replay
from roofcast.simulator.parallel.pipeline.schedule import Stages, pipeline
from roofcast.simulator.parallel.stages import Passes, passes, stages, units
from roofcast.simulator.parallel.traffic import (
    Cost,
    Placement,
    crossing,
    joined,
    network,
    reduction,
)
from roofcast.simulator.times import offload as host_memory
from roofcast.simulator.times.dispatch import between_steps
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step

SPLIT_BACKWARD = ("zb-h1", "zb-v", "dualpipe")
WEIGHT_GRADIENTS = 0.4  # of a transformer layer's backward: half of its products, little else


class Pipe(NamedTuple):
    """What the schedule was asked, for a replay of it, and what follows it [s]."""

    schedule: str
    stages: Stages
    hop: float
    reducing: float  # exposed


class ParallelStep(NamedTuple):
    """A step over several devices."""

    step_s: float
    update_s: float
    between_s: float  # of these, what the host needs between steps
    bubble: float  # share of the step that stages wait for each other
    # seconds that the busiest stage computes, its traffic and its host's waits with it
    computing: float
    alike: float  # the same where all stages had as much to do
    passing: float  # of these, what nothing hides of the traffic inside the model
    exposed: dict[str, float]  # seconds by kind of traffic that nothing hides
    sent: dict[str, float]  # bytes by kind, one rank and step
    ranks: tuple[Rank, ...]
    pipe: Pipe


def over_devices(
    step: Step, times: OpTimes, device: Device, layout: Layout, fabric: Fabric
) -> ParallelStep:
    """Step of one rank and micro-batch, layout, fabric -> the whole step."""
    x, at = layout, Placement(step, device, layout, network(layout, fabric))
    us = units(at, times)
    run = passes(us, at)
    dealt = stages(us, x)
    f, b = (
        np.array([sum(side[u] for u in s) for s in dealt]) for side in (run.forward, run.backward)
    )
    dense, expert = (
        np.array([sum(getattr(us[u], what) for u in s) for s in dealt])
        for what in ("dense", "expert")
    )
    fullest = (dense + expert).max()
    handed = max((block.carried for block in step.blocks), default=0.0)
    schedule = x.schedule if x.pp > 1 else "none"
    hop = crossing(at, handed, schedule)
    ran = pipeline(schedule, ends(schedule, f, b), x.pp, x.vpp, x.micro_batches, hop.seconds)
    if schedule in SPLIT_BACKWARD:  # their closed forms are approximate: replayed
        ran = ran._replace(
            total=replay(
                schedule, ends(schedule, f, b), x.pp, x.vpp, x.micro_batches, float(hop.seconds)
            ).total
        )
    update = updating(at, max(sum(us[u].update for u in s) for s in dealt), fullest)
    reduced = reduction(at, dense.max(), expert.max())
    whole = joined(ran.total, reduced.seconds, at.hide["dp"])
    exposed, sent = _by_kind(
        at,
        run,
        Cost(whole - ran.total, reduced.bytes),
        Cost(ran.exposed_p2p, hop.bytes),
        Cost(update, fullest),
    )
    between = between_steps(step.recipe.stack, device, constants())
    bubble = (
        max(float(ran.bubble * ran.total / (whole + update + between)), 0.0) if x.pp > 1 else 0.0
    )
    pipe = Pipe(schedule, ends(schedule, f, b), float(hop.seconds), float(whole - ran.total))
    # of a rank: both directions' parts
    each = (f + b + (f + b)[::-1]) / 2.0 if x.schedule == "dualpipe" and x.pp > 1 else f + b
    busiest, alike = (float(stage * x.micro_batches) for stage in (each.max(), each.mean()))
    passing = float(sum(run.exposed.values()) * x.micro_batches / x.pp)
    step_s, ranks = float(whole + update) + between, _ranks(at, us, dealt)
    return ParallelStep(
        step_s, float(update), between, bubble, busiest, alike, passing, exposed, sent, ranks, pipe
    )


def _by_kind(
    at: Placement, run: Passes, reduced: Cost, handed: Cost, updated: Cost
) -> tuple[dict[str, float], dict[str, float]]:
    """Exposed seconds and sent bytes of one rank's step, by kind of traffic: what passes send, the
    reduction of gradients, what one stage hands to the next, and an optimizer with the host
    (`updated` counts its weights, not bytes).
    """
    x, width = at.layout, at.step.weight_width
    exposed, sent = (
        {k: float(v * x.micro_batches / x.pp) for k, v in side.items()}
        for side in (run.exposed, run.sent)
    )
    if reduced.bytes > 0:
        sent["dp"], exposed["dp"] = (
            sent.get("dp", 0.0) + float(reduced.bytes),
            exposed.get("dp", 0.0) + float(reduced.seconds),
        )
    if x.pp > 1:
        sent["pp"], exposed["pp"] = (
            2 * handed.bytes * x.micro_batches * x.vpp,
            float(handed.seconds),
        )
    if "optimizer" in at.step.recipe.offload:
        exposed["offload"] = exposed.get("offload", 0.0) + float(updated.seconds)
        sent["offload"] = sent.get("offload", 0.0) + float(
            updated.bytes * 2 * width / (x.shard if x.zero else 1)
        )
    return exposed, sent


def _ranks(at: Placement, us: list, dealt: list[list[int]]) -> tuple[Rank, ...]:
    """A rank of each stage. Under DualPipe both directions run at once: each rank holds a part of
    either.
    """
    x = at.layout
    if x.devices == x.micro_batches == 1:
        return (alone(sum(u.count for u in us), at),)
    if x.schedule == "dualpipe" and x.pp > 1:
        dealt = [s + dealt[x.pp - 1 - i] for i, s in enumerate(dealt)]
    return tuple(rank(i, s, us, at) for i, s in enumerate(dealt))


def ends(schedule: str, f, b) -> Stages:
    """Stages as the schedule takes them: a middle one, the slowest, and what the first and the last
    take beyond it.
    """
    w = WEIGHT_GRADIENTS * b if schedule in SPLIT_BACKWARD else 0.0 * b
    inner = slice(1, -1) if len(f) > 2 else slice(None)
    mid = [x[inner].max() for x in (f, b - w, w)]
    if len(f) == 1:
        return Stages(*mid)
    return Stages(
        *mid, *(tuple(x[i] - m for x, m in zip((f, b - w, w), mid, strict=True)) for i in (0, -1))
    )


def updating(at: Placement, seconds, weights):
    """Seconds of the optimizer on the fullest stage's weights, which alone take `seconds`; its
    share of them where states are sharded. Broadcasts over layouts.
    """
    x, stack = at.layout, at.step.recipe.stack
    ranks = np.where(np.greater(x.zero, 0), x.shard, 1)
    if "optimizer" in at.step.recipe.offload:
        width = stack.gradient_bytes if stack.master else at.step.weight_width
        return host_memory.update_seconds(weights, at.step, at.device, width) / ranks
    return seconds / ranks
