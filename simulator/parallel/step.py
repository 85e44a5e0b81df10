"""A step over several devices: the units of one rank -> pipeline stages -> the whole step, with
what is exposed and held.

Layers are distributed over pipeline stages, the schedule joins stages and micro-batches, gradients
are reduced, weights updated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.memory import held_gradient
from roofcast.simulator.parallel.dealing import counted, is_balanced, stages
from roofcast.simulator.parallel.fabric import Fabric
from roofcast.simulator.parallel.holdings import Rank, Share, alone, beside_device, holdings, rank
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.passes import Passes, passes
from roofcast.simulator.parallel.pipeline.replay import seconds
from roofcast.simulator.parallel.pipeline.schedule import Stages, in_flight, pipeline, step_time
from roofcast.simulator.parallel.reductions import copied, reduction, waited
from roofcast.simulator.parallel.stages import Unit, exchanged, in_pipeline, repeated, units
from roofcast.simulator.parallel.traffic import (
    Cost,
    Placement,
    crossing,
    filling,
    network,
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
    reducing: float  # exposed, and sends of an interleaved pipeline that fills and drains


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
    offloaded: dict[str, float]  # bytes of the fullest rank in memory of the host, and on drives
    pipe: Pipe


class Timed(NamedTuple):
    """Seconds of a step over several devices. Floats, or arrays over layouts; where a value is of
    each stage, stages are the first axis.
    """

    passes: Passes
    forward: np.ndarray  # of each stage, one micro-batch
    backward: np.ndarray
    fullest: ArrayLike  # trained weights of the stage with the most
    schedule: str
    stages: Stages  # as the schedule takes them
    hop: Cost  # a send to the next stage
    total: np.ndarray  # of the schedule
    whole: np.ndarray  # with what sends hold up, and the reduction of gradients behind it
    filled: np.ndarray  # part of `whole`: sends while an interleaved pipeline fills and drains
    reduced: Cost
    update: np.ndarray
    between: np.ndarray | float  # host time that nothing overlaps

    @property
    def step_s(self) -> np.ndarray:
        """Seconds of the step."""
        return self.whole + self.update + self.between


def dealt(at: Placement, rows: list[Unit]) -> list[list[int]]:
    """Units (by index) of each pipeline stage, as the step's stack deals layers."""
    return stages(rows, at.layout, is_balanced(at.step))


def timed(at: Placement, rows: list[Unit], often: np.ndarray) -> Timed:
    """The step of one layout, or of columns of layouts.

    often: how many times each stage has each unit (dealing.counted), (stages, units) of one layout
    or (stages, units, ...) of columns; of equal stages between the ends one is enough. Columns may
    differ in all that is a number, if all have one schedule, and all or none gather weights for
    each micro-batch (traffic.gathers); schedules that split the backward also need one pp.
    """
    x, run = at.layout, passes(rows, at)
    f, b, dense, expert, update = (
        summed(often, column)
        for column in (
            run.forward,
            run.backward,
            [u.trained for u in rows],
            [u.trained_expert for u in rows],
            [u.update for u in rows],
        )
    )
    fullest = (dense + expert).max(axis=0)
    schedule = x.schedule if np.any(np.greater(x.pp, 1)) else "none"
    handed = functools.reduce(np.maximum, (block.carried for block in at.step.blocks), 0.0)
    hop = crossing(at, handed, schedule)
    ends_of = ends(schedule, f, b)
    given = schedule, ends_of, x.pp, x.vpp, x.micro_batches, hop.seconds
    # closed forms of schedules that split the backward are approximate
    total = seconds(*given) if schedule in SPLIT_BACKWARD else step_time(*given)[0]
    most = np.argmax(dense + expert, axis=0)  # the stage that reduces

    def reducing(of_stages: np.ndarray) -> np.ndarray:
        return np.take_along_axis(of_stages, most[None], axis=0)[0]

    tensors, buckets = (
        reducing(summed(often, each))
        for each in ([u.tensors for u in rows], [u.buckets for u in rows])
    )
    moved = reduction(at, dense.max(axis=0), expert.max(axis=0), tensors, buckets)
    ahead = reducing(summed(often, [u.trained for u in rows[: first_layer(rows)]]))
    last = ahead / np.maximum(fullest, 1.0)
    filled = filling(at, handed, schedule)
    whole = total + filled + waited(at, moved, last, reducing(f), reducing(b))
    whole = whole + copied(at, tensors)
    update = updating(at, update.max(axis=0), fullest)
    alone_s = summed(often, [sum(u.compute) + sum(u.host) for u in rows])
    stack, apart_s = at.step.recipe.stack, (alone_s - f - b).max(axis=0)
    return Timed(
        passes=run,
        forward=f,
        backward=b,
        fullest=fullest,
        schedule=schedule,
        stages=ends_of,
        hop=hop,
        total=total,
        whole=whole,
        filled=filled,
        reduced=moved.both,
        update=update,
        between=between_steps(stack, at.device, constants(), whole + update, apart_s),
    )


