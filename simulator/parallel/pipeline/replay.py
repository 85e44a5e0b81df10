"""A pipeline step replayed op by op: events in the order of (time, priority, serial), so that two
runs are the same run.

Each rank has a compute stream that does its ops in the schedule's order, each as soon as what it
needs has arrived, and a p2p stream. A send holds its rank's compute up, as a blocking exchange
does.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from roofcast.simulator.parallel.pipeline.orders import Op, order, place
from roofcast.simulator.parallel.pipeline.schedule import Stages, virtual


class Event(NamedTuple):
    """Something that a stage did, from `start` for so long [s]."""

    stage: int
    stream: str  # compute | p2p
    name: str  # "F3.1": forward of micro-batch 3, part 1 of the model
    start: float  # s
    duration: float


class Replay(NamedTuple):
    """A pipeline step as it ran."""

    total: float  # s
    events: tuple[Event, ...]  # by start, then stage
    # a stage: (time, micro-batches kept, in whole stages)
    in_flight: tuple[tuple[tuple[float, float], ...], ...]


def _durations(stages: Stages, kind: str, v: int, p: int) -> dict[tuple[str, str], float]:
    """Seconds of F, D and W by place in the model: first, middle, last or all of it."""
    parts = float(virtual(kind, v))
    result = {}
    for index, name in enumerate("FDW"):
        mid = float(stages[index]) / parts
        first, last = float(stages.first[index]), float(stages.last[index])
        result |= {
            (name, "first"): mid + first,
            (name, "mid"): mid,
            (name, "last"): mid + last,
            (name, "only"): mid + first + last,
        }
    return result


def replay(kind: str, stages: Stages, p: int, v: int, m: int, p2p: float = 0.0) -> Replay:
    """The step of `m` micro-batches on `p` stages of `v` parts; times as in schedule.pipeline, for
    one layout.
    """
    times = (float(stages.forward) / 2, float(stages.inputs) / 2, float(stages.weights) / 2)
    ops = order(kind, p, v, m, times)
    held = place(kind, p, v)
    last = max(part for mine in held for part in mine)
    seconds = _durations(stages, kind, v, p)
    send = p2p if p > 1 else 0.0

    def where(part: int) -> str:
        return "only" if last == 0 else "first" if part == 0 else "last" if part == last else "mid"

    def work(op: Op) -> float:
        at = where(op.part)
        if op.kind == "X":
            also = where(op.also[1])
            return seconds["F", at] + seconds["D", also] + seconds["W", also]
        return seconds["D", at] + seconds["W", at] if op.kind == "B" else seconds[op.kind, at]

    def sends(op: Op) -> int:
        forward = op.kind in "FX" and op.part < last
        backward = (op.kind in "BD" and op.part > 0) or (op.kind == "X" and op.also[1] > 0)
        return forward + backward

    def needs(op: Op) -> list[tuple[str, int, int]]:
        result = []
        if op.kind in "FX" and op.part:
            result.append(("F", op.micro, op.part - 1))
        if op.kind in "BDX":
            micro, part = op.also if op.kind == "X" else (op.micro, op.part)
            result += [("F", micro, part)] + ([("D", micro, part + 1)] if part < last else [])
        return result

    def gives(op: Op) -> list[tuple[str, int, int]]:
        if op.kind == "X":
            return [("F", op.micro, op.part), ("D", *op.also)]
        return [("F" if op.kind == "F" else "D", op.micro, op.part)] if op.kind != "W" else []

    done: set[tuple[str, int, int]] = set()
    waiting: dict[tuple[str, int, int], list[int]] = {}
    position, events = [0] * p, []
    kept: list[list[tuple[float, float]]] = [[(0.0, 0.0)] for _ in range(p)]
    # time, priority (0 arrival, 1 start), serial, stage
    queue: list[tuple[float, int, int, int]] = [(0.0, 1, s, s) for s in range(p)]
    arrived: dict[int, list[tuple[str, int, int]]] = {}
    serial, total = p, 0.0
    while queue:
        now, priority, number, s = heapq.heappop(queue)
        total = max(total, now)
        if priority == 0:
            for what in arrived.pop(number):
                done.add(what)
                for other in waiting.pop(what, ()):
                    serial += 1
                    heapq.heappush(queue, (now, 1, serial, other))
            continue
        if position[s] == len(ops[s]):
            continue
        op = ops[s][position[s]]
        missing = next((need for need in needs(op) if need not in done), None)
        if missing:
            waiting.setdefault(missing, []).append(s)
            continue
        position[s] += 1
        busy, sent = work(op), sends(op) * send
        name = f"{op.kind}{op.micro}.{op.part}" + (
            f"+B{op.also[0]}.{op.also[1]}" if op.kind == "X" else ""
        )
        events.append(Event(s, "compute", name, now, busy))
        if sent:
            events.append(Event(s, "p2p", f"send {name}", now + busy, sent))
        end = now + busy + sent
        _keep(kept[s], op, now, now + busy, float(len(held[s])) if kind != "dualpipe" else 1.0)
        serial += 2
        arrived[serial - 1] = gives(op)
        heapq.heappush(queue, (end, 0, serial - 1, s))
        heapq.heappush(queue, (end, 1, serial, s))
    events.sort(key=lambda e: (e.start, e.stage, e.stream))
    return Replay(total, tuple(events), tuple(tuple(k) for k in kept))


def _keep(steps: list[tuple[float, float]], op: Op, start: float, end: float, parts: float) -> None:
    """What a rank keeps after an op: one part more when a forward begins, one less when its
    backward is over.

    Activations are kept until the weights' backward. An X keeps its forward's before it lets its
    backward's go.
    """
    if op.kind in "FX":
        steps.append((start, steps[-1][1] + 1.0 / parts))
    if op.kind in "BWX":
        steps.append((end, steps[-1][1] - 1.0 / parts))


def most_in_flight(run: Replay) -> list[float]:
    """Micro-batches each stage keeps at its fullest."""
    return [max(level for _, level in steps) for steps in run.in_flight]
