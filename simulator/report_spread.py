"""Puts a forecast over several devices together: one rank's rows, the whole model's counts, what is sent and exposed."""

from __future__ import annotations

import msgspec
import numpy as np

from hwdb.constants import kernels as constants
from hwdb.records import Device
from simulator.forecast import Forecast, MemoryForecast, RankForecast
from simulator.holdings import Rank
from simulator.layout import Layout
from simulator.memory import Held
from simulator.model import Model
from simulator.parallel import Spread
from simulator.precision import precision
from simulator.report import assemble, diagnose, dispatch
from simulator.resolve import length
from simulator.roofline import OpTimes, rates_of
from simulator.scenario import Scenario
from simulator.stages import exchanged, repeated
from simulator.step import Recipe, Step
from simulator.traffic import sent_bytes

NAMES = {
    "tp": "tensor", "cp": "context", "ep": "expert", "etp": "expert tensor", "dp": "data", "pp": "pipeline", "fsdp": "sharded weights",
    "offload": "offload",
}  # fmt: skip
PASS = {"train": "backward", "infer": "forward"}
OF_OPS = ("tp", "cp", "ep", "etp")
"""Kinds of traffic that an op sends; the others belong to stages and weights."""


def assemble_spread(
    s: Scenario, device: Device, model: Model, recipe: Recipe, layout: Layout, whole: Step, step: Step, times: OpTimes,
    outcome: Spread, said: list[str],
) -> Forecast:  # fmt: skip
    """Everything the stages found over several devices, as one value."""
    fullest = max(outcome.ranks, key=lambda r: r.total)
    held = Held(fullest.parameters, fullest.gradients, fullest.optimizer, fullest.activations,
                fullest.transient + fullest.buffers, fullest.framework,
                f"stage {fullest.stage} of {layout.pp}" if layout.pp > 1 else f"{PASS[recipe.mode]} of a micro-batch")  # fmt: skip
    one = assemble(msgspec.structs.replace(s, tokens=None, samples=None, epochs=None), device, model, step, times, held, said, waits=False)
    repeats = layout.micro_batches / layout.pp  # what one device of a pipeline does of the whole model's micro-batch, a step
    layers, points = _of_one_device(one, step, times, layout, repeats, outcome)
    n, step_s, m = layout.devices, outcome.step_s, layout.micro_batches * layout.dp
    count = {p: m * sum(k.matrix * k.count for k in whole.kernels if k.phase == p) for p in ("forward", "backward", "recompute")}
    moved = {p: m * sum((k.read + k.written) * k.count for k in whole.kernels if k.phase == p) for p in count}
    other = m * sum((k.vector + k.special) * k.count for k in whole.kernels if k.phase != "update")
    other += sum((k.vector + k.special) * k.count for k in whole.kernels if k.phase == "update")
    kept = {kind: m * sum(c.bytes * c.count for c in whole.counted if c.kind == kind) for kind in ("activation", "input", "weight_copy")}
    peak = n * float(rates_of(device, precision(recipe.precision).product).rates.matrix)
    tokens = recipe.batch * recipe.size if model.takes == "sequence" and recipe.size else None
    steps = length(s, tokens, recipe.batch)
    hours = steps * step_s / 3600 if steps else None
    price = s.price_per_hour if s.price_per_hour is not None else device.price.cloud_usd_per_hour
    capacity = device.memory.capacity
    exposed = {NAMES[k]: v for k, v in outcome.exposed.items()}
    if "optimizer" in recipe.offload:  # the update, which is told by itself
        exposed["offload"] = max(exposed["offload"] - outcome.update_s, 0.0)
    zero = layout.zero if layout.dp * layout.cp > 1 else None
    in_layers = sum(layer.time_s for layer in layers)
    waits = max(outcome.alike - outcome.passing - in_layers, 0.0)
    left = step_s - outcome.between_s - in_layers - outcome.update_s - waits - outcome.bubble * step_s - sum(exposed.values())
    uneven = max(min(outcome.computing - outcome.alike, left), 0.0) if layout.pp > 1 else 0.0  # two ways at once hide some of it
    return msgspec.structs.replace(
        one, batch=recipe.batch, sequence=recipe.size if model.takes == "sequence" else None, recompute=recipe.recompute,
        step_time_s=step_s, lower_bound_s=_lower_bound(step, times, layout, repeats), samples_per_s=recipe.batch / step_s,
        forward_s=one.forward_s * repeats, backward_s=one.backward_s * repeats, update_s=outcome.update_s,
        host_s=_host(one, step, device, repeats), between_steps_s=outcome.between_s,
        tokens_per_s=tokens / step_s if tokens else None, tokens_per_s_per_device=tokens / step_s / n if tokens else None,
        mfu=(3 if recipe.mode == "train" else 1) * count["forward"] / (step_s * peak), hfu=sum(count.values()) / (step_s * peak),
        parameters=int(whole.parameters), flops_forward=float(count["forward"]), flops_backward=float(count["backward"]),
        flops_recompute=float(count["recompute"]), flops_other=float(other),
        bytes_forward=float(moved["forward"]), bytes_backward=float(moved["backward"] + moved["recompute"]),
        saved_bytes=float(kept["activation"]), saved_input_bytes=float(kept["input"]), saved_weight_copy_bytes=float(kept["weight_copy"]),
        memory=MemoryForecast(
            parameters_bytes=held.parameters, gradients_bytes=held.gradients, optimizer_bytes=held.optimizer,
            activations_bytes=held.activations,
            transient_bytes=held.transient, framework_bytes=held.framework, peak_bytes=held.total, peak_moment=held.moment,
            capacity_bytes=float(capacity) if capacity else None, fits=bool(held.total <= capacity) if capacity else None,
        ),
        layers=layers, points=points, steps=steps, time_to_train_s=hours * 3600 if hours is not None else None,
        cost_usd=hours * price * n if hours is not None and price is not None else None,
        energy_j=hours * 3600 * device.power.tdp * n if hours is not None and device.power.tdp else None,
        devices=n, layout=layout, system=getattr(s.system, "id", s.system), bubble_fraction=float(outcome.bubble),
        uneven_stages_s=uneven, waiting_for_host_s=waits, exposed_communication_s=exposed,
        communication_bytes={NAMES[k]: float(v) for k, v in outcome.sent.items()}, ranks=tuple(_rank(r) for r in outcome.ranks),
        diagnosis=_diagnosis(diagnose(layers, step_s, 0.0, device, held, recipe, zero), step_s, uneven, waits, exposed, outcome, layout),
    )  # fmt: skip


