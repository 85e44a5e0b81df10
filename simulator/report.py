"""Puts a forecast together: sums by op, totals, rates, money, energy, a sentence of diagnosis."""

from __future__ import annotations

import numpy as np

from hwdb.constants import Kernels
from hwdb.constants import kernels as constants
from hwdb.records import Device
from simulator.forecast import Forecast, LayerForecast, MemoryForecast, Point
from simulator.memory import Held
from simulator.model import Model
from simulator.precision import precision
from simulator.resolve import length
from simulator.roofline import BOUNDS, OpTimes, computed, rates_of
from simulator.scenario import Scenario
from simulator.stack import Stack
from simulator.step import Step, runs
from simulator.times.host import combine, slowness
from simulator.traced import Kernel

OWN_LAUNCHES = ("optimizer", "accumulate")  # kernels whose shape says how many launches they are, where they have one
MANY, MOST = 8, 0.7  # layers that are alike make most of a step, where it is told as one: of so many, so much of its launches
PHASES = ("forward", "backward", "recompute", "update")


def assemble(
    s: Scenario, device: Device, model: Model, step: Step, times: OpTimes, memory: Held, said: list[str], waits: bool = True
) -> Forecast:  # fmt: skip
    """Everything the stages found, as one value. `waits`: with the host's waits for token counts and between steps, which are told apart
    over several devices."""
    recipe = step.recipe
    phase = np.array([PHASES.index(k.phase) for k in step.kernels])
    device_s, host_s, total_s = by_phase(step, times.seconds, phase, device, constants(), waits)
    stretch = np.divide(total_s, device_s, out=np.ones(4), where=device_s > 0)
    seconds = times.seconds * stretch[phase]
    late = host_s > device_s
    layers, points = by_op(step, times, seconds, phase, late)

    forward_s, backward_s, recompute_s, update_s = map(float, total_s)
    between = between_steps(recipe.stack, device, constants()) if waits else 0.0
    step_s = float(total_s.sum()) + between
    flops = {p: sum(k.matrix * k.count for k in step.kernels if k.phase == p) for p in PHASES}
    moved = {p: sum((k.read + k.written) * k.count for k in step.kernels if k.phase == p) for p in PHASES}
    kept = {kind: sum(c.bytes * c.count for c in step.counted if c.kind == kind) for kind in ("activation", "input", "weight_copy")}
    peak = float(rates_of(device, precision(recipe.precision).product).rates.matrix)
    training = recipe.mode == "train"
    tokens = recipe.batch * recipe.size if model.takes == "sequence" and recipe.size else None
    steps = length(s, tokens, recipe.batch)
    price = s.price_per_hour if s.price_per_hour is not None else device.price.cloud_usd_per_hour
    hours = steps * step_s / 3600 if steps else None
    power = device.power.tdp
    capacity = device.memory.capacity
    assumptions = [*said, *times.assumptions, *(f"imagined: {edit}" for edit in device.edits)]
    return Forecast(
        model=model.name, device=device.id, mode=recipe.mode, batch=recipe.batch,
        sequence=recipe.size if model.takes == "sequence" else None, image=recipe.size if model.takes == "image" else None,
        precision=recipe.precision, optimizer=recipe.optimizer, recompute=recipe.recompute,
        attention=recipe.stack.implementations.get("attention", "flash"), stack=recipe.stack.name,
        step_time_s=step_s, lower_bound_s=float(times.lower.sum()),
        forward_s=forward_s, backward_s=backward_s + recompute_s, update_s=update_s, host_s=float(host_s.sum()), between_steps_s=between,
        samples_per_s=recipe.batch / step_s, tokens_per_s=tokens / step_s if tokens else None,
        mfu=(3 if training else 1) * flops["forward"] / (step_s * peak),
        hfu=(flops["forward"] + flops["backward"] + flops["recompute"]) / (step_s * peak),
        parameters=int(step.parameters), flops_forward=float(flops["forward"]), flops_backward=float(flops["backward"]),
        flops_recompute=float(flops["recompute"]), flops_other=float(sum((k.vector + k.special) * k.count for k in step.kernels)),
        bytes_forward=float(moved["forward"]), bytes_backward=float(moved["backward"] + moved["recompute"]),
        saved_bytes=float(kept["activation"]), saved_input_bytes=float(kept["input"]), saved_weight_copy_bytes=float(kept["weight_copy"]),
        memory=MemoryForecast(
            parameters_bytes=float(memory.parameters), gradients_bytes=float(memory.gradients), optimizer_bytes=float(memory.optimizer),
            activations_bytes=float(memory.activations), transient_bytes=float(memory.transient), framework_bytes=float(memory.framework),
            peak_bytes=float(memory.total), peak_moment=memory.moment,
            capacity_bytes=float(capacity) if capacity else None, fits=bool(memory.total <= capacity) if capacity else None,
        ),
        layers=layers, points=points, steps=steps, time_to_train_s=hours * 3600 if hours is not None else None,
        cost_usd=hours * price if hours is not None and price is not None else None,
        energy_j=hours * 3600 * power if hours is not None and power else None,
        power_w=float(power) if power else None, price_usd_per_hour=float(price) if price is not None else None,
        diagnosis=diagnose(layers, step_s, between, device, memory, recipe), assumptions=tuple(assumptions),
    )  # fmt: skip


