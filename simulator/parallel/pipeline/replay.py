"""A pipeline step replayed operation by operation. Events run in the order of (time, priority,
serial), so that two runs are the same run.

Each rank has a compute stream, which runs its ops in the schedule's order, each as soon as its
inputs have arrived, and a p2p stream. A send holds up its rank's compute, as a blocking exchange
does.
"""

from __future__ import annotations

import functools
import heapq
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.tuples import NamedTuple
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
        self.stages, self.kind, self.p, self.v = stages, kind, p, v
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
        work, many = _Work(run, kind, p, v), int(count[0])
        if p * many <= LONGEST or many <= STEADY * p:
            total[same] = _of_micro_batches(work, many, send)
            continue
        short, long = steady(p, many)
        first, then = (_of_micro_batches(work, m, send) for m in (short, long))
        total[same] = then + (many - long) * (then - first) / (long - short)
    return total.reshape(np.broadcast_shapes(*map(np.shape, each)))


def steady(p: int, many: int) -> tuple[int, int]:
    """Two numbers of micro-batches from which the seconds of very many follow: between the fill and
    the drain of a pipeline every round of micro-batches takes as long.

    >>> steady(4, 1_000_000_000)
    (544, 1088)
    """
    period = 2 * p  # dualpipe runs pairs; interleaved schedules run groups of p
    long = max(LONGEST // (16 * p), STEADY * p // 2)
    return long // 2 // period * period + many % period, long // period * period + many % period


def _of_micro_batches(work: _Work, many: int, send: np.ndarray) -> np.ndarray:
    """Seconds of a step of so many micro-batches, for each entry of the times."""
    f, d, w = (np.ravel(x)[0] / 2 for x in work.stages[:3])
    kind, p, v = work.kind, work.p, work.v
    if kind == "zb-v":
        return _longest(
            _sequence(order(kind, p, v, many, (float(f), float(d), float(w))), work.last),
            work,
            send,
        )
    return _longest(_kept_sequence(kind, p, v, many), work, send)


def _same_order(kind: str, columns: list[np.ndarray]) -> list[np.ndarray]:
    """Indices of the columns' entries whose ops run in one order: those with as many micro-batches;
    of zb-v, whose order depends on the times, each on its own.
    """
    if kind == "zb-v":
        return [np.array([i]) for i in range(len(columns[0]))]
    micro_batches = columns[-2]
    return [np.flatnonzero(micro_batches == m) for m in np.unique(micro_batches)]


class _Sequence(NamedTuple):
    """All ops in an order in which each comes after what it needs. Ops are named by their place;
    what a rank's first op needs is at the place after the last.
    """

    needs: list[tuple[int, int, int, int]]  # of each op, that of its rank before it among them
    costs: list[int]  # of each op, its place in `alike`
    alike: list[Op]  # one of the ops that take as long
    lasts: list[int]  # the last op of each rank


KEPT = 8  # sequences that are kept
LONGEST = 70_000  # micro-batches times stages that are run one by one
STEADY = 64  # micro-batches of each stage, from which on the rounds of a pipeline are alike


@functools.lru_cache(maxsize=KEPT)
def _kept_sequence(kind: str, p: int, v: int, m: int) -> _Sequence:
    """The sequence of a schedule whose order depends on numbers alone."""
    return _sequence(order(kind, p, v, m), _Work(Stages(0.0, 0.0, 0.0), kind, p, v).last)


def _sequence(ops: list[list[Op]], last: int) -> _Sequence:
    """The ops of all ranks in one sequence. last: part of the model."""
    none = sum(map(len, ops))
    many = 1 + max(op.micro for mine in ops for op in mine)
    # by which op each part's F and D of a micro-batch is done; -1: by none so far
    forward, inputs = ([[-1] * many for _ in range(last + 1)] for _ in "FD")
    places: dict[tuple[str, int, int], int] = {}
    needs: list[tuple[int, int, int, int]] = []
    costs: list[int] = []
    alike: list[Op] = []
    lasts, waiting = [none] * len(ops), list(enumerate(map(iter, ops)))
    held: list[Op | None] = [None] * len(ops)  # the op that a rank waits with
    while waiting:
        ranks, waiting = waiting, []
        for s, mine in ranks:
            while (op := held[s] or next(mine, None)) is not None:
                kind, micro, part, also = op
                i = j = k = none
                if kind in "FX" and part:
                    i = forward[part - 1][micro]
                if kind in "BDX":
                    before, at = also if kind == "X" else (micro, part)
                    j = forward[at][before]
                    if at < last:
                        k = inputs[at + 1][before]
                if i < 0 or j < 0 or k < 0:
                    held[s] = op
                    waiting.append((s, mine))
                    break
                held[s] = None
                if kind in "FX":
                    forward[part][micro] = len(needs)
                if kind in "BDX":
                    inputs[at][before] = len(needs)
                same = kind, part, also[1]
                if same not in places:
                    places[same] = len(alike)
                    alike.append(op)
                lasts[s], own = len(needs), lasts[s]
                needs.append((own, i, j, k))
                costs.append(places[same])
    return _Sequence(needs, costs, alike, lasts)


def _longest(ops: _Sequence, work: _Work, send: np.ndarray) -> np.ndarray:
    """Seconds of the longest path through ops that run in order on each rank, as soon as their
    inputs are there, for each entry of the times.
    """
    send = send if len(ops.lasts) > 1 else 0.0 * send
    takes = [np.broadcast_to(work.takes(op), send.shape).tolist() for op in ops.alike]
    sends = [np.broadcast_to(work.sends(op) * send, send.shape).tolist() for op in ops.alike]
    return np.array(
        [
            _end(ops, [t[i] for t in takes], [t[i] for t in sends])
            for i in range(len(send))
        ]
    )  # fmt: skip


def _end(ops: _Sequence, takes: list[float], sends: list[float]) -> float:
    """When the last op has ended."""
    ends = [0.0] * (len(ops.needs) + 1)
    for i, ((a, b, c, d), cost) in enumerate(zip(ops.needs, ops.costs, strict=True)):
        ends[i] = max(ends[a], ends[b], ends[c], ends[d]) + takes[cost] + sends[cost]
    return max(ends[i] for i in ops.lasts)


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
