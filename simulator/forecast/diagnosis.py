"""One or two sentences on what limits a step, and what would shorten it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.rows import LIMITS as OF_KERNELS
from roofcast.simulator.memory import Held
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.precision import PRECISIONS, WIDTH, precision

if TYPE_CHECKING:
    from roofcast.simulator.parallel.step import ParallelStep

LOWER = " or a lower precision"
LIMITS = {  # limit: what it is, what would help
    "matrix": ("the matrix units", f"a higher matrix rate{LOWER}"),
    "vector": ("the vector units", "a higher vector rate or fewer pointwise operations"),
    "memory": ("memory bandwidth", "more bandwidth or fused kernels"),
    "latency": ("the fixed cost of small kernels", "a larger batch or fewer, fused kernels"),
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
    "tensor": ("tensor-parallel communication", "a faster link between devices or a smaller --tp"),
    "pipeline": ("sends between pipeline stages", "a faster network or fewer stages"),
}
CURES = {  # what most of the memory is: what would help
    "optimizer states": "more devices",
    "activations": "--recompute full, a smaller batch or a shorter sequence",
    "parameters": "a device with more memory or more devices",
    "gradients": "more devices",
}
SHARDED = {  # what ZeRO shards: from which stage on, what to ask for
    "optimizer states": (1, "--zero 1"),
    "gradients": (2, "--zero 3"),
    "parameters": (3, "--zero 3"),
}
EIGHT_BIT = 0.75  # of the optimizer states that an 8-bit optimizer saves, from 32 bits
MINOR = 0.05  # a loss, or a second limit, below this fraction of the step is not mentioned
ASIDE = 0.01  # from this fraction on, shares of the passes without the optimizer say so
NOTABLE = 0.2  # the optimizer, or host time, is mentioned from this fraction on
GIB = 2.0**30


class Spent(NamedTuple):
    """Seconds of a step of one device."""

    passes: Mapping[str, float]  # forward and backward, by what limits their kernels
    update: float  # the optimizer

    @classmethod
    def of(cls, passes: np.ndarray, update: np.ndarray) -> Spent:
        """From seconds by index into rows.LIMITS."""
        return cls(dict(zip(OF_KERNELS, passes.tolist(), strict=True)), float(update.sum()))


def diagnose(
    spent: Spent,
    step_s: float,
    between_s: float,
    device: Device,
    memory: Held,
    zero: int | None = None,
) -> str:
    """What limits this step, the largest first, and what would help.

    between_s: host seconds between steps; zero: the ZeRO stage of the data-parallel ranks, None
    where there is only one.
    """
    share, update_s = spent
    if not any(share.values()) or step_s <= 0:
        return ""
    first, *rest = sorted(share, key=lambda bound: share[bound], reverse=True)
    what, cure = LIMITS[first]
    second = ""
    beside = ", the optimizer aside" if update_s >= ASIDE * step_s else ""
    if rest and share[rest[0]] > MINOR * step_s:
        second = f" ({_percent(share[rest[0]], step_s)} is bound by {LIMITS[rest[0]][0]}{beside})"
    parts = [(share[first], f"is bound by {what}; {cure} would help{second}")]
    if update_s >= NOTABLE * step_s:
        parts.append(
            (
                update_s,
                "is the optimizer, which more micro-batches per step (accumulation) amortise, at"
                " the cost of the gradients of all parameters in memory",
            )
        )
    if between_s > NOTABLE * step_s:
        parts.append((between_s, "is host time between steps, which a larger batch would amortise"))
    parts.sort(key=lambda part: part[0], reverse=True)
    said = [f"{_percent(seconds, step_s)} {text}" for seconds, text in parts]
    text = "; ".join(said).replace(" % is", " % of the step is", 1)
    if device.memory.limit and memory.total > device.memory.limit:
        text += f". {_does_not_fit(memory, float(device.memory.limit), zero)}"
    return text + "."


def advised(text: str, device: Device, name: str, training: bool) -> str:
    """A diagnosis without the advice to lower a precision, where the device multiplies no format
    of fewer bits faster than that of the step.
    """
    now = precision(name).product
    formats = {p.product for p in PRECISIONS.values() if p.trains or not training}
    rates = {key: device.peak_flops.get(key) or 0.0 for key in formats}
    lower = any(WIDTH[key] < WIDTH[now] and rates[key] > rates[now] for key in formats)
    return text if lower else text.replace(LOWER, "")


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _does_not_fit(memory: Held, capacity: float, zero: int | None) -> str:
    """The largest part of the memory, and what would help."""
    kinds = {
        "optimizer states": memory.optimizer,
        "activations": memory.activations,
        "parameters": memory.parameters,
        "gradients": memory.gradients,
    }
    most = max(kinds, key=lambda kind: kinds[kind])
    stage, sharding = SHARDED.get(most, (0, ""))
    cure = sharding if zero is not None and zero < stage else CURES[most]
    saved = EIGHT_BIT * memory.optimizer
    if most == "optimizer states" and memory.total - saved <= capacity:
        cure = f"an 8-bit optimizer (--optimizer adam8bit) or {cure}"
    size = kinds[most] / GIB
    part = f"{size:,.0f} GiB" if size >= 1000 else f"{size:.3g} GiB"
    part = f"{part}, {_percent(kinds[most], memory.total)} of the peak"
    return f"It does not fit: the largest part is {most} ({part}); {cure} would help"


def diagnose_parallel(
    on_one_device: str,
    spent: Spent,
    step_s: float,
    uneven_s: float,
    waiting_s: float,
    exposed: dict[str, float],
    outcome: ParallelStep,
    layout: Layout,
) -> str:
    """The diagnosis of one device, and the largest loss that several devices add to it; the larger
    of the two first.

    uneven_s: what the slowest pipeline stage takes longer than the mean; waiting_s: waits for the
    host; exposed: communication that nothing hides, by kind [s].
    """
    usual = "a faster network or a smaller group"
    losses = [
        (seconds, *LOSSES.get(kind, (f"{kind}-parallel communication", usual)))
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
    over = f"Over {layout.devices:,} devices " if layout.devices > 1 else ""
    lost = f"{over}{_percent(worst, step_s)} of the step is lost to {what}; {cure} would help"
    largest = max([spent.update, *spent.passes.values()])
    parts = [f"{lost}.", on_one_device] if worst > largest else [on_one_device, f"{lost}."]
    return " ".join(filter(None, parts))
