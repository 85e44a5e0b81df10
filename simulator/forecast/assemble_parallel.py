"""Puts a forecast over several devices together: one rank's rows, the whole model's counts, what is
sent and exposed.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.assemble import (
    asked_fields,
    assemble,
    memory_fields,
    run_fields,
    totals,
)
from roofcast.simulator.forecast.diagnosis import Spent, diagnose, diagnose_parallel
from roofcast.simulator.forecast.energy import of_rank
from roofcast.simulator.forecast.limits import by_kernels, limits, seconds_on_links, shares
from roofcast.simulator.forecast.resolve import Asked
from roofcast.simulator.forecast.result import (
    Forecast,
    LayerForecast,
    Limit,
    MemoryForecast,
    RankForecast,
)
from roofcast.simulator.forecast.tuned import tuned_fields
from roofcast.simulator.memory import Held
from roofcast.simulator.parallel.fabric import Fabric
from roofcast.simulator.parallel.holdings import Rank
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.networks import host_memory
from roofcast.simulator.parallel.step import ParallelStep
from roofcast.simulator.parallel.traffic import Placement
from roofcast.simulator.times.dispatch import Phases
from roofcast.simulator.times.peak import AtPeak
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


class Placed(NamedTuple):
    """One micro-batch on one rank of a layout, and the step over all devices."""

    whole: Step  # one micro-batch of the whole model
    step: Step  # of one rank
    times: OpTimes
    phases: Phases
    peak: AtPeak  # of all devices
    outcome: ParallelStep
    fabric: Fabric
    place: Placement
    longest: tuple[Step, Step]  # of the whole model and of one rank, whose memory is held


def assemble_parallel(asked: Asked, at: Placed) -> Forecast:
    """The forecast of a step over several devices."""
    device, recipe, layout, outcome = asked.device, asked.recipe, asked.layout, at.outcome
    assert layout is not None, "several devices have a layout"
    held = _fullest(outcome, layout, recipe.mode)
    # what is said of the model is said of all of it, not of a rank's share
    step = at.step._replace(assumptions=at.whole.assumptions)
    whole, mine = at.longest
    one = assemble(_of_one_rank(asked, at), step, at.times, at.phases, at.peak, held, mine)
    layers, points = _of_one_device(one, at, layout)
    layers, fitted = _within(layers, outcome.alike - outcome.passing)
    points = tuple(
        p if p.phase == "update" else msgspec.structs.replace(p, time_s=p.time_s * fitted)
        for p in points
    )
    n, step_s, tokens = layout.devices, outcome.step_s, asked.run.tokens
    counted = totals(at.whole, layout.micro_batches * layout.dp, whole)
    rates = counted.fields(step_s, at.peak, n)
    memory = memory_fields(held, device.memory, mine, layout)
    moved = sum(p.bytes for p in points)
    exposed = {NAMES[kind]: seconds for kind, seconds in outcome.exposed.items()}
    if "optimizer" in recipe.offload:  # the update has a line of its own
        exposed["offload"] = max(exposed["offload"] - outcome.update_s, 0.0)
    waiting = max(outcome.alike - outcome.passing - sum(r.time_s for r in layers), 0.0)
    uneven = max(outcome.computing - outcome.alike, 0.0) if layout.pp > 1 else 0.0
    spent = _spent(at, fitted)
    return msgspec.structs.replace(
        one,
        **(asked_fields(asked, at.step) | tuned_fields(at.whole)),
        step_time_s=step_s,
        lower_bound_s=outcome.lower_bound_s,
        samples_per_s=asked.run.samples / step_s,
        forward_s=one.forward_s * outcome.repeats * fitted,
        backward_s=one.backward_s * outcome.repeats * fitted,
        update_s=outcome.update_s,
        host_s=outcome.host_s,
        between_steps_s=outcome.between_s,
        tokens_per_s=tokens / step_s if tokens else None,
        tokens_per_s_per_device=tokens / step_s / n if tokens else None,
        parameters=int(at.whole.parameters),
        **rates,
        memory=memory,
        layers=layers,
        points=points,
        limits=_limits(at, spent, waiting, exposed, rates["hfu"], moved, memory),
        **run_fields(
            asked.run, at.whole, step_s, of_rank(device, at.step, at.times, layout, outcome), n
        ),
        devices=n,
        layout=layout,
        system=asked.system_name,
        bubble_fraction=float(outcome.bubble),
        uneven_stages_s=uneven,
        waiting_for_host_s=waiting,
        exposed_communication_s=exposed,
        communication_bytes={NAMES[kind]: float(b) for kind, b in outcome.sent.items()},
        ranks=tuple(_rank(r) for r in outcome.ranks),
        **_beside(asked, one, outcome),
        diagnosis=_diagnosis(at, Spent.of(*spent), held, (uneven, waiting), exposed),
    )


def _beside(asked: Asked, one: Forecast, outcome: ParallelStep) -> dict[str, Any]:
    """Fields of what is offloaded, with an assumption where it exceeds the memory of the hosts."""
    used, layout = outcome.offloaded, asked.layout
    assert layout is not None, "several devices have a layout"
    there = host_memory(asked.system, asked.device, layout.devices) if used else None
    found: dict[str, Any] = {"offloaded_bytes": used}
    if there is None:
        return found
    found["host_memory_bytes"] = there[1]
    if used.get("host", 0.0) > there[1]:
        line = (
            f"offloaded: {used['host'] / 1e9:.0f} GB per device, more than the"
            f" {there[1] / 1e9:.0f} GB of host memory that {there[0]} has for each of them: it does"
            " not fit there; forecast as if it did"
        )
        found["assumptions"] = (*one.assumptions, line)
    return found


def _diagnosis(
    at: Placed, spent: Spent, held: Held, waits_s: tuple[float, float], exposed: dict[str, float]
) -> str:
    """What limits the step. waits_s: uneven pipeline stages, and waits for the host [s]."""
    layout, step_s = at.place.layout, at.outcome.step_s
    zero = layout.zero if layout.dp * layout.cp > 1 else None
    alone = diagnose(spent, step_s, 0.0, at.place.device, held, zero)
    return diagnose_parallel(alone, spent, step_s, *waits_s, exposed, at.outcome, layout)


def _spent(at: Placed, fitted: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the passes and of the update on one device, by index into rows.LIMITS.

    fitted: factor on the times of the passes. An update on the host is none of the device's.
    """
    outcome = at.outcome
    spent = by_kernels(at.times, at.phases)
    passes, update = spent[:3].sum(axis=0) * outcome.repeats * fitted, spent[3]
    if "optimizer" in at.place.layout.offload:
        return passes, 0.0 * update
    return passes, update * (outcome.update_s / update.sum()) if update.any() else update