def summed(often: np.ndarray, values: Sequence[ArrayLike]) -> np.ndarray:
    """What each stage has of what its units have: (stages,), or (stages, ...) of columns.

    often: as in `timed`; values: of each unit, or of the first ones.
    """
    found = np.zeros_like(often[:, 0])
    for i, value in enumerate(values):
        found = found + often[:, i] * value
    return found


def first_layer(rows: list[Unit]) -> int:
    """Index of the first unit that is a layer; 0 where none is."""
    return next((i for i, u in enumerate(rows) if u.layers), 0)


def over_devices(
    step: Step, times: OpTimes, device: Device, layout: Layout, fabric: Fabric, memory: bool = True
) -> ParallelStep:
    """The whole step, from the step and times of one rank and micro-batch. Without memory it has no
    ranks.
    """
    x, at = layout, Placement(step, device, layout, network(layout, fabric))
    rows = units(at, times)
    members = dealt(at, rows)
    t = timed(at, rows, counted(members, len(rows)))
    f, b, whole, total = t.forward, t.backward, t.whole, t.total
    repeats = x.micro_batches / x.pp
    # under DualPipe a rank has parts of both directions
    each = (f + b + (f + b)[::-1]) / 2.0 if x.schedule == "dualpipe" and x.pp > 1 else f + b
    computing = float(each.max() * x.micro_batches)
    idle = np.maximum(total - computing, 0.0)  # of the slowest stage: sends, and the bubble
    closed = pipeline(t.schedule, t.stages, x.pp, x.vpp, x.micro_batches, t.hop.seconds)
    sends = np.minimum(closed.exposed_p2p, idle)
    reducing = whole - total - t.filled
    waits = Cost(reducing, t.reduced.bytes), Cost(sends + t.filled, t.hop.bytes)
    exposed, sent = _by_kind(at, t.passes, *waits, Cost(t.update, t.fullest))
    bubble = float((idle - sends) / t.step_s) if x.pp > 1 else 0.0
    return ParallelStep(
        step_s=float(t.step_s),
        update_s=float(t.update),
        between_s=float(t.between),
        bubble=bubble,
        computing=computing,
        alike=float(each.mean() * x.micro_batches),
        passing=float(sum(t.passes.exposed.values()) * x.micro_batches / x.pp),
        exposed=exposed,
        sent=sent,
        sent_by_op=_sent_by_op(step, x, repeats),
        repeats=repeats,
        host_s=_host(at, rows, repeats),
        lower_bound_s=_lower_bound(step, times, x, repeats),
        ranks=_ranks(at, rows, members) if memory else (),
        offloaded=_offloaded(at, rows, members) if memory and x.offload else {},
        pipe=Pipe(t.schedule, t.stages, float(t.hop.seconds), float(whole - t.total)),
    )


def held_by(step: Step, device: Device, layout: Layout, fabric: Fabric) -> dict[str, Any]:
    """`ranks` and `offloaded` of a ParallelStep, from the step of one rank and micro-batch."""
    at = Placement(step, device, layout, network(layout, fabric))
    unknown = np.zeros(len(step.kernels))
    rows = units(at, OpTimes(unknown, unknown, unknown, ()))  # memory does not ask for seconds
    members = dealt(at, rows)
    offloaded = _offloaded(at, rows, members) if layout.offload else {}
    return {"ranks": _ranks(at, rows, members), "offloaded": offloaded}


