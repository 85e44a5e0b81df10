"""Puts a forecast on one device together: rows, totals, rates, money, energy, diagnosis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from roofcast.hwdb.edits import said
from roofcast.hwdb.market import Summary
from roofcast.hwdb.records import Memory
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.campaign.checkpoints import state_bytes
from roofcast.simulator.forecast import energy
from roofcast.simulator.forecast.cache import cache_fields, said_of_cache
from roofcast.simulator.forecast.diagnosis import Spent, diagnose
from roofcast.simulator.forecast.energy import Drawn
from roofcast.simulator.forecast.limits import by_kernels, limits, shares
from roofcast.simulator.forecast.memory_error import band
from roofcast.simulator.forecast.resolve import Asked
from roofcast.simulator.forecast.result import Forecast, MemoryForecast, Price
from roofcast.simulator.forecast.rows import by_op
from roofcast.simulator.forecast.run import Run
from roofcast.simulator.forecast.tuned import tuned_fields
from roofcast.simulator.memory import Held
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.times.dispatch import PHASES, Phases
from roofcast.simulator.times.peak import AtPeak
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Kept

SAVED = ("activation", "input", "weight_copy")


class Totals(NamedTuple):
    """Work of a whole step over all of its devices."""

    flops: dict[str, float]  # by phase: matrix products, convolutions, attention [FLOP]
    moved: dict[str, float]  # by phase [bytes]
    other: float  # vector and special functions [FLOP]
    saved: dict[str, float]  # by kind, activations kept for backward [bytes]

    def fields(self, step_s: float, peak: AtPeak, devices: int = 1) -> dict[str, Any]:
        """Fields of a Forecast: counts, and MFU and HFU: the fraction of the time of all devices
        that the products need at printed peaks.
        """
        f = self.flops
        return {
            "mfu": peak.needed / (step_s * devices),
            "hfu": peak.executed / (step_s * devices),
            "flops_forward": float(f["forward"]),
            "flops_backward": float(f["backward"]),
            "flops_recompute": float(f["recompute"]),
            "flops_other": float(self.other),
            "bytes_forward": float(self.moved["forward"]),
            "bytes_backward": float(self.moved["backward"] + self.moved["recompute"]),
            "saved_bytes": float(self.saved["activation"]),
            "saved_input_bytes": float(self.saved["input"]),
            "saved_weight_copy_bytes": float(self.saved["weight_copy"]),
        }


def totals(step: Step, micro_batches: float = 1, longest: Step | None = None) -> Totals:
    """Totals of a step that consists of so many micro-batches, over all data-parallel ranks.
    longest: the step whose memory is held, if another.
    """
    flops, moved, other = ({p: 0.0 for p in PHASES} for _ in range(3))
    for k in step.kernels:
        flops[k.phase] += k.matrix * k.count
        moved[k.phase] += (k.read + k.written) * k.count
        other[k.phase] += (k.vector + k.special) * k.count
    n, passes = micro_batches, PHASES[:3]  # the update is once per step
    return Totals(
        flops={p: n * flops[p] for p in PHASES},
        moved={p: n * moved[p] for p in PHASES},
        other=n * sum(other[p] for p in passes) + other["update"],
        saved={kind: n * _bytes((longest or step).counted, kind) for kind in SAVED},
    )


def _bytes(saved: Iterable[Kept], kind: str) -> float:
    return sum(s.bytes * s.count for s in saved if s.kind == kind)


def _output_bytes(step: Step) -> float | None:
    """Bytes of what a forward pass returns: the last op in inference, what the loss reads (logits)
    in training. None of a step without kernels.
    """
    if not step.kernels:
        return None
    if step.recipe.mode != "train":
        return float(sum(v.bytes for v in step.kernels[-1].outputs))
    forward = [k for k in step.kernels if k.phase == "forward"]
    loss = [k for k in forward if k.node == forward[-1].node]
    own = {v.storage for k in loss for v in k.outputs}
    read = {v.storage: v.bytes for k in loss for v in k.inputs if v.kind == "activation"}
    return float(sum(n for storage, n in read.items() if storage not in own))


def memory_fields(
    held: Held, memory: Memory, step: Step, layout: Layout | None = None
) -> MemoryForecast:
    """Memory at peak beside that of the device, and between what measured runs would lie."""
    capacity = memory.limit
    low, high = band(float(held.total), step.recipe.mode)
    return MemoryForecast(
        parameters_bytes=float(held.parameters),
        gradients_bytes=float(held.gradients),
        optimizer_bytes=float(held.optimizer),
        activations_bytes=float(held.activations),
        transient_bytes=float(held.transient),
        framework_bytes=float(held.framework),
        peak_bytes=float(held.total),
        peak_moment=held.moment,
        capacity_bytes=float(capacity) if capacity else None,
        fits=bool(held.total <= capacity) if capacity else None,
        installed_bytes=float(memory.capacity) if memory.usable and memory.capacity else None,
        low_bytes=low,
        high_bytes=high,
        output_bytes=None if layout else _output_bytes(step),
        **cache_fields(step, layout),
    )


def run_fields(
    run: Run, whole: Step, step_s: float, drawn: Drawn, devices: int = 1
) -> dict[str, Any]:
    """Fields of a Forecast on the whole run: steps, duration, cost and energy of all devices.

    whole: a step of the whole model.
    """
    steps, price = run.steps, run.price_per_hour
    hours = steps * step_s / 3600 if steps else None
    return {
        "steps": steps,
        "time_to_train_s": hours * 3600 if hours is not None else None,
        "cost_usd": hours * price * devices if hours is not None and price is not None else None,
        **energy.fields(drawn, step_s, steps, devices, run.place),
        "price_usd_per_hour": float(price) if price is not None else None,
        "price": _price(run.price),
        "state_bytes": state_bytes(whole) if steps and whole.recipe.mode == "train" else None,
    }


def _price(p: Summary | None) -> Price | None:
    if p is None:
        return None
    return Price(
        usd_per_hour=float(p.median),
        low=float(p.low),
        high=float(p.high),
        contract=p.kind,
        of_class=p.of_class,
        providers=p.providers,
        newest=p.newest,
        source=p.source,
    )


def asked_fields(asked: Asked, step: Step) -> dict[str, Any]:
    """Fields of a Forecast that repeat what was asked, and how attention runs."""
    recipe, reads, varied = asked.recipe, asked.model.takes, asked.padding is not None
    return {
        "model": asked.model.name,
        "device": asked.device.id,
        "mode": recipe.mode,
        "batch": recipe.batch,
        "sequence": recipe.size if reads == "sequence" else None,
        "image": recipe.size if reads == "image" else None,
        "precision": recipe.precision,
        "optimizer": recipe.optimizer,
        "recompute": recipe.recompute,
        "attention": step.attention,
        "stack": recipe.stack.name,
        "padded_share": asked.padding,
        "samples_per_step": asked.run.samples if varied else None,
        "tokens_per_step": asked.run.tokens if varied else None,
        **tuned_fields(step),
    }


def assemble(
    asked: Asked,
    step: Step,
    times: OpTimes,
    phases: Phases,
    peak: AtPeak,
    memory: Held,
    longest: Step | None = None,
) -> Forecast:
    """The forecast of a step on one device. longest: the step whose memory is held, if another."""
    device, run, phase = asked.device, asked.run, phases.of
    device_s, host_s, total_s = phases.device_s, phases.host_s, phases.total_s
    stretch = np.divide(total_s, device_s, out=np.ones(len(PHASES)), where=device_s > 0)
    layers, points = by_op(
        step, times, times.seconds * stretch[phase], phase, host_s > device_s, longest
    )
    forward_s, backward_s, recompute_s, update_s = map(float, total_s)
    step_s = float(total_s.sum()) + phases.between_s
    edits, drawn = said(device.edits), energy.of_one(device, times, step_s)
    counted = totals(step, longest=longest)
    held = memory_fields(memory, device.memory, longest or step)
    host_total = float(host_s.sum()) + phases.program_s
    spent = by_kernels(times, phases)
    share = shares(spent[:3].sum(axis=0), spent[3], step_s, phases.between_s)
    rates = counted.fields(step_s, peak)
    bandwidth = device.memory.bandwidth
    of_step = step_s, rates["hfu"], sum(counted.moved.values()), bandwidth, host_total, held
    return Forecast(
        **asked_fields(asked, step),
        step_time_s=step_s,
        lower_bound_s=float(times.lower.sum()),
        forward_s=forward_s,
        backward_s=backward_s + recompute_s,
        update_s=update_s,
        host_s=host_total,
        between_steps_s=phases.between_s,
        samples_per_s=run.samples / step_s,
        tokens_per_s=run.tokens / step_s if run.tokens else None,
        parameters=int(step.parameters),
        **rates,
        memory=held,
        layers=layers,
        points=points,
        limits=limits(share, *of_step),
        **run_fields(run, step, step_s, drawn),
        diagnosis=diagnose(
            Spent.of(spent[:3].sum(axis=0), spent[3]), step_s, phases.between_s, device, memory
        ),
        assumptions=(
            *asked.assumptions,
            *step.assumptions,
            *said_of_cache(step, asked.layout),
            *times.assumptions,
            *energy.said(device, drawn, run),
            *edits,
        ),
    )
