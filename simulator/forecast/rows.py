"""A step's kernels summed by named op: the rows of a forecast, and the points of its roofline."""

from __future__ import annotations

import msgspec
import numpy as np

from roofcast.simulator.forecast.result import LayerForecast, Point
from roofcast.simulator.times.dispatch import PHASES
from roofcast.simulator.times.roofline import BOUNDS, OpTimes, computed
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Kernel

LIMITS = (*BOUNDS, "host")
HOST = LIMITS.index("host")


class _Row(msgspec.Struct):
    """Sums over the kernels of one named op."""

    op: str
    nodes: list[int]
    seconds: np.ndarray  # by phase
    bound: np.ndarray  # seconds by limit
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
    step: Step, times: OpTimes, seconds: np.ndarray, phase: np.ndarray, host_bound: np.ndarray
) -> tuple[tuple[LayerForecast, ...], tuple[Point, ...]]:
    """Rows and roofline points of a step.

    seconds: of each kernel, host time included; phase: index into PHASES of each kernel;
    host_bound: for each phase, whether the host takes longer than the device.
    """
    rows: dict[str, _Row] = {}
    sums: dict[tuple[str, str], _Sum] = {}
    for i, node in enumerate(step.nodes):
        empty = _Row(node.op, [], np.zeros(len(PHASES)), np.zeros(len(LIMITS)))
        rows.setdefault(node.name, empty).nodes.append(i)
    for i, k in enumerate(step.kernels):
        node = step.nodes[k.node]
        row = rows[node.name]
        work = (k.matrix + k.vector + k.special) * k.count
        moved = (k.read + k.written) * k.count
        row.seconds[phase[i]] += seconds[i]
        row.bound[HOST if host_bound[phase[i]] else times.bound[i]] += seconds[i]
        row.lower += times.lower[i]
        row.flops += work
        row.bytes += moved
        when = "backward" if k.phase == "recompute" else k.phase
        point = sums.setdefault((node.name, when), _Sum(node.op, k.product))
        point.flops += work - masked(k)
        point.bytes += moved
        point.seconds += seconds[i]
        if k.matrix:
            point.matrix += k.matrix * k.count - masked(k)
            point.product = k.product
    return _layers(step, rows), _points(sums)


def _layers(step: Step, rows: dict[str, _Row]) -> tuple[LayerForecast, ...]:
    parameters: dict[int, int] = {}
    for w in step.weights:
        parameters[w.node] = parameters.get(w.node, 0) + w.size * w.count
    saved: dict[int, float] = {}
    for s in step.counted:
        if s.kind == "activation":
            saved[s.node] = saved.get(s.node, 0) + s.bytes * s.count
    return tuple(
        LayerForecast(
            name=name,
            op=r.op,
            count=sum(step.nodes[n].count for n in r.nodes),
            parameters=int(sum(parameters.get(n, 0) for n in r.nodes)),
            flops=float(r.flops),
            bytes=float(r.bytes),
            saved_bytes=float(sum(saved.get(n, 0) for n in r.nodes)),
            time_s=float(r.seconds.sum()),
            forward_s=float(r.seconds[0]),
            backward_s=float(r.seconds[1] + r.seconds[2]),
            update_s=float(r.seconds[3]),
            lower_bound_s=float(r.lower),
            bound=LIMITS[int(r.bound.argmax())] if r.seconds.any() else "fused",
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
