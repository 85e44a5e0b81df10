"""The limits of a step told apart: which part of its time each resource bounds, and how much of the
resource the step uses.

    share    = time of the step that the resource bounds / time of the step; the shares sum to 1
    used     = time that the resource would need alone, at its datasheet rate / time of the step
    headroom = 1 - used

The time of a kernel counts for the limit that most of its time comes from. A resource that bounds
much of a step and is little used runs far below its datasheet rate; one with headroom that bounds
nothing would take that much more work before it could bind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from roofcast.simulator.forecast.result import Limit, MemoryForecast
from roofcast.simulator.forecast.rows import LIMITS
from roofcast.simulator.times.dispatch import PHASES, Phases
from roofcast.simulator.times.roofline import OpTimes

if TYPE_CHECKING:
    from roofcast.simulator.parallel.traffic import Placement

COMPUTE, MEMORY, NETWORK, HOST = "compute", "memory bandwidth", "network", "host"
LATENCY, WAITING = "kernel latency", "pipeline"
CAPACITY, INPUT = "memory capacity", "input"
OF_KERNELS = {  # limit of a kernel: limit of the step
    "matrix": COMPUTE, "vector": COMPUTE, "memory": MEMORY, "latency": LATENCY, "host": HOST,
}  # fmt: skip
TIMED = (COMPUTE, MEMORY, LATENCY, NETWORK, HOST, WAITING)
ON_HOST = ("offload",)  # traffic between device and host
ROUNDING = 1e-9  # of a step: a difference that is none
NOT_MODELLED = "not modelled: samples are taken to be there in time"


def by_kernels(times: OpTimes, phases: Phases) -> np.ndarray:
    """Seconds of each phase by what limits its kernels: [phase, index into rows.LIMITS]."""
    device_s, host_s, total_s = phases.device_s, phases.host_s, phases.total_s
    stretch = np.divide(total_s, device_s, out=np.ones(len(PHASES)), where=device_s > 0)
    limit = np.where((host_s > device_s)[phases.of], LIMITS.index("host"), times.bound)
    found = np.zeros((len(PHASES), len(LIMITS)))
    np.add.at(found, (phases.of, limit), times.seconds * stretch[phases.of])
    return found


def shares(
    passes: np.ndarray,
    update: np.ndarray,
    step_s: float,
    host_s: float = 0.0,
    traffic_s: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The share of a step's time that each limit bounds; together 1.

    passes, update: seconds by index into rows.LIMITS; host_s: further time of the host that nothing
    hides; traffic_s: exposed communication by kind. What is left is waiting between pipeline
    stages.
    """
    found = dict.fromkeys(TIMED, 0.0)
    for name, seconds in zip(LIMITS, (passes + update).tolist(), strict=True):
        found[OF_KERNELS[name]] += seconds
    found[HOST] += host_s
    for kind, seconds in (traffic_s or {}).items():
        found[HOST if kind in ON_HOST else NETWORK] += seconds
    total = sum(found.values())
    if total > (1.0 - ROUNDING) * step_s > 0:
        found = {name: seconds * step_s / total for name, seconds in found.items()}
    else:
        found[WAITING] += step_s - total
    return {name: seconds / step_s if step_s > 0 else 0.0 for name, seconds in found.items()}


def limits(
    share: Mapping[str, float],
    step_s: float,
    hfu: float,
    moved: float,
    bandwidth: float | None,
    host_s: float,
    memory: MemoryForecast,
    on_links: float | None = None,
) -> tuple[Limit, ...]:
    """The limits of a step, those of its time first.

    moved: bytes that one device reads and writes in its memory; bandwidth: of that memory, printed;
    host_s: of one device's host, hidden or not; on_links: seconds of the busiest links at their
    printed rate, None on one device.
    """
    used: dict[str, float | None] = {
        COMPUTE: hfu,
        MEMORY: moved / bandwidth / step_s if bandwidth and step_s > 0 else None,
        HOST: host_s / step_s if step_s > 0 else None,
        NETWORK: None if on_links is None or not step_s else on_links / step_s,
    }
    found = [_limit(name, used.get(name), share[name]) for name in TIMED]
    capacity = memory.capacity_bytes
    found.append(_limit(CAPACITY, memory.peak_bytes / capacity if capacity else None, None))
    return (*found, Limit(name=INPUT, note=NOT_MODELLED))


def _limit(name: str, used: float | None, share: float | None) -> Limit:
    headroom = None if used is None else max(1.0 - used, 0.0)
    return Limit(name=name, share=share, used=used, headroom=headroom)


def seconds_on_links(at: Placement, sent: Mapping[str, float]) -> float:
    """Seconds in which the links of a device would send its bytes of a step at their printed rates:
    of the busiest level of the network, over all kinds of traffic. A lower bound: in a ring over
    nodes only one member of each node sends out of it.

    sent: bytes that one device sends in a step, by kind.
    """
    busy = np.zeros(len(at.network.fabric.levels))
    for kind, size in sent.items():
        if kind in ON_HOST or not size:
            continue
        within = at.network.group({"fsdp": "shard"}.get(kind, kind)).within
        inner = 1.0
        for i, level in enumerate(at.network.fabric.levels):
            members = float(within[i])
            if members > inner:
                busy[i] += size / inner / level.bandwidth
            inner = max(inner, members)
    return float(busy.max(initial=0.0))
