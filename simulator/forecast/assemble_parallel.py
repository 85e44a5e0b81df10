"""Puts a forecast over several devices together: one rank's rows, the whole model's counts, what is
sent and exposed.
"""

from __future__ import annotations

import msgspec
import numpy as np

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.simulator.forecast.assemble import (
    asked_fields,
    assemble,
    memory_fields,
    peak_rate,
    run_fields,
    totals,
)
from roofcast.simulator.forecast.diagnosis import diagnose, diagnose_parallel
from roofcast.simulator.forecast.resolve import Asked
from roofcast.simulator.forecast.result import Forecast, RankForecast
from roofcast.simulator.memory import Held
from roofcast.simulator.parallel.holdings import Rank
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.stages import exchanged, repeated
from roofcast.simulator.parallel.step import ParallelStep
from roofcast.simulator.parallel.traffic import sent_bytes
from roofcast.simulator.times.dispatch import dispatch
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step

NAMES = {
    "tp": "tensor",
    "cp": "context",
    "ep": "expert",
    "etp": "expert tensor",
    "dp": "data",
    "pp": "pipeline",
    "fsdp": "sharded weights",
    "offload": "offload",
}
PASS = {"train": "backward", "infer": "forward"}
OF_OPS = ("tp", "cp", "ep", "etp")
"""Kinds of traffic that an op sends; the others belong to stages and weights."""


def assemble_parallel(
    asked: Asked,
    whole: Step,
    step: Step,
    times: OpTimes,
    outcome: ParallelStep,
    assumptions: tuple[str, ...],
) -> Forecast:
    """The forecast of a step over several devices.

    whole: one micro-batch of the whole model; step, times: one micro-batch on one rank;
    assumptions: about the network.
    """
    device, recipe, layout = asked.device, asked.recipe, asked.layout
    assert layout is not None, "several devices have a layout"
    held = _fullest(outcome, layout, recipe.mode)
    one = assemble(_of_one_rank(asked, step, assumptions), step, times, held, waits=False)
    # what one device of a pipeline does, in micro-batches of the whole model per step
    repeats = layout.micro_batches / layout.pp
    layers, points = _of_one_device(one, step, times, layout, repeats, outcome)
    n, step_s, tokens = layout.devices, outcome.step_s, asked.tokens
    counted = totals(whole, layout.micro_batches * layout.dp)
    exposed = {NAMES[kind]: seconds for kind, seconds in outcome.exposed.items()}
    if "optimizer" in recipe.offload:  # the update has a line of its own
        exposed["offload"] = max(exposed["offload"] - outcome.update_s, 0.0)
    waiting, uneven = _waits(outcome, layout, sum(r.time_s for r in layers), exposed)
    zero = layout.zero if layout.dp * layout.cp > 1 else None
    alone = diagnose(layers, step_s, 0.0, device, held, zero)
    return msgspec.structs.replace(
        one,
        **asked_fields(asked),
        step_time_s=step_s,
        lower_bound_s=_lower_bound(step, times, layout, repeats),
        samples_per_s=recipe.batch / step_s,
        forward_s=one.forward_s * repeats,
        backward_s=one.backward_s * repeats,
        update_s=outcome.update_s,
        host_s=_host(one, step, device, repeats),
        between_steps_s=outcome.between_s,
        tokens_per_s=tokens / step_s if tokens else None,
        tokens_per_s_per_device=tokens / step_s / n if tokens else None,
        parameters=int(whole.parameters),
        **counted.fields(recipe.mode, step_s, n * peak_rate(device, recipe)),
        memory=memory_fields(held, device.memory.capacity),
        layers=layers,
        points=points,
        **run_fields(asked.run, device, step_s, n),
        devices=n,
        layout=layout,
        system=asked.system_name,
        bubble_fraction=float(outcome.bubble),
        uneven_stages_s=uneven,
        waiting_for_host_s=waiting,
        exposed_communication_s=exposed,
        communication_bytes={NAMES[kind]: float(b) for kind, b in outcome.sent.items()},
        ranks=tuple(_rank(r) for r in outcome.ranks),
        diagnosis=diagnose_parallel(
            alone, layers, step_s, uneven, waiting, exposed, outcome, layout
        ),
    )


def _of_one_rank(asked: Asked, step: Step, assumptions: tuple[str, ...]) -> Asked:
    """What one rank was asked: one micro-batch, and no run."""
    return asked._replace(
        recipe=step.recipe,
        run=asked.run._replace(steps=None),
        assumptions=(*asked.assumptions, *assumptions),
    )