def _by_kind(
    at: Placement, run: Passes, reduced: Cost, handed: Cost, updated: Cost
) -> tuple[dict[str, float], dict[str, float]]:
    """Exposed seconds and sent bytes of one rank's step, by kind of traffic.

    reduced: the reduction of gradients; handed: what one stage sends to the next; updated: an
    optimizer on the host, with its weights instead of bytes.
    """
    x, width = at.layout, at.step.trained_width
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
    if "parameters" in at.step.recipe.offload:  # gradients and weights are copied in the passes
        exposed["offload"] = exposed.get("offload", 0.0) + float(updated.seconds)
    elif "optimizer" in at.step.recipe.offload:
        both = held_gradient(at.step.recipe.stack, width) + width  # gradients down, weights up
        copied = updated.bytes * both / (x.shard if x.zero else 1)
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
    return tuple(rank(i, s, rows, at) for i, s in enumerate(_both_directions(x, members)))


def _offloaded(at: Placement, rows: list[Unit], members: list[list[int]]) -> dict[str, float]:
    """Bytes of the rank with the most offloaded, by where they lie: host, nvme."""
    stages = enumerate(_both_directions(at.layout, members))
    most = max((beside_device(i, s, rows, at) for i, s in stages), key=lambda b: float(sum(b)))
    found = {"host": float(most.host), "nvme": float(most.drives)}
    return {where: n for where, n in found.items() if n}


def _both_directions(x: Any, members: list[list[int]]) -> list[list[int]]:
    """Units that a rank of each stage holds: under DualPipe those of two stages."""
    if x.schedule != "dualpipe" or x.pp == 1:
        return members
    return [stage + members[x.pp - 1 - i] for i, stage in enumerate(members)]


def unlike(x: Any, members: list[list[int]]) -> dict[tuple[int, ...], int]:
    """The stages of a layout that hold different units: these, and the first stage that does, which
    under every schedule has the most micro-batches in flight.
    """
    found: dict[tuple[int, ...], int] = {}
    for stage, mine in enumerate(_both_directions(x, members)):
        found.setdefault(tuple(mine), stage)
    return found


def peak_bytes(at: Placement, held: Sequence[tuple[ArrayLike, Share]]) -> np.ndarray:
    """Bytes at peak of the most loaded device: the most that `ParallelStep.ranks` hold. Broadcasts
    over columns of layouts.

    held: of the stages that are unlike, the first of each kind, and its share.
    """
    x, peak = at.layout, np.zeros(())
    for stage, mine in held:
        flying = in_flight(x.schedule, x.pp, x.vpp, x.micro_batches, stage)
        peak = np.maximum(peak, holdings(mine, at, flying).total)
    single = np.equal(x.devices, 1) & np.equal(x.micro_batches, 1)
    if np.any(single):
        peak = np.where(single, alone(0, at).total, peak)
    return peak


def _host(at: Placement, rows: list[Unit], repeats: float) -> float:
    """Seconds the host of one device needs to dispatch a step: every micro-batch's launches and
    exchanges, and the update's once.
    """
    step, device = at.step, at.device
    launches = dispatch(step, device, constants())
    of_update = np.array([k.phase == "update" for k in step.kernels])
    exchanges: Any = sum(seconds for _, _, seconds in exchanged(step, device))
    exchanges += in_pipeline(at) * sum(sum(u.called) * max(u.layers, 1) for u in rows)
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
    the last over it. forward, backward: seconds of each stage, the first axis.
    """
    weights = WEIGHT_GRADIENTS * backward if schedule in SPLIT_BACKWARD else 0.0 * backward
    passes = (forward, backward - weights, weights)
    inner = slice(1, -1) if len(forward) > 2 else slice(None)
    f, b, w = (x[inner].max(axis=0) for x in passes)
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
    if "optimizer" in at.step.recipe.offload and at.step.recipe.optimizer is not None:
        gradient = held_gradient(stack, at.step.trained_width)
        return host_memory.update_seconds(weights, at.step, at.device, gradient) / ranks
    return np.asarray(seconds) / ranks
