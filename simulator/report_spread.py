"""Puts a forecast over several devices together: one rank's rows, the whole model's counts, what is sent and exposed."""

from __future__ import annotations

import msgspec

from hwdb.records import Device
from simulator.forecast import Forecast, MemoryForecast, RankForecast
from simulator.holdings import Rank
from simulator.layout import Layout
from simulator.memory import Held
from simulator.model import Model
from simulator.parallel import Spread
from simulator.precision import precision
from simulator.report import assemble
from simulator.resolve import length
from simulator.roofline import OpTimes, rates_of
from simulator.scenario import Scenario
from simulator.step import Recipe, Step

NAMES = {
    "tp": "tensor", "cp": "context", "ep": "expert", "etp": "expert tensor", "dp": "data", "pp": "pipeline", "fsdp": "sharded weights",
    "offload": "offload",
}  # fmt: skip


def assemble_spread(
    s: Scenario, device: Device, model: Model, recipe: Recipe, layout: Layout, whole: Step, step: Step, times: OpTimes,
    outcome: Spread, said: list[str],
) -> Forecast:  # fmt: skip
    """Everything the stages found over several devices, as one value."""
    fullest = max(outcome.ranks, key=lambda r: r.total)
    held = Held(fullest.parameters, fullest.gradients, fullest.optimizer, fullest.activations,
                fullest.transient + fullest.buffers, fullest.framework,
                f"stage {fullest.stage} of {layout.pp}" if layout.pp > 1 else "backward of a micro-batch")  # fmt: skip
    one = assemble(msgspec.structs.replace(s, tokens=None, samples=None, epochs=None), device, model, step, times, held, said)
    repeats = layout.micro_batches / layout.pp  # what one device of a pipeline does of the whole model's micro-batch, a step
    layers = tuple(_times(layer, repeats) for layer in one.layers)
    n, step_s, m = layout.devices, outcome.step_s, layout.micro_batches * layout.dp
    count = {p: m * sum(k.matrix * k.count for k in whole.kernels if k.phase == p) for p in ("forward", "backward", "recompute")}
    peak = n * float(rates_of(device, precision(recipe.precision).product).rates.matrix)
    tokens = recipe.batch * recipe.size if model.takes == "sequence" and recipe.size else None
    steps = length(s, tokens, recipe.batch)
    hours = steps * step_s / 3600 if steps else None
    price = s.price_per_hour if s.price_per_hour is not None else device.price.cloud_usd_per_hour
    capacity = device.memory.capacity
    exposed = {NAMES[k]: v for k, v in outcome.exposed.items()}
    return msgspec.structs.replace(
        one, batch=recipe.batch, sequence=recipe.size if model.takes == "sequence" else None, recompute=recipe.recompute,
        step_time_s=step_s, lower_bound_s=_lower_bound(step, times, layout, repeats), samples_per_s=recipe.batch / step_s,
        forward_s=one.forward_s * repeats, backward_s=one.backward_s * repeats, update_s=outcome.update_s, host_s=one.host_s * repeats,
        tokens_per_s=tokens / step_s if tokens else None, tokens_per_s_per_device=tokens / step_s / n if tokens else None,
        mfu=(3 if recipe.mode == "train" else 1) * count["forward"] / (step_s * peak), hfu=sum(count.values()) / (step_s * peak),
        parameters=int(whole.parameters), flops_forward=float(count["forward"]), flops_backward=float(count["backward"]),
        flops_recompute=float(count["recompute"]), flops_other=one.flops_other * m,
        memory=MemoryForecast(
            parameters_bytes=held.parameters, gradients_bytes=held.gradients, optimizer_bytes=held.optimizer,
            activations_bytes=held.activations,
            transient_bytes=held.transient, framework_bytes=held.framework, peak_bytes=held.total, peak_moment=held.moment,
            capacity_bytes=float(capacity) if capacity else None, fits=bool(held.total <= capacity) if capacity else None,
        ),
        layers=layers, points=one.points, steps=steps, time_to_train_s=hours * 3600 if hours is not None else None,
        cost_usd=hours * price * n if hours is not None and price is not None else None,
        energy_j=hours * 3600 * device.power.tdp * n if hours is not None and device.power.tdp else None,
        devices=n, layout=layout, system=getattr(s.system, "id", s.system), bubble_fraction=float(outcome.bubble),
        exposed_communication_s=exposed,
        communication_bytes={NAMES[k]: float(v) for k, v in outcome.sent.items()}, ranks=tuple(_rank(r) for r in outcome.ranks),
        diagnosis=_diagnosis(one, step_s, exposed, outcome, layout),
    )  # fmt: skip


def _lower_bound(step: Step, times: OpTimes, layout: Layout, repeats: float) -> float:
    """The printed roofline of one device's share: its micro-batches, and its share of the update."""
    update = sum(t for k, t in zip(step.kernels, times.lower, strict=True) if k.phase == "update")
    sharded = layout.shard if layout.zero else 1
    return float((times.lower.sum() - update) * repeats + update / (layout.pp * sharded))


def _times(layer, repeats: float):
    """A row of one micro-batch over all layers as one device's share of a step."""
    scaled = {f: getattr(layer, f) * repeats for f in ("flops", "bytes", "time_s", "forward_s", "backward_s", "lower_bound_s")}
    return msgspec.structs.replace(layer, update_s=0.0, **(scaled | {"time_s": (layer.forward_s + layer.backward_s) * repeats}))


def _rank(r: Rank) -> RankForecast:
    return RankForecast(
        stage=r.stage, layers=r.layers, parameters_bytes=r.parameters, gradients_bytes=r.gradients, optimizer_bytes=r.optimizer,
        activations_bytes=r.activations, transient_bytes=r.transient, buffers_bytes=r.buffers,
        framework_bytes=r.framework, peak_bytes=r.total,
    )  # fmt: skip


def _diagnosis(one: Forecast, step_s: float, exposed: dict[str, float], outcome: Spread, layout: Layout) -> str:
    """The device's sentence, and what several devices add to it."""
    parts = [(v, f"{kind} parallel traffic" if kind != "sharded weights" else "gathering sharded weights") for kind, v in exposed.items()]
    parts.append((outcome.bubble * step_s, "the pipeline bubble"))
    worst, what = max(parts, default=(0.0, ""))
    if worst < 0.05 * step_s:
        return one.diagnosis
    cure = "more micro-batches or virtual stages" if what == "the pipeline bubble" else "a faster network or fewer ranks in that group"
    lost = f"Over {layout.devices} devices {100 * worst / step_s:.0f} % of the step is lost to {what}"
    return f"{one.diagnosis} {lost}; {cure} would shorten it."