def by_phase(step: Step, seconds, phase, device: Device, c: Kernels, waits: bool = True):
    """Seconds of each phase: of the device, of the host that launches, of both together. Of a step that is mostly layers that are all
    alike, both together are told run by run, as over several devices; of any other as one stretch a phase."""
    host, stack = dispatch(step, device, c), step.recipe.stack
    key = runs(step)
    places = {k: i for i, k in enumerate(dict.fromkeys(key))}
    of = np.array([places[key[k.node]] for k in step.kernels])
    device_s, host_s = np.zeros((2, len(places), 4))
    np.add.at(device_s, (of, phase), seconds)
    np.add.at(host_s, (of, phase), host)
    expert = {places[key[w.node]] for w in step.weights if w.expert}
    if waits and device.kind != "cpu":
        for i in expert:
            host_s[i, : 2 if step.recipe.mode == "train" else 1] += token_counts(stack, device, c) * _count(step, list(places)[i])
    whole_device, whole_host = device_s.sum(axis=0), host_s.sum(axis=0)
    if device.kind == "cpu":
        return whole_device, whole_host, whole_device + whole_host
    if alike(step):
        ahead = [runs_ahead(_count(step, k), i in expert, stack) for k, i in places.items()]
        total_s = sum(combine(d, h, c, free) for d, h, free in zip(device_s, host_s, ahead, strict=True))
    else:
        total_s = combine(whole_device, whole_host, c)
    return whole_device, whole_host, np.where(whole_device > 0, total_s, 0.0)


def between_steps(stack: Stack, device: Device, c: Kernels) -> float:
    """Host seconds a step that nothing hides: a session's call, input, logging. More on an older host."""
    return float(stack.step_s * (slowness(device.year, c) if device.kind != "cpu" else 1.0))


def token_counts(stack: Stack, device: Device, c: Kernels) -> float:
    """Host seconds that a layer of experts waits for its token counts, each way. More on an older host."""
    return float(stack.sync_s * slowness(device.year, c))


def _count(step: Step, key: tuple[str, int]) -> int:
    """How often a run is repeated."""
    return step.blocks[key[1]].count if key[0] == "block" else 1


def runs_ahead(count: float, expert, stack: Stack) -> bool:
    """Does the host run ahead over layers that are alike? Not where it waits in each for experts' token counts."""
    return count > 1 and not (expert and stack.sync_s)


def alike(step: Step) -> bool:
    """Is most of the step a layer that is repeated over and over, as a transformer's?"""
    launches = [(k.count, step.nodes[k.node].layer) for k in step.kernels if k.phase == "forward"]
    repeated = sum(n for n, layer in launches if layer and step.blocks[layer].count >= MANY)
    return repeated > MOST * sum(n for n, _ in launches)


def launch(stack: Stack, device: Device, c: Kernels) -> float:
    """Host seconds to launch a kernel of the forward: nothing under graphs, more on an older host."""
    if stack.graphs:
        return 0.0
    return float(stack.dispatch_s * slowness(device.year, c)) if device.kind != "cpu" else min(stack.dispatch_s, 4e-6)


def dispatch(step: Step, device: Device, c: Kernels) -> np.ndarray:
    """Host seconds to launch each kernel, all repetitions: nothing under graphs, less in backward, more on an older host. Libraries that
    loop over the experts of a grouped product launch for each of them."""
    stack, forward = step.recipe.stack, launch(step.recipe.stack, device, c)
    share = {"forward": 1.0, "recompute": 1.0, "backward": stack.dispatch_backward, "update": 1.0}
    launches = [k.shape[0] if k.kind in OWN_LAUNCHES and k.shape else 1.0 for k in step.kernels]
    if stack.expert_launches:
        for i, k in enumerate(step.kernels):
            if k.kind == "matmul" and step.nodes[k.node].op == "experts":
                launches[i] = stack.expert_launches * k.shape[0]
    return np.array([forward * share[k.phase] * k.count * n for k, n in zip(step.kernels, launches, strict=True)])