def _limits(
    at: Placed,
    spent: tuple[np.ndarray, np.ndarray],
    waiting_s: float,
    exposed: dict[str, float],
    hfu: float,
    moved: float,
    memory: MemoryForecast,
) -> tuple[Limit, ...]:
    """The limits of the step of one device: the mean over pipeline stages.

    spent: seconds of the passes and of the update; waiting_s: for the host; exposed: communication
    that nothing hides, by kind [s]; moved: in the device's memory [bytes].
    """
    outcome, layout = at.outcome, at.place.layout
    host_s = outcome.between_s + waiting_s
    if "optimizer" in layout.offload:
        host_s += outcome.update_s
    step_s = outcome.step_s
    share = shares(*spent, step_s, host_s, exposed)
    links = seconds_on_links(at.place, outcome.sent) if layout.devices > 1 else None
    bandwidth = at.place.device.memory.bandwidth
    return limits(share, step_s, hfu, moved, bandwidth, outcome.host_s, memory, links)


def _of_one_rank(asked: Asked, at: Placed) -> Asked:
    """What one rank was asked: one micro-batch, and no run."""
    return asked._replace(
        recipe=at.step.recipe,
        run=asked.run._replace(steps=None, placed=asked.run.placed or bool(asked.run.steps)),
        assumptions=(*asked.assumptions, *at.fabric.assumptions),
    )


def _fullest(outcome: ParallelStep, layout: Layout, mode: str) -> Held:
    """Memory of the most loaded device."""
    rank = max(outcome.ranks, key=lambda r: r.total)
    moment = rank.moment or f"{PASS[mode]} of a micro-batch"
    if layout.pp > 1:
        moment = f"stage {rank.stage} of {layout.pp}" + (f", {rank.moment}" if rank.moment else "")
    return Held(
        rank.parameters,
        rank.gradients,
        rank.optimizer,
        rank.activations,
        rank.transient + rank.buffers,
        rank.framework,
        moment,
    )


def _within(
    layers: tuple[LayerForecast, ...], spent: float
) -> tuple[tuple[LayerForecast, ...], float]:
    """The rows, together at most the seconds that a device spends in them, and their factor.

    Rows are timed phase by phase. The step is faster where recomputation and backward hide each
    other's launches, and where the first micro-batch adds no gradients up.
    """
    share = min(spent / max(sum(r.time_s for r in layers), 1e-30), 1.0)
    if share == 1.0:
        return layers, share
    scaled = (
        msgspec.structs.replace(
            r, forward_s=r.forward_s * share, backward_s=r.backward_s * share,
            time_s=r.time_s * share,
        )
        for r in layers
    )  # fmt: skip
    return tuple(scaled), share


def _of_one_device(one: Forecast, at: Placed, layout: Layout):
    """Rows and points of one micro-batch over all layers as one device's share of a step. The
    update is told apart from the rows.
    """
    step, outcome = at.step, at.outcome
    repeats = outcome.repeats
    updated: dict[str, np.ndarray] = {}  # FLOPs, bytes, seconds at the printed rates
    for k, lower in zip(step.kernels, at.times.lower, strict=True):
        if k.phase == "update":
            work = np.array(
                [(k.matrix + k.vector + k.special) * k.count, (k.read + k.written) * k.count, lower]
            )
            updated[step.nodes[k.node].name] = updated.get(step.nodes[k.node].name, 0.0) + work
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
                sent_bytes=outcome.sent_by_op.get(row.name, 0.0),
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