def _host(one: Forecast, step: Step, device: Device, repeats: float) -> float:
    """Seconds the host of one device needs to dispatch a step: every micro-batch's launches and exchanges, and the update's once."""
    update = sum(t for k, t in zip(step.kernels, dispatch(step, device, constants()), strict=True) if k.phase == "update")
    exchanges = sum(seconds for _, _, seconds in exchanged(step, device))
    return float((one.host_s - update + exchanges) * repeats + update)


def _lower_bound(step: Step, times: OpTimes, layout: Layout, repeats: float) -> float:
    """The printed roofline of one device's share: its micro-batches, and its share of the update."""
    update = sum(t for k, t in zip(step.kernels, times.lower, strict=True) if k.phase == "update")
    sharded = layout.shard if layout.zero else 1
    mine = 0.0 if "optimizer" in layout.offload else update / (layout.pp * sharded)
    return float((times.lower.sum() - update) * repeats + mine)


def _of_one_device(one: Forecast, step: Step, times: OpTimes, layout: Layout, repeats: float, outcome: Spread):
    """Rows and points of one micro-batch over all layers as one device's share of a step. The update is told apart from the rows."""
    updated: dict[str, np.ndarray] = {}  # FLOPs, bytes, seconds at the printed rates
    for k, lower in zip(step.kernels, times.lower, strict=True):
        if k.phase == "update":
            work = np.array([(k.matrix + k.vector + k.special) * k.count, (k.read + k.written) * k.count, lower])
            updated[step.nodes[k.node].name] = updated.get(step.nodes[k.node].name, 0.0) + work
    sent = _sent(step, layout, repeats)
    layers = []
    for row in one.layers:
        flops, moved, lower = updated.get(row.name, (0.0, 0.0, 0.0))
        layers.append(
            msgspec.structs.replace(
                row, flops=float(row.flops - flops) * repeats, bytes=float(row.bytes - moved) * repeats,
                forward_s=row.forward_s * repeats, backward_s=row.backward_s * repeats, update_s=0.0,
                time_s=(row.forward_s + row.backward_s) * repeats, lower_bound_s=float(row.lower_bound_s - lower) * repeats,
                sent_bytes=sent.get(row.name, 0.0),
            )
        )  # fmt: skip
    ours = 0.0 if "optimizer" in layout.offload or not one.update_s else outcome.update_s / one.update_s
    parts = ((p, ours if p.phase == "update" else repeats) for p in one.points)
    points = (msgspec.structs.replace(p, flops=p.flops * n, bytes=p.bytes * n, time_s=p.time_s * n) for p, n in parts if n)
    return tuple(layers), tuple(points)


