"""One or two sentences on what limits a step, and what would shorten it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from roofcast.hwdb.records import Device
from roofcast.simulator.forecast.result import LayerForecast
from roofcast.simulator.memory import Held
from roofcast.simulator.parallel.layout import Layout

if TYPE_CHECKING:
    from roofcast.simulator.parallel.step import ParallelStep

LIMITS = {  # limit: what it is, what would help
    "matrix": ("the matrix units", "a higher matrix rate or a lower precision"),
    "vector": ("the vector units", "a higher vector rate or fewer pointwise operations"),
    "memory": (
        "memory bandwidth",
        "more bandwidth, fused kernels, or a larger batch where weights dominate",
    ),
    "latency": ("the start of small kernels", "a larger batch or fewer, fused kernels"),
    "host": (
        "the host, which launches kernels more slowly than the device runs them",
        "CUDA graphs, a compiled stack, or a larger batch",
    ),
}
LOSSES = {  # kind of traffic: what the step is lost to, what would help
    "sharded weights": (
        "gathering sharded weights",
        "a faster network, more samples per device, or sharding within a node",
    ),
    "offload": (
        "copies between device and host",
        "a faster link to the host, or keeping more on the device",
    ),
    "data": ("the reduction of gradients", "a faster network, or more samples per device"),
}
CURES = {  # what most of the memory is: what would help
    "optimizer states": "an 8-bit optimizer or more devices",
    "activations": "recompute full, a smaller batch or a shorter sequence",
    "parameters": "a device with more memory or more devices",
    "gradients": "more devices",
}
SHARDED = {  # what ZeRO shards: from which stage on, what to ask for
    "optimizer states": (1, "--zero 1 or an 8-bit optimizer"),
    "gradients": (2, "--zero 3"),
    "parameters": (3, "--zero 3"),
}
MINOR = 0.05  # a loss below this share of the step is not mentioned


def diagnose(
    layers: Iterable[LayerForecast],
    step_s: float,
    between_s: float,
    device: Device,
    memory: Held,
    zero: int | None = None,
) -> str:
    """What limits this step, and what would shorten it.

    between_s: host seconds between steps; zero: the ZeRO stage of the data-parallel ranks, None
    where there is only one.
    """
    share: dict[str, float] = {}
    for layer in layers:
        share[layer.bound] = share.get(layer.bound, 0.0) + layer.time_s
    if not share or step_s <= 0:
        return ""
    first, *rest = sorted(share, key=lambda bound: share[bound], reverse=True)
    what, cure = LIMITS[first]
    text = f"{_percent(share[first], step_s)} of the step is bound by {what};"
    text += f" {cure} would shorten it"
    if rest and share[rest[0]] > 0.2 * step_s:
        text += f" ({_percent(share[rest[0]], step_s)} is bound by {LIMITS[rest[0]][0]})"
    if between_s > 0.2 * step_s:
        text += f"; {_percent(between_s, step_s)} is host time between steps, which a larger"
        text += " batch would amortise"
    if device.memory.capacity and memory.total > device.memory.capacity:
        text += f". {_does_not_fit(memory, zero)}"
    return text + "."


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _does_not_fit(memory: Held, zero: int | None) -> str:
    """What takes most of the memory, and what would help."""
    kinds = {
        "optimizer states": memory.optimizer,
        "activations": memory.activations,
        "parameters": memory.parameters,
        "gradients": memory.gradients,
    }
    most = max(kinds, key=lambda kind: kinds[kind])
    stage, sharding = SHARDED.get(most, (0, ""))
    cure = sharding if zero is not None and zero < stage else CURES[most]
    return f"It does not fit: most of the memory is {most}; {cure} would help"


def diagnose_parallel(
    on_one_device: str,
    step_s: float,
    uneven_s: float,
    waiting_s: float,
    exposed: dict[str, float],
    outcome: ParallelStep,
    layout: Layout,
) -> str:
    """The diagnosis of one device, and the largest loss that several devices add to it.

    uneven_s: what the slowest pipeline stage takes longer than the mean; waiting_s: waits for the
    host; exposed: communication that nothing hides, by kind [s].
    """
    usual = "a faster network or fewer ranks in that group"
    losses = [
        (seconds, *LOSSES.get(kind, (f"{kind} parallel traffic", usual)))
        for kind, seconds in exposed.items()
    ]
    counts = ", or experts of a fixed capacity, which need no token counts"
    graphs = "CUDA graphs or more samples per micro-batch"
    losses += [
        (outcome.bubble * step_s, "the pipeline bubble", "more micro-batches or virtual stages"),
        (uneven_s, "uneven pipeline stages", "fewer layers on the slowest stage (--stages)"),
        (outcome.between_s, "the host between steps", "a larger batch"),
        (waiting_s, "waiting for the host", graphs + (counts if "expert" in exposed else "")),
    ]
    if "optimizer" in layout.offload:
        on_host = "keeping its states on the device"
        losses.append((outcome.update_s, "the optimizer on the host", on_host))
    worst, what, cure = max(losses)
    if worst < MINOR * step_s:
        return on_one_device
    over = f"Over {layout.devices} devices " if layout.devices > 1 else ""
    lost = f"{over}{_percent(worst, step_s)} of the step is lost to {what}; {cure} would shorten it"
    return f"{on_one_device} {lost}.".strip()
