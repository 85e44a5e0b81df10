"""What each pipeline rank does, in order: the schedules written out operation by operation.

An `Op` is a forward (F), the whole backward (B), a backward for inputs alone (D), one for weights
alone (W), or a forward and a backward of two micro-batches run as one (X: F of `micro`, `chunk`
with B of `also`). `place(kind, p, v)` says which rank holds which part of the model; parts are
numbered along the model, 0 to p v - 1.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from roofcast.hwdb.tuples import NamedTuple

SAME = 1e-6  # moments closer than this share of an op are one


class Op(NamedTuple):
    """One piece of work of a pipeline rank: what, of which micro-batch and part of the model."""

    kind: str  # F | B | D | W | X
    micro: int
    part: int  # of the model, 0 first
    also: tuple[int, int] = (-1, -1)  # micro-batch and part of the backward half of an X


def place(kind: str, p: int, v: int) -> list[list[int]]:
    """Parts of the model on each rank: p v of them; 2 p, folded, for zb-v; p, twice, for
    dualpipe.
    """
    if kind == "zb-v":
        return [[s, 2 * p - 1 - s] for s in range(p)]
    if kind == "dualpipe":
        return [[s, p - 1 - s] for s in range(p)]
    return [[c * p + s for c in range(v)] for s in range(p)]


def gpipe(p: int, v: int, m: int) -> list[list[Op]]:
    """All forwards, then all backwards, last micro-batch first [huang2018]."""
    return [
        [Op("F", i, s) for i in range(m)] + [Op("B", i, s) for i in reversed(range(m))]
        for s in range(p)
    ]


def one_f_one_b(p: int, v: int, m: int) -> list[list[Op]]:
    """p - 1 - s forwards ahead, then one forward, one backward [narayanan2021]."""
    result = []
    for s in range(p):
        ahead = min(p - 1 - s, m)
        ops = [Op("F", i, s) for i in range(ahead)]
        for i in range(m - ahead):
            ops += [Op("F", ahead + i, s), Op("B", i, s)]
        result.append(ops + [Op("B", i, s) for i in range(m - ahead, m)])
    return result


def sequential(p: int, v: int, m: int) -> list[list[Op]]:
    """A forward and its backward, then the next micro-batch: one device computes at a time."""
    return [[op for i in range(m) for op in (Op("F", i, s), Op("B", i, s))] for s in range(p)]


def interleaved(p: int, v: int, m: int) -> list[list[Op]]:
    """p micro-batches through one part, then through the next; 2 (p - 1 - s) + (v - 1) p forwards
    ahead [narayanan2021].
    """
    if v == 1:
        return one_f_one_b(p, v, m)
    result = []
    for s in range(p):
        forward = [Op("F", (k // (p * v)) * p + k % p, (k // p % v) * p + s) for k in range(m * v)]
        backward = [
            Op("B", (k // (p * v)) * p + k % p, (v - 1 - k // p % v) * p + s) for k in range(m * v)
        ]
        ahead = min(2 * (p - 1 - s) + (v - 1) * p, m * v)
        ops = forward[:ahead]
        for k in range(m * v - ahead):
            ops += [forward[ahead + k], backward[k]]
        result.append(ops + backward[m * v - ahead :])
    return result


def zb_h1(p: int, v: int, m: int) -> list[list[Op]]:
    """1F1B with the backward for weights delayed by s micro-batches on rank s, so that no rank
    holds more than the first rank of 1F1B [qi2023].
    """
    result = []
    for s in range(p):
        ahead = min(p - 1 - s, m)
        ops = [Op("F", i, s) for i in range(ahead)]
        for i in range(m):
            ops += [Op("F", ahead + i, s)] if ahead + i < m else []
            ops += [Op("D", i, s)] + ([Op("W", i - s, s)] if i >= s else [])
        result.append(ops + [Op("W", i, s) for i in range(max(m - s, 0), m)])
    return result


def zb_v(
    p: int, v: int, m: int, times: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> list[list[Op]]:
    """The model folded in a V, parts s and 2p - 1 - s on rank s; no rank keeps more than the first
    rank of 1F1B [qi2024].

    A greedy order for `times` of F, D and W: a backward before a forward, the deeper part first, a
    backward for weights where nothing else can run or 2 p parts are kept.
    """
    last = 2 * p - 1  # part
    same = SAME * max(times)
    done: dict[str, list[list[float]]] = {kind: [[] for _ in range(2 * p)] for kind in "FD"}
    ops: list[list[Op]] = [[] for _ in range(p)]
    waiting: list[deque[tuple[int, int]]] = [deque() for _ in range(p)]
    queue = [(0.0, s) for s in range(p)]
    busy, kept = [0.0] * p, [0] * p
    asleep = [False] * p
    duration = dict(zip("FDW", times, strict=True))

    while queue:
        now, s = heapq.heappop(queue)
        if now + same < busy[s]:
            continue  # woken while at work
        first, second = s, last - s
        asleep[s] = False
        choices = [("D", second), ("D", first)]
        choices += [("F", second)] * (kept[s] < 2 * p) + [("F", first)] * (kept[s] < last)
        soonest, kind, part = math.inf, "W", -1
        for choice in choices:
            at = _arrival(*choice, done, m)
            if at <= now + same:
                kind, part = choice
                break
            soonest = min(soonest, at)
        if kind == "W" and not waiting[s]:
            asleep[s] = True
            if soonest < math.inf:
                heapq.heappush(queue, (soonest, s))
            continue
        busy[s] = now + duration[kind]
        heapq.heappush(queue, (busy[s], s))
        if kind == "W":
            i, part = waiting[s].popleft()
            kept[s] -= 1
        else:
            i = len(done[kind][part])
            done[kind][part].append(busy[s])
            if kind == "F":
                kept[s] += 1
            else:
                waiting[s].append((i, part))
            heir = part + 1 if kind == "F" else part - 1  # the part that waits for this op
            other = min(heir, last - heir)
            if 0 <= heir <= last and asleep[other]:
                heapq.heappush(queue, (busy[s], other))
        ops[s].append(Op(kind, i, part))
    return ops


def _arrival(kind: str, part: int, done: dict[str, list[list[float]]], m: int) -> float:
    """When the next op of a kind and part of zb-v has its inputs; infinite if not scheduled."""
    i = len(done[kind][part])
    if i >= m:
        return math.inf
    if kind == "F":
        if part == 0:
            return 0.0
        before = done["F"][part - 1]
    else:
        before = done["D"][part + 1] if part + 1 < len(done["D"]) else done["F"][part]
    return before[i] if i < len(before) else math.inf


class _DualPipeRank:
    """The ops of one DualPipe rank, as they are appended. A phase is 0 or 1: the direction in which
    the nearer end of the pipeline feeds, or the other.
    """

    def __init__(self, rank: int, p: int) -> None:
        self.rank, self.p = rank, p
        self.upper = rank >= p // 2
        self.ops: list[Op] = []
        self.count = {(kind, d): 0 for kind in "FB" for d in (0, 1)}
        self.pending: list[tuple[int, int]] = []  # backwards for weights that are delayed

    def next_of(self, kind: str, phase: int) -> tuple[int, int]:
        """Micro-batch and part of the next F or B of a phase."""
        d = phase ^ self.upper
        i = self.count[kind, d]
        self.count[kind, d] += 1
        return 2 * i + d, self.rank if d == 0 else self.p - 1 - self.rank

    def forward(self, phase: int) -> None:
        """A forward."""
        self.ops.append(Op("F", *self.next_of("F", phase)))

    def backward(self, phase: int, split: bool = False) -> None:
        """A backward; split: that for weights is delayed."""
        micro, part = self.next_of("B", phase)
        self.ops.append(Op("D" if split else "B", micro, part))
        if split:
            self.pending.append((micro, part))

    def weight(self) -> None:
        """The oldest delayed backward for weights."""
        self.ops.append(Op("W", *self.pending.pop(0)))

    def both(self, forward: int, backward: int) -> None:
        """A forward and a backward of two phases as one op."""
        micro, part = self.next_of("F", forward)
        self.ops.append(Op("X", micro, part, self.next_of("B", backward)))


def dualpipe(p: int, v: int, m: int) -> list[list[Op]]:
    """Micro-batches enter at both ends, m / 2 each; a forward and a backward that meet run as one
    [deepseek2024].

    The eight steps of github deepseek-ai/DualPipe, dualpipe.py. Direction 0 passes ranks 0 to
    p - 1, direction 1 the other way.
    """
    half, result = p // 2, []
    for rank in range(p):
        near = min(rank, p - 1 - rank)
        left = half - near - 1
        at = _DualPipeRank(rank, p)
        _enter(at, left, near)
        for i in range(m // 2 - p + near + 1):
            if i == 0 and near == half - 1:
                at.forward(0)
                at.backward(1)
            else:
                at.both(0, 1)
            at.both(1, 0)
        _leave(at, left, near)
        result.append(at.ops)
    return result


def _enter(at: _DualPipeRank, left: int, near: int) -> None:
    """Steps 1 to 3: forwards, then backwards split from those for weights."""
    for _ in range(2 * left):
        at.forward(0)
    for _ in range(near + 1):
        at.forward(0)
        at.forward(1)
    for _ in range(left):
        at.backward(1, split=True)
        at.weight()
        at.forward(1)


def _leave(at: _DualPipeRank, left: int, near: int) -> None:
    """Steps 5 to 8: the last forwards, then backwards, then those for weights."""
    for _ in range(left):
        at.backward(1)
        at.both(1, 0)
    split = False
    for i in range(near + 1):
        split = split or (i == (near + 1) // 2 and near % 2 == 1)
        at.backward(1, split)
        split = split or (i == (near + 1) // 2 and near % 2 == 0)
        at.backward(0, split)
    for _ in range(left):
        at.weight()
        at.backward(0, split=True)
    while at.pending:
        at.weight()


ORDERS = {
    "none": one_f_one_b,
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved": interleaved,
    "sequential": sequential,
    "zb-h1": zb_h1,
    "dualpipe": dualpipe,
}


def order(
    kind: str, p: int, v: int, m: int, times: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> list[list[Op]]:
    """The ops of every rank; zb-v is ordered for `times` of F, D and W."""
    return zb_v(p, v, m, times) if kind == "zb-v" else ORDERS[kind](p, v, m)