def _sent(step: Step, layout: Layout, repeats: float) -> dict[str, float]:
    """Bytes that one device sends in a step for each named op; what recomputation runs again, it sends again."""
    sent: dict[str, float] = {}
    again = repeated(step)
    for tr in step.traffic:
        if tr.group in OF_OPS:
            times = tr.count * repeats * (1.0 + (again.get(tr.node, 0.0) if tr.phase == "forward" else 0.0))
            name = step.nodes[tr.node].name
            sent[name] = sent.get(name, 0.0) + float(sent_bytes(tr.kind, tr.bytes, getattr(layout, tr.group)) * times)
    return sent


def _rank(r: Rank) -> RankForecast:
    return RankForecast(
        stage=r.stage, layers=r.layers, parameters_bytes=r.parameters, gradients_bytes=r.gradients, optimizer_bytes=r.optimizer,
        activations_bytes=r.activations, transient_bytes=r.transient, buffers_bytes=r.buffers,
        framework_bytes=r.framework, peak_bytes=r.total,
    )  # fmt: skip


LOSSES = {  # kind of traffic: what the step is lost to, and what would shorten it
    "sharded weights": ("gathering sharded weights", "a faster network, more samples a device, or sharding within a node"),
    "offload": ("copies to and from the host", "a faster link to the host, or keeping more on the device"),
    "data": ("the reduction of gradients", "a faster network, or more samples a device"),
}


def _diagnosis(
    alone: str, step_s: float, uneven: float, waits: float, exposed: dict[str, float], outcome: Spread, layout: Layout
) -> str:  # fmt: skip
    """The device's sentence, and what several devices add to it: the most of what they lose."""
    usual = "a faster network or fewer ranks in that group"
    parts = [(v, *LOSSES.get(kind, (f"{kind} parallel traffic", usual))) for kind, v in exposed.items()]
    waiting = outcome.bubble * step_s
    parts.append((waiting, "the pipeline bubble", "more micro-batches or virtual stages"))
    parts.append((uneven, "uneven pipeline stages", "fewer layers on the slowest stage (--stages)"))
    parts.append((outcome.between_s, "the host between steps", "a larger batch"))
    counts = ", or experts of a fixed capacity, which need no token counts" if "expert" in exposed else ""
    parts.append((waits, "waiting for the host", f"CUDA graphs or more samples a micro-batch{counts}"))
    if "optimizer" in layout.offload:
        parts.append((outcome.update_s, "the optimizer on the host", "keeping its states on the device"))
    worst, what, cure = max(parts)
    if worst < 0.05 * step_s:
        return alone
    over = f"Over {layout.devices} devices " if layout.devices > 1 else ""
    lost = f"{over}{100 * worst / step_s:.0f} % of the step is lost to {what}; {cure} would shorten it."
    return f"{alone} {lost}".strip()
