"""A step's kernels summed by named op: the rows of a forecast, and the points of its roofline."""

from __future__ import annotations

import msgspec
import numpy as np

from roofcast.hwdb.formats import WIDTH
from roofcast.simulator.forecast.result import LayerForecast, Point
from roofcast.simulator.times.dispatch import PHASES
from roofcast.simulator.times.grouped import computed
from roofcast.simulator.times.roofline import BOUNDS, OpTimes
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Kernel

LIMITS = (*BOUNDS, "host")
HOST = LIMITS.index("host")


class _Row(msgspec.Struct):
    """Sums over the kernels of one named op."""

    op: str
    nodes: list[int]
    seconds: list[float]  # by phase
    bound: list[float]  # seconds by limit
    lower: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


class _Sum(msgspec.Struct):
    """Sums over the kernels of one named op in one phase."""

    op: str
    product: str
    flops: float = 0.0
    matrix: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0


def by_op(
    step: Step,
    times: OpTimes,
    seconds: np.ndarray,
    phase: np.ndarray,
    host_bound: np.ndarray,
    longest: Step | None = None,
) -> tuple[tuple[LayerForecast, ...], tuple[Point, ...]]:
    """Rows and roofline points of a step. longest: the step whose memory is held, if another.

    seconds: of each kernel, host time included; phase: index into PHASES of each kernel;
    host_bound: for each phase, whether the host takes longer than the device.
    """
    rows: dict[str, _Row] = {}
    sums: dict[tuple[str, str], _Sum] = {}
    for i, node in enumerate(step.nodes):
        if node.name not in rows:
            rows[node.name] = _Row(node.op, [], [0.0] * len(PHASES), [0.0] * len(LIMITS))
        rows[node.name].nodes.append(i)
    limit = np.where(host_bound[phase], HOST, times.bound)
    # numbers of lists are faster to read one by one than those of arrays
    each = (seconds.tolist(), times.lower.tolist(), phase.tolist(), limit.tolist())
    for k, s, lower, p, bound in zip(step.kernels, *each, strict=True):
        node = step.nodes[k.node]
        row = rows[node.name]
        work = (k.matrix + k.vector + k.special) * k.count
        moved, skipped = (k.read + k.written) * k.count, masked(k)
        row.seconds[p] += s
        row.bound[bound] += s
        row.lower += lower
        row.flops += work
        row.bytes += moved
        when = "backward" if k.phase == "recompute" else k.phase
        key = (node.name, when)
        if key not in sums:
            sums[key] = _Sum(node.op, k.product)
        point = sums[key]
        point.flops += work - skipped
        point.bytes += moved
        point.seconds += s
        if k.matrix:
            point.matrix += k.matrix * k.count - skipped
            point.product = k.product
    return _layers(step, rows, longest or step), _points(sums)


def _layers(step: Step, rows: dict[str, _Row], longest: Step) -> tuple[LayerForecast, ...]:
    parameters: dict[int, int] = {}
    held: dict[int, float] = {}
    for w in step.weights:
        n = w.size * w.count
        parameters[w.node] = parameters.get(w.node, 0) + n
        held[w.node] = held.get(w.node, 0.0) + n * WIDTH[w.dtype]
    saved: dict[str, float] = {}
    for s in longest.counted:
        if s.kind == "activation":
            saver = longest.nodes[s.node].name
            saved[saver] = saved.get(saver, 0) + s.bytes * s.count
    return tuple(
        LayerForecast(
            name=name,
            op=r.op,
            count=sum(step.nodes[n].count for n in r.nodes),
            parameters=int(sum(parameters.get(n, 0) for n in r.nodes)),
            flops=float(r.flops),
            bytes=float(r.bytes),
            saved_bytes=float(saved.get(name, 0)),
            parameters_bytes=float(sum(held.get(n, 0.0) for n in r.nodes)),
            time_s=float(sum(r.seconds)),
            forward_s=float(r.seconds[0]),
            backward_s=float(r.seconds[1] + r.seconds[2]),
            update_s=float(r.seconds[3]),
            lower_bound_s=float(r.lower),
            bound=LIMITS[r.bound.index(max(r.bound))] if any(r.seconds) else "fused",
        )
        for name, r in rows.items()
    )


def _points(sums: dict[tuple[str, str], _Sum]) -> tuple[Point, ...]:
    return tuple(
        Point(
            name=name,
            op=p.op,
            phase=when,
            unit="matrix" if p.matrix > 0.5 * p.flops else "vector",
            precision=p.product if p.matrix > 0.5 * p.flops else "fp32",
            flops=float(p.flops),
            bytes=float(p.bytes),
            time_s=float(p.seconds),
        )
        for (name, when), p in sums.items()
    )


def masked(k: Kernel) -> float:
    """Matrix FLOPs that are counted but not executed: those an attention kernel skips [FLOP]."""
    return (1.0 - computed(k)) * k.matrix * k.count if k.kind == "attention" else 0.0