def _fullest(outcome: ParallelStep, layout: Layout, mode: str) -> Held:
    """Memory of the most loaded device."""
    rank = max(outcome.ranks, key=lambda r: r.total)
    moment = f"stage {rank.stage} of {layout.pp}"
    return Held(
        rank.parameters,
        rank.gradients,
        rank.optimizer,
        rank.activations,
        rank.transient + rank.buffers,
        rank.framework,
        moment if layout.pp > 1 else f"{PASS[mode]} of a micro-batch",
    )


def _waits(
    outcome: ParallelStep, layout: Layout, in_layers: float, exposed: dict[str, float]
) -> tuple[float, float]:
    """Seconds that a device waits for the host, and that the slowest stage takes longer."""
    waiting = max(outcome.alike - outcome.passing - in_layers, 0.0)
    if layout.pp == 1:
        return waiting, 0.0
    told = outcome.between_s + in_layers + outcome.update_s + waiting
    left = outcome.step_s - told - outcome.bubble * outcome.step_s - sum(exposed.values())
    # under DualPipe the two directions hide part of the difference
    return waiting, max(min(outcome.computing - outcome.alike, left), 0.0)


def _host(one: Forecast, step: Step, device: Device, repeats: float) -> float:
    """Seconds the host of one device needs to dispatch a step: every micro-batch's launches and
    exchanges, and the update's once.
    """
    update = sum(
        t
        for k, t in zip(step.kernels, dispatch(step, device, constants()), strict=True)
        if k.phase == "update"
    )
    exchanges = sum(seconds for _, _, seconds in exchanged(step, device))
    return float((one.host_s - update + exchanges) * repeats + update)


def _lower_bound(step: Step, times: OpTimes, layout: Layout, repeats: float) -> float:
    """The printed roofline of one device's share: its micro-batches, and its share of the
    update.
    """
    update = sum(t for k, t in zip(step.kernels, times.lower, strict=True) if k.phase == "update")
    sharded = layout.shard if layout.zero else 1
    mine = 0.0 if "optimizer" in layout.offload else update / (layout.pp * sharded)
    return float((times.lower.sum() - update) * repeats + mine)


def _of_one_device(
    one: Forecast, step: Step, times: OpTimes, layout: Layout, repeats: float, outcome: ParallelStep
):
    """Rows and points of one micro-batch over all layers as one device's share of a step. The
    update is told apart from the rows.
    """
    updated: dict[str, np.ndarray] = {}  # FLOPs, bytes, seconds at the printed rates
    for k, lower in zip(step.kernels, times.lower, strict=True):
        if k.phase == "update":
            work = np.array(
                [(k.matrix + k.vector + k.special) * k.count, (k.read + k.written) * k.count, lower]
            )
            updated[step.nodes[k.node].name] = updated.get(step.nodes[k.node].name, 0.0) + work
    sent = _sent(step, layout, repeats)
    layers = []
    for row in one.layers:
        flops, moved, lower = updated.get(row.name, (0.0, 0.0, 0.0))
        layers.append(
            msgspec.structs.replace(
                row,
                flops=float(row.flops - flops) * repeats,
                bytes=float(row.bytes - moved) * repeats,
                forward_s=row.forward_s * repeats,
                backward_s=row.backward_s * repeats,
                update_s=0.0,
                time_s=(row.forward_s + row.backward_s) * repeats,
                lower_bound_s=float(row.lower_bound_s - lower) * repeats,
                sent_bytes=sent.get(row.name, 0.0),
            )
        )
    ours = (
        0.0
        if "optimizer" in layout.offload or not one.update_s
        else outcome.update_s / one.update_s
    )
    parts = ((p, ours if p.phase == "update" else repeats) for p in one.points)
    points = (
        msgspec.structs.replace(p, flops=p.flops * n, bytes=p.bytes * n, time_s=p.time_s * n)
        for p, n in parts
        if n
    )
    return tuple(layers), tuple(points)


def _sent(step: Step, layout: Layout, repeats: float) -> dict[str, float]:
    """Bytes that one device sends in a step for each named op; what recomputation runs again, it
    sends again.
    """
    sent: dict[str, float] = {}
    again = repeated(step)
    for tr in step.traffic:
        if tr.group in OF_OPS:
            times = (
                tr.count
                * repeats
                * (1.0 + (again.get(tr.node, 0.0) if tr.phase == "forward" else 0.0))
            )
            name = step.nodes[tr.node].name
            sent[name] = sent.get(name, 0.0) + float(
                sent_bytes(tr.kind, tr.bytes, getattr(layout, tr.group)) * times
            )
    return sent


def _rank(r: Rank) -> RankForecast:
    return RankForecast(
        stage=r.stage,
        layers=r.layers,
        parameters_bytes=r.parameters,
        gradients_bytes=r.gradients,
        optimizer_bytes=r.optimizer,
        activations_bytes=r.activations,
        transient_bytes=r.transient,
        buffers_bytes=r.buffers,
        framework_bytes=r.framework,
        peak_bytes=r.total,
    )
