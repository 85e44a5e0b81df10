"""A step over several devices: the units of one rank -> pipeline stages -> the whole step, with
what is exposed and held.

Layers are distributed over pipeline stages, the schedule joins stages and micro-batches, gradients
are reduced, weights updated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.simulator.parallel.fabric import Fabric
from roofcast.simulator.parallel.holdings import Rank, alone, rank
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.pipeline.replay import replay
from roofcast.simulator.parallel.pipeline.schedule import Stages, pipeline
from roofcast.simulator.parallel.stages import (
    Passes,
    Unit,
    exchanged,
    passes,
    repeated,
    stages,
    units,
)
from roofcast.simulator.parallel.traffic import (
    Cost,
    Placement,
    crossing,
    joined,
    network,
    reduction,
    sent_bytes,
)
from roofcast.simulator.times import offload as host_memory
from roofcast.simulator.times.dispatch import between_steps, dispatch, program
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step

OF_OPS = ("tp", "cp", "ep", "etp")
"""Kinds of traffic that an op sends; the others belong to stages and weights."""
SPLIT_BACKWARD = ("zb-h1", "zb-v", "dualpipe")
# weight gradients as a fraction of a transformer layer's backward: half of its products and little
# else; assumed
WEIGHT_GRADIENTS = 0.4


class Pipe(NamedTuple):
    """What the schedule was given, for a replay of it, and what follows it [s]."""

    schedule: str
    stages: Stages
    hop: float
    reducing: float  # exposed


class ParallelStep(NamedTuple):
    """A step over several devices."""

    step_s: float
    update_s: float  # part of step_s
    between_s: float  # part of step_s: host time between steps
    bubble: float  # fraction of the step that the slowest stage waits for others, sends apart
    computing: float  # seconds of the slowest stage, with its traffic and its host's waits
    alike: float  # the same where all stages had as much to do
    passing: float  # part of `alike`: exposed traffic inside the model
    exposed: dict[str, float]  # exposed communication by kind of traffic [s]
    sent: dict[str, float]  # by kind, one rank and step [bytes]
    sent_by_op: dict[str, float]  # by named op, one device and step [bytes]
    repeats: float  # micro-batches of the whole model that one device computes in a step
    host_s: float  # host time of one device to dispatch a step
    lower_bound_s: float  # printed roofline of one device's share
    ranks: tuple[Rank, ...]
    pipe: Pipe


def over_devices(
    step: Step, times: OpTimes, device: Device, layout: Layout, fabric: Fabric
) -> ParallelStep:
    """The whole step, from the step and times of one rank and micro-batch."""
    x, at = layout, Placement(step, device, layout, network(layout, fabric))
    rows = units(at, times)
    run = passes(rows, at)
    members = stages(rows, x, step.recipe.stack.implementations.get("stages") == "balanced")
    trained = [u.trained for u in rows], [u.trained_expert for u in rows]
    f, b, dense, expert = (
        np.array([sum(column[u] for u in stage) for stage in members])
        for column in (run.forward, run.backward, *trained)
    )
    fullest = (dense + expert).max()
    schedule = x.schedule if x.pp > 1 else "none"
    handed = max((block.carried for block in step.blocks), default=0.0)
    hop = crossing(at, handed, schedule)
    ends_of = ends(schedule, f, b)
    ran = pipeline(schedule, ends_of, x.pp, x.vpp, x.micro_batches, hop.seconds)
    total: np.ndarray | float = ran.total
    if schedule in SPLIT_BACKWARD:  # their closed forms are approximate
        hop_s = float(hop.seconds)
        total = replay(schedule, ends_of, x.pp, x.vpp, x.micro_batches, hop_s).total
    update = updating(at, max(sum(rows[u].update for u in stage) for stage in members), fullest)
    reduced = reduction(at, dense.max(), expert.max())
    whole = joined(total, reduced.seconds, at.hide["dp"])
    repeats = x.micro_batches / x.pp
    # under DualPipe a rank has parts of both directions
    each = (f + b + (f + b)[::-1]) / 2.0 if x.schedule == "dualpipe" and x.pp > 1 else f + b
    computing = float(each.max() * x.micro_batches)
    idle = np.maximum(total - computing, 0.0)  # of the slowest stage: sends, and the bubble
    sends = np.minimum(ran.exposed_p2p, idle)
    waits = Cost(whole - total, reduced.bytes), Cost(sends, hop.bytes)
    exposed, sent = _by_kind(at, run, *waits, Cost(update, fullest))
    between = float(between_steps(step.recipe.stack, device, constants(), whole + update))
    bubble = float((idle - sends) / (whole + update + between)) if x.pp > 1 else 0.0
    return ParallelStep(
        step_s=float(whole + update) + between,
        update_s=float(update),
        between_s=between,
        bubble=bubble,
        computing=computing,
        alike=float(each.mean() * x.micro_batches),
        passing=float(sum(run.exposed.values()) * x.micro_batches / x.pp),
        exposed=exposed,
        sent=sent,
        sent_by_op=_sent_by_op(step, x, repeats),
        repeats=repeats,
        host_s=_host(step, device, repeats),
        lower_bound_s=_lower_bound(step, times, x, repeats),
        ranks=_ranks(at, rows, members),
        pipe=Pipe(schedule, ends_of, float(hop.seconds), float(whole - total)),
    )


def _by_kind(
    at: Placement, run: Passes, reduced: Cost, handed: Cost, updated: Cost
) -> tuple[dict[str, float], dict[str, float]]:
    """Exposed seconds and sent bytes of one rank's step, by kind of traffic.

    reduced: the reduction of gradients; handed: what one stage sends to the next; updated: an
    optimizer on the host, with its weights instead of bytes.
    """
    x, width = at.layout, at.step.weight_width
    exposed, sent = (
        {kind: float(v * x.micro_batches / x.pp) for kind, v in side.items()}
        for side in (run.exposed, run.sent)
    )
    if reduced.bytes > 0:
        sent["dp"] = sent.get("dp", 0.0) + float(reduced.bytes)
        exposed["dp"] = exposed.get("dp", 0.0) + float(reduced.seconds)
    if x.pp > 1:
        sent["pp"] = 2 * handed.bytes * x.micro_batches * x.vpp
        exposed["pp"] = float(handed.seconds)
    if "optimizer" in at.step.recipe.offload:
        copied = updated.bytes * 2 * width / (x.shard if x.zero else 1)
        exposed["offload"] = exposed.get("offload", 0.0) + float(updated.seconds)
        sent["offload"] = sent.get("offload", 0.0) + float(copied)
    return exposed, sent


def _ranks(at: Placement, rows: list[Unit], members: list[list[int]]) -> tuple[Rank, ...]:
    """A rank of each stage. Under DualPipe both directions run at once, and each rank holds a part
    of either.
    """
    x = at.layout
    if x.devices == x.micro_batches == 1:
        return (alone(sum(u.layers for u in rows), at),)
    if x.schedule == "dualpipe" and x.pp > 1:
        members = [s + members[x.pp - 1 - i] for i, s in enumerate(members)]
    return tuple(rank(i, s, rows, at) for i, s in enumerate(members))


def _host(step: Step, device: Device, repeats: float) -> float:
    """Seconds the host of one device needs to dispatch a step: every micro-batch's launches and
    exchanges, and the update's once.
    """
    launches = dispatch(step, device, constants())
    of_update = np.array([k.phase == "update" for k in step.kernels])
    exchanges = sum(seconds for _, _, seconds in exchanged(step, device))
    update = launches[of_update].sum()
    launching = program(step.recipe.stack, device, constants())
    return float((launches.sum() - update + exchanges) * repeats + update + launching)


def _lower_bound(step: Step, times: OpTimes, layout: Layout, repeats: float) -> float:
    """The printed roofline of one device's share: its micro-batches, and its share of the
    update.
    """
    update = sum(t for k, t in zip(step.kernels, times.lower, strict=True) if k.phase == "update")
    sharded = layout.shard if layout.zero else 1
    mine = 0.0 if "optimizer" in layout.offload else update / (layout.pp * sharded)
    return float((times.lower.sum() - update) * repeats + mine)


def _sent_by_op(step: Step, layout: Layout, repeats: float) -> dict[str, float]:
    """Bytes that one device sends in a step for each named op; what recomputation runs again, it
    sends again.
    """
    sent: dict[str, float] = {}
    again = repeated(step)
    for tr in step.traffic:
        if tr.group in OF_OPS:
            rerun = again.get(tr.node, 0.0) if tr.phase == "forward" else 0.0
            times = tr.count * repeats * (1.0 + rerun)
            size = sent_bytes(tr.kind, tr.bytes, getattr(layout, tr.group))
            name = step.nodes[tr.node].name
            sent[name] = sent.get(name, 0.0) + float(size * times)
    return sent


def ends(schedule: str, forward: np.ndarray, backward: np.ndarray) -> Stages:
    """Stages as the schedule takes them: the slowest middle stage, and the excess of the first and
    the last over it. forward, backward: seconds of each stage.
    """
    weights = WEIGHT_GRADIENTS * backward if schedule in SPLIT_BACKWARD else 0.0 * backward
    passes = (forward, backward - weights, weights)
    inner = slice(1, -1) if len(forward) > 2 else slice(None)
    f, b, w = (x[inner].max() for x in passes)
    if len(forward) == 1:
        return Stages(f, b, w)
    first, last = (tuple(x[i] - m for x, m in zip(passes, (f, b, w), strict=True)) for i in (0, -1))
    return Stages(f, b, w, first, last)


def updating(at: Placement, seconds: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """Seconds of the optimizer on the stage with the most weights. Broadcasts over layouts.

    seconds: what one device needs for all of them; with sharded states each rank updates its part.
    """
    x, stack = at.layout, at.step.recipe.stack
    ranks = np.where(np.greater(x.zero, 0), x.shard, 1)
    if "optimizer" in at.step.recipe.offload:
        width = stack.gradient_bytes if stack.master else at.step.weight_width
        return host_memory.update_seconds(weights, at.step, at.device, width) / ranks
    return np.asarray(seconds) / ranks