def by_op(step: Step, times: OpTimes, seconds, phase, waits):
    """Kernels summed by named op, and by op and phase for the roofline picture."""
    rows: dict[str, dict] = {}
    drawn: dict[tuple, dict] = {}
    for i, node in enumerate(step.nodes):
        empty = {"op": node.op, "nodes": [], "s": np.zeros(4), "low": 0.0, "flops": 0.0, "bytes": 0.0, "bound": np.zeros(5)}
        rows.setdefault(node.name, empty)["nodes"].append(i)
    for i, k in enumerate(step.kernels):
        node = step.nodes[k.node]
        row = rows[node.name]
        row["s"][phase[i]] += seconds[i]
        row["low"] += times.lower[i]
        work = (k.matrix + k.vector + k.special) * k.count
        row["flops"] += work
        row["bytes"] += (k.read + k.written) * k.count
        row["bound"][4 if waits[phase[i]] else times.bound[i]] += seconds[i]
        when = "backward" if k.phase == "recompute" else k.phase
        point = drawn.setdefault(
            (node.name, when), {"op": node.op, "flops": 0.0, "bytes": 0.0, "s": 0.0, "matrix": 0.0, "product": k.product}
        )
        point["flops"] += work - masked(k)
        point["bytes"] += (k.read + k.written) * k.count
        point["s"] += seconds[i]
        if k.matrix:
            point["matrix"] += k.matrix * k.count - masked(k)
            point["product"] = k.product
    parameters, saved = _per_node(step)
    layers = tuple(
        LayerForecast(
            name=name, op=r["op"], count=sum(step.nodes[n].count for n in r["nodes"]),
            parameters=int(sum(parameters.get(n, 0) for n in r["nodes"])),
            flops=float(r["flops"]), bytes=float(r["bytes"]), saved_bytes=float(sum(saved.get(n, 0) for n in r["nodes"])),
            time_s=float(r["s"].sum()), forward_s=float(r["s"][0]), backward_s=float(r["s"][1] + r["s"][2]), update_s=float(r["s"][3]),
            lower_bound_s=float(r["low"]), bound=(*BOUNDS, "host")[int(r["bound"].argmax())] if r["s"].any() else "fused",
        )
        for name, r in rows.items()
    )  # fmt: skip
    points = tuple(
        Point(name=name, op=p["op"], phase=when, unit="matrix" if p["matrix"] > 0.5 * p["flops"] else "vector",
              precision=p["product"] if p["matrix"] > 0.5 * p["flops"] else "fp32",
              flops=float(p["flops"]), bytes=float(p["bytes"]), time_s=float(p["s"]))
        for (name, when), p in drawn.items()
    )  # fmt: skip
    return layers, points


def masked(k: Kernel) -> float:
    """Matrix FLOPs that are counted and never done: what an attention kernel skips."""
    return (1.0 - computed(k)) * k.matrix * k.count if k.kind == "attention" else 0.0


def _per_node(step: Step):
    parameters: dict[int, int] = {}
    for w in step.weights:
        parameters[w.node] = parameters.get(w.node, 0) + w.size * w.count
    saved: dict[int, float] = {}
    for k in step.counted:
        if k.kind == "activation":
            saved[k.node] = saved.get(k.node, 0) + k.bytes * k.count
    return parameters, saved


LIMITS = {
    "matrix": ("the matrix units", "a higher matrix rate or a lower precision"),
    "vector": ("the vector units", "a higher vector rate or fewer pointwise operations"),
    "memory": ("memory bandwidth", "more bandwidth, fused kernels, or a larger batch where weights dominate"),
    "latency": ("the start of small kernels", "a larger batch or fewer, fused kernels"),
    "host": ("the host, which launches kernels slower than the device runs them", "CUDA graphs, a compiled stack, or a larger batch"),
}


def diagnose(layers, step_s: float, between_s: float, device: Device, memory: Held, recipe, zero: int | None = None) -> str:
    """One sentence: what limits this step, and what would move it. `zero`: what data-parallel ranks share already; None: there are none."""
    share: dict[str, float] = {}
    for layer in layers:
        share[layer.bound] = share.get(layer.bound, 0.0) + layer.time_s
    if not share or step_s <= 0:
        return ""
    first, *rest = sorted(share, key=share.get, reverse=True)
    what, cure = LIMITS[first]
    text = f"{100 * share[first] / step_s:.0f} % of the step is bound by {what}; {cure} would shorten it"
    if rest and share[rest[0]] > 0.2 * step_s:
        text += f" ({100 * share[rest[0]] / step_s:.0f} % is bound by {LIMITS[rest[0]][0]})"
    if between_s > 0.2 * step_s:
        text += f"; {100 * between_s / step_s:.0f} % is the host's, between steps: a larger batch would spread it"
    capacity = device.memory.capacity
    if capacity and memory.total > capacity:
        kinds = {
            "optimizer states": memory.optimizer,
            "activations": memory.activations,
            "parameters": memory.parameters,
            "gradients": memory.gradients,
        }
        most = max(kinds, key=kinds.get)
        cures = {"optimizer states": "an 8-bit optimizer or more devices",
                 "activations": "recompute full, a smaller batch or a shorter sequence",
                 "parameters": "a device with more memory or more devices", "gradients": "more devices"}  # fmt: skip
        shares = {"optimizer states": 1, "gradients": 2, "parameters": 3}  # from which stage of ZeRO on
        if zero is not None and zero < shares.get(most, 0):
            cures |= {"optimizer states": "--zero 1 or an 8-bit optimizer", "gradients": "--zero 3", "parameters": "--zero 3"}
        text += f". It does not fit: most of the memory is {most}; {cures[most]} would help"
    return text + "."
