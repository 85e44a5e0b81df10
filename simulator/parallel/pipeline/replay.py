"""A pipeline step replayed operation by operation. Events run in the order of (time, priority,
serial), so that two runs are the same run.

Each rank has a compute stream, which runs its ops in the schedule's order, each as soon as its
inputs have arrived, and a p2p stream. A send holds up its rank's compute, as a blocking exchange
does.
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from roofcast.simulator.parallel.pipeline.orders import Op, order, place
from roofcast.simulator.parallel.pipeline.schedule import Stages, virtual

Done = tuple[str, int, int]  # F or D, micro-batch, part of the model
ARRIVAL, START = 0, 1  # priorities


class Event(NamedTuple):
    """Something that a stage did."""

    stage: int
    stream: str  # compute | p2p
    name: str  # "F3.1": forward of micro-batch 3, part 1 of the model
    start: float  # s
    duration: float  # s


class Replay(NamedTuple):
    """A pipeline step as it ran."""

    total: float  # s
    events: tuple[Event, ...]  # by start, then stage
    # of each stage: (time, micro-batches kept, in units of whole stages)
    in_flight: tuple[tuple[tuple[float, float], ...], ...]


class _Work:
    """What the ops of a schedule take, send, need and give. Seconds are floats, or arrays over
    layouts.
    """

    def __init__(self, stages: Stages, kind: str, p: int, v: int) -> None:
        self.last = max(part for mine in place(kind, p, v) for part in mine)
        self.seconds: dict[tuple[str, str], Any] = {}
        parts = float(virtual(kind, v))
        for index, name in enumerate("FDW"):
            mid = _number(stages[index]) / parts
            first, end = _number(stages.first[index]), _number(stages.last[index])
            self.seconds |= {
                (name, "first"): mid + first,
                (name, "mid"): mid,
                (name, "last"): mid + end,
                (name, "only"): mid + first + end,
            }

    def where(self, part: int) -> str:
        """Place of a part in the model: only, first, mid or last."""
        if self.last == 0:
            return "only"
        return "first" if part == 0 else "last" if part == self.last else "mid"

    def takes(self, op: Op) -> Any:
        """Compute seconds of an op."""
        at, seconds = self.where(op.part), self.seconds
        if op.kind == "X":
            also = self.where(op.also[1])
            return seconds["F", at] + seconds["D", also] + seconds["W", also]
        return seconds["D", at] + seconds["W", at] if op.kind == "B" else seconds[op.kind, at]

    def sends(self, op: Op) -> int:
        """Sends that follow an op."""
        forward = op.kind in "FX" and op.part < self.last
        backward = (op.kind in "BD" and op.part > 0) or (op.kind == "X" and op.also[1] > 0)
        return forward + backward

    def needs(self, op: Op) -> list[Done]:
        """What must be done before an op."""
        result: list[Done] = []
        if op.kind in "FX" and op.part:
            result.append(("F", op.micro, op.part - 1))
        if op.kind in "BDX":
            micro, part = op.also if op.kind == "X" else (op.micro, op.part)
            result.append(("F", micro, part))
            if part < self.last:
                result.append(("D", micro, part + 1))
        return result

    def gives(self, op: Op) -> list[Done]:
        """What is done after an op and its sends."""
        if op.kind == "X":
            return [("F", op.micro, op.part), ("D", *op.also)]
        if op.kind == "W":
            return []
        return [("F" if op.kind == "F" else "D", op.micro, op.part)]


def seconds(
    kind: str, stages: Stages, p: int, v: int, m: ArrayLike, p2p: ArrayLike = 0.0
) -> np.ndarray:
    """Seconds of the step that `replay` runs, without its events. Broadcasts over the times of
    stages, micro-batches and p2p.
    """
    each = [stages.forward, stages.inputs, stages.weights, *stages.first, *stages.last, m, p2p]
    columns = [np.ravel(column) for column in np.broadcast_arrays(*each)]
    total = np.empty(len(columns[0]))
    for same in _same_order(kind, columns):
        f, d, w, f0, d0, w0, f1, d1, w1, count, send = (column[same] for column in columns)
        run = Stages(f, d, w, (f0, d0, w0), (f1, d1, w1))
        times = (float(f[0] / 2), float(d[0] / 2), float(w[0] / 2))
        total[same] = _longest(
            order(kind, p, v, int(count[0]), times), _Work(run, kind, p, v), send
        )
    return total.reshape(np.broadcast_shapes(*map(np.shape, each)))


def _same_order(kind: str, columns: list[np.ndarray]) -> list[np.ndarray]:
    """Indices of the columns' entries whose ops run in one order: those with as many micro-batches;
    of zb-v, whose order depends on the times, each on its own.
    """
    if kind == "zb-v":
        return [np.array([i]) for i in range(len(columns[0]))]
    micro_batches = columns[-2]
    return [np.flatnonzero(micro_batches == m) for m in np.unique(micro_batches)]


def _longest(ops: list[list[Op]], work: _Work, send: np.ndarray) -> Any:
    """Seconds of the longest path through ops that run in order on each rank, as soon as their
    inputs are there.
    """
    send = _number(send) if len(ops) > 1 else 0.0 * _number(send)
    later = np.maximum if np.ndim(send) else max
    free = [0.0 * send for _ in ops]  # when each rank has run the ops so far
    done: dict[Done, Any] = {}
    costs: dict[tuple[str, int, int], tuple[Any, Any]] = {}  # compute, sends; by kind and parts
    position, waiting = [0] * len(ops), list(range(len(ops)))
    while waiting:
        ranks, waiting = waiting, []
        for s in ranks:
            mine, at, now = ops[s], position[s], free[s]
            while at < len(mine):
                op = mine[at]
                needs = work.needs(op)
                if not all(need in done for need in needs):
                    waiting.append(s)
                    break
                same = op.kind, op.part, op.also[1]
                if same not in costs:
                    costs[same] = work.takes(op), work.sends(op) * send
                for need in needs:
                    now = later(now, done[need])
                takes, sent = costs[same]
                now = now + takes + sent
                for what in work.gives(op):
                    done[what] = now
                at += 1
            position[s], free[s] = at, now
    return np.maximum.reduce(free)


def replay(kind: str, stages: Stages, p: int, v: int, m: int, p2p: float = 0.0) -> Replay:
    """The step of `m` micro-batches on `p` stages of `v` parts of one layout; times as in
    schedule.pipeline.
    """
    f, d, w = (float(np.asarray(x)) / 2 for x in stages[:3])
    ops, held = order(kind, p, v, m, (f, d, w)), place(kind, p, v)
    work = _Work(stages, kind, p, v)
    parts = [1.0 if kind == "dualpipe" else float(len(mine)) for mine in held]
    send = p2p if p > 1 else 0.0
    done: set[Done] = set()
    waiting: dict[Done, list[int]] = {}
    arrives: dict[int, list[Done]] = {}
    position, total, events = [0] * p, 0.0, []
    kept: list[list[tuple[float, float]]] = [[(0.0, 0.0)] for _ in range(p)]
    # time, priority, serial, stage
    queue: list[tuple[float, int, int, int]] = [(0.0, START, s, s) for s in range(p)]
    serial = p
    while queue:
        now, priority, number, s = heapq.heappop(queue)
        total = max(total, now)
        if priority == ARRIVAL:
            for what in arrives.pop(number):
                done.add(what)
                for other in waiting.pop(what, ()):
                    serial += 1
                    heapq.heappush(queue, (now, START, serial, other))
            continue
        if position[s] == len(ops[s]):
            continue
        op = ops[s][position[s]]
        missing = next((need for need in work.needs(op) if need not in done), None)
        if missing:
            waiting.setdefault(missing, []).append(s)
            continue
        position[s] += 1
        busy, sent = work.takes(op), work.sends(op) * send
        name = _name(op)
        events.append(Event(s, "compute", name, now, busy))
        if sent:
            events.append(Event(s, "p2p", f"send {name}", now + busy, sent))
        _keep(kept[s], op, now, now + busy, parts[s])
        serial += 2
        arrives[serial - 1] = work.gives(op)
        heapq.heappush(queue, (now + busy + sent, ARRIVAL, serial - 1, s))
        heapq.heappush(queue, (now + busy + sent, START, serial, s))
    events.sort(key=lambda e: (e.start, e.stage, e.stream))
    return Replay(total, tuple(events), tuple(tuple(k) for k in kept))


def _number(x: ArrayLike) -> Any:
    """A float where there is one layout."""
    return float(np.ravel(x)[0]) if np.size(x) == 1 else np.asarray(x)


def _name(op: Op) -> str:
    also = f"+B{op.also[0]}.{op.also[1]}" if op.kind == "X" else ""
    return f"{op.kind}{op.micro}.{op.part}{also}"


def _keep(steps: list[tuple[float, float]], op: Op, start: float, end: float, parts: float) -> None:
    """Records what a rank keeps: one part more when a forward begins, one less after its backward
    for weights. An X keeps its forward's part before it frees its backward's.
    """
    if op.kind in "FX":
        steps.append((start, steps[-1][1] + 1.0 / parts))
    if op.kind in "BWX":
        steps.append((end, steps[-1][1] - 1.0 / parts))


def most_in_flight(run: Replay) -> list[float]:
    """Micro-batches that each stage keeps at peak."""
    return [max(level for _, level in steps) for steps in run.in_flight]
