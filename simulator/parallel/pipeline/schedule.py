"""Step time of a pipeline in closed form, by schedule. Broadcasts over layouts.

The times of a stage are those of one micro-batch: forward, backward for inputs, backward for
weights. All stages between the ends are equal; the first part of the model (embedding) and the last
(head, loss) take more or less. A send between stages holds up the sender for `p2p` seconds: pass 0
where the stack hides it. `replay` runs the same schedules operation by operation.

Arguments that recur: p: pipeline stages; v: virtual stages (parts of the model) per rank; m:
micro-batches.

Difference from the replay, tested over a grid:

    none, gpipe, 1f1b    none, whatever the ends take
    sequential           none, whatever the ends take
    interleaved          none where the last part takes at least as long as the first and the
                         others; else up to 10 % below
    zb-h1                none where the ends are like the rest and m >= p, else up to 4 % below
                         (m < p: 8 %)
    dualpipe             none at f = b = w [deepseek2024], else 5 % below to 11 % above
    zb-v                 16 % below to 8 % above: its order is written for given times and has no
                         exact form
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.errors import quoted
from roofcast.hwdb.tuples import NamedTuple

KINDS = ("none", "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "sequential")
ENDS = (0.0, 0.0, 0.0)


class Stages(NamedTuple):
    """Seconds of a micro-batch on one stage (all its parts), and what the ends of the model take
    beyond that. Floats, or arrays over layouts.
    """

    forward: ArrayLike
    inputs: ArrayLike  # backward for inputs
    weights: ArrayLike  # backward for weights
    first: tuple = ENDS  # forward, inputs, weights
    last: tuple = ENDS


class Pipeline(NamedTuple):
    """A pipeline step in closed form. Arrays over layouts."""

    total: np.ndarray  # from the first operation of the step to the last [s]
    bubble: np.ndarray  # fraction of `total` in which the busiest rank waits
    exposed_p2p: np.ndarray  # `total` minus that with free sends [s]


class Parts(NamedTuple):
    """Seconds of the first, a middle and the last of the model's parts, sends included."""

    first: np.ndarray
    mid: np.ndarray
    last: np.ndarray


def parts(stages: Stages, p: ArrayLike, v: ArrayLike, p2p: ArrayLike) -> tuple[Parts, Parts, Parts]:
    """Forward, backward for inputs and backward for weights of one of the p v parts. A pipeline of
    one part has both ends in it.
    """
    p, v = np.asarray(p, dtype=float), np.asarray(v, dtype=float)
    send = np.where(p > 1, p2p, 0.0)
    alone = p * v == 1
    result = []
    for index, whole in enumerate((stages.forward, stages.inputs, stages.weights)):
        first = np.asarray(stages.first[index], dtype=float)
        last = np.asarray(stages.last[index], dtype=float)
        mid = np.asarray(whole) / v
        ends = np.where(alone, first + last, 0.0)
        if index == 0:  # a forward sends on, except from the last part
            begin, through, end = first + send, mid + send, last
        elif index == 1:  # a backward for inputs sends back, except from the first part
            begin, through, end = first, mid + send, last + send
        else:
            begin, through, end = first, mid, last
        begin, end = np.where(alone, ends, begin), np.where(alone, ends, end)
        result.append(Parts(mid + begin, through, mid + end))
    return result[0], result[1], result[2]


def _plus(a: Parts, b: Parts) -> Parts:
    return Parts(a.first + b.first, a.mid + b.mid, a.last + b.last)


def virtual(kind: str, v: ArrayLike) -> np.ndarray:
    """Parts of the model per rank."""
    if kind == "interleaved":
        return np.asarray(v, dtype=float)
    return np.asarray(2.0 if kind == "zb-v" else 1.0)


def pipeline(
    kind: str, stages: Stages, p: ArrayLike, v: ArrayLike, m: ArrayLike, p2p: ArrayLike = 0.0
) -> Pipeline:
    """Step time of `m` micro-batches through `p` stages of `v` parts, fraction of waiting, and cost
    of the sends.
    """
    total, busy = step_time(kind, stages, p, v, m, p2p)
    free = step_time(kind, stages, p, v, m, 0.0)[0] if np.any(p2p) else total
    return Pipeline(total, 1.0 - busy / total, total - free)


def step_time(
    kind: str, stages: Stages, p: ArrayLike, v: ArrayLike, m: ArrayLike, p2p: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the step, and seconds in which the busiest rank computes or sends."""
    p, m = np.asarray(p, dtype=float), np.asarray(m, dtype=float)
    v = virtual(kind, v)
    f, d, w = parts(stages, p, v, p2p)
    b = _plus(d, w)
    t = _plus(f, b)
    middle = np.where(p > 2, v * t.mid, 0.0)
    busy = m * np.maximum(np.maximum(t.first, t.last) + (v - 1.0) * t.mid, middle)
    if kind == "gpipe":
        return _flow(f, p, m) + _flow(b, p, m), busy
    if kind in ("none", "1f1b"):
        return one_f_one_b(f, b, p, m), busy
    if kind == "sequential":
        return sequential(t, p, m), busy
    if kind == "interleaved":
        return interleaved(f, b, p, v, m), busy
    if kind == "zb-h1":
        return zb_h1(f, d, w, p, m), busy
    outer = m * (t.first + t.last)  # ranks that hold two parts, from both ends
    inner = np.where(p > (1 if kind == "zb-v" else 2), 2.0 * m * t.mid, 0.0)
    if kind == "dualpipe":
        return dualpipe(f, d, w, outer / 2.0, inner / 2.0, p), np.maximum(outer, inner) / 2.0
    return zb_v(f, d, outer, inner, p), np.maximum(outer, inner)


def _sum(x: Parts, i: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Seconds of stages 0 .. i."""
    return (
        x.first
        + np.clip(i, 0.0, np.maximum(p - 2.0, 0.0)) * x.mid
        + np.where((i == p - 1.0) & (p > 1.0), x.last, 0.0)
    )


def _at(x: Parts, i: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Seconds of stage i."""
    return np.where(i == 0.0, x.first, np.where(i == p - 1.0, x.last, x.mid))


def _most(x: Parts, i: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Seconds of the slowest of stages 0 .. i."""
    most = np.where((i >= 1.0) & (p > 2.0), np.maximum(x.first, x.mid), x.first)
    return np.where((i == p - 1.0) & (p > 1.0), np.maximum(most, x.last), most)


def _flow(x: Parts, p: np.ndarray, m: np.ndarray) -> np.ndarray:
    """m equal jobs through p machines in a row: sum + (m - 1) slowest. GPipe is one such flow down
    and one up [huang2018].
    """
    return _sum(x, p - 1.0, p) + (m - 1.0) * _most(x, p - 1.0, p)


def one_f_one_b(f: Parts, b: Parts, p: np.ndarray, m: np.ndarray) -> np.ndarray:
    """1F1B: the longest path through its operations [narayanan2021].

    The path enters over some stage l, processes K = m - p + j micro-batches at stage j, and leaves
    over some stage r:

        enter = sum_{i<=l} f_i + (p-1-l) max_{i<=l} f_i + sum_{j<=i<=l} b_i
        leave = sum_{j<i<=r} f_i + sum_{i<=r} b_i + (p-1-r) max_{i<=r} b_i
        T     = max_{j, l>=j, r>=j} enter + K (f_j + b_j) - b_j + leave

    With equal stages between the ends the maximum lies at stages 0, 1, p - 2 or p - 1. With all
    stages equal it is (m + p - 1)(f + b).
    """
    corners = [0.0 * p, np.minimum(1.0, p - 1.0), np.maximum(p - 2.0, 0.0), p - 1.0]
    ahead = [np.minimum(p - 1.0 - i, m - 1.0) for i in corners]
    down = [_sum(f, i, p) for i in corners]
    up = [_sum(b, i, p) for i in corners]
    turn = [x + y for x, y in zip(down, up, strict=True)]
    enter = [x + a * _most(f, i, p) for x, a, i in zip(turn, ahead, corners, strict=True)]
    wait = [a * _most(b, i, p) for a, i in zip(ahead, corners, strict=True)]
    leave = [x + y for x, y in zip(turn, wait, strict=True)]
    best = latest_in = latest_out = np.zeros(())
    for index in (3, 2, 1, 0):  # so that stages at j or beyond have been seen
        j = corners[index]
        here = _at(b, j, p)
        before = up[index] - here
        latest_in = np.maximum(latest_in, enter[index])
        latest_out = np.maximum(latest_out, leave[index])
        most_in, most_out = latest_in - before, latest_out - down[index]
        k = m - p + j
        own = enter[index] - before
        steady = np.maximum(k, 0.0) * (_at(f, j, p) + here)
        path = np.where(k > 0, most_in, own) + steady - here + most_out
        short = np.where(k > 0, 0.0, most_in + wait[index] + before)
        best = np.maximum(best, np.maximum(path, short))
    return best


def interleaved(f: Parts, b: Parts, p: np.ndarray, v: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Interleaved 1F1B of v parts per rank: the longest of the paths over the last, a middle and
    the first rank [narayanan2021].

        last     m (f' + b') + f0 + (p-1) max(f0, f) + b0 + (p-1) max(b0, b) + (m (v-1) - 1)(f + b)

    with ' the last part, 0 the first. With all parts equal: (m v + p - 1)(f + b) of one part, a
    bubble of (p - 1) / (m v).
    """
    chunks = m * v
    enter = f.first + (p - 1.0) * np.maximum(f.first, f.mid)
    leave = b.first + (p - 1.0) * np.maximum(b.first, b.mid)
    t = f.mid + b.mid
    last = m * (f.last + b.last) + enter + leave + (m * (v - 1.0) - 1.0) * t
    first = m * (f.first + b.first) + m * (v - 1.0) * t
    around = enter + leave + f.last + b.last + (chunks - 2.0) * t - 2.0 * np.minimum(f.mid, b.mid)
    middle = f.first + b.first + (chunks + p - 3.0) * t
    inner = np.where((p > 2.0) & (v > 1.0), np.maximum(around, middle), 0.0)
    alone = first + m * (f.last + b.last - t)
    several = np.where(p > 1.0, np.maximum(np.maximum(last, first), inner), alone)
    return np.where(v > 1.0, several, one_f_one_b(f, b, p, m))


def zb_h1(f: Parts, d: Parts, w: Parts, p: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Zero-bubble schedule H1: bubble (p - 1) max(f + b - w, f, b), b for inputs and w for weights
    [qi2023].

    With other ends: the longest of the paths along the last rank, the one before it, the first, and
    the one after it.
    """
    most = np.maximum(p - 2.0, 0.0)
    late = np.maximum(m - p, 0.0)
    down, up = f.first + most * f.mid, d.first + most * d.mid
    last = m * (f.last + d.last)
    drained = down + last + late * w.last + up + w.first
    filled = down + last + m * w.last
    early = (
        m * (d.first + w.first)
        + (late + 1.0) * f.first
        + most * f.mid
        + f.last
        + d.last
        + most * d.mid
    )
    enter = f.first + (m + p - 4.0) * f.mid
    last_but_one = [
        enter + f.last + up + (m - 1.0) * d.mid + d.last + w.first + (late + 1.0) * w.mid,
        enter + 2.0 * (f.last + d.last) + d.first + (m + p - 4.0) * d.mid + late * w.mid + w.first,
        enter + 2.0 * (f.last + d.last) + (m - 2.0) * d.mid + late * w.mid + p * w.last,
    ]
    second = f.first + (m - 1.0) * f.mid + f.last + (m + p - 3.0) * d.mid + d.last + m * w.mid
    inner = np.where(
        (p > 2.0) & (m >= p), np.max(np.broadcast_arrays(*last_but_one, second), axis=0), 0.0
    )
    alone = m * (f.first + d.first + w.first)
    return np.where(
        p > 1.0, np.max(np.broadcast_arrays(drained, filled, early, inner, alone), axis=0), alone
    )


def dualpipe(
    f: Parts, d: Parts, w: Parts, outer: np.ndarray, inner: np.ndarray, p: np.ndarray
) -> np.ndarray:
    """DualPipe: bubble (p/2 - 1)(F&B + B - 3W), here with F&B = F + B [deepseek2024]; never below
    (p/2 - 1)(2f + max(b - w, 0)).

    outer, inner: compute seconds of the outermost rank (both ends of the model) and of one between.
    Work that the outermost rank has beyond the others fills its bubble first.
    """
    published = f.mid + 2.0 * d.mid - w.mid
    least = 2.0 * f.mid + np.maximum(d.mid - w.mid, 0.0)
    bubble = np.maximum(p / 2.0 - 1.0, 0.0) * np.maximum(published, least)
    return np.maximum(inner + bubble, outer + 0.5 * bubble)


def sequential(t: Parts, p: np.ndarray, m: np.ndarray) -> np.ndarray:
    """One micro-batch after the other, as transformers' `device_map` runs layers that are dealt to
    devices: m times the seconds t of a forward and a backward through all stages.
    """
    one = t.first + np.maximum(p - 2.0, 0.0) * t.mid + np.where(p > 1, t.last, 0.0)
    return m * one


def zb_v(f: Parts, d: Parts, outer: np.ndarray, inner: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The V schedule of two parts per rank: the ends of the fold wait about (p - 1)(f + b) of one
    part [qi2024].
    """
    bubble = (p - 1.0) * (f.mid + d.mid)
    return np.maximum(inner + bubble, outer + 0.5 * bubble)


def in_flight(kind: str, p: ArrayLike, v: ArrayLike, m: ArrayLike, stage: ArrayLike) -> np.ndarray:
    """Micro-batches whose activations a stage keeps at peak, in units of what the whole stage keeps
    of one micro-batch.
    """
    p, m, s = np.asarray(p, dtype=float), np.asarray(m, dtype=float), np.asarray(stage, dtype=float)
    if kind == "gpipe":
        return m + 0.0 * s
    if kind in ("none", "1f1b"):
        return np.minimum(m, p - s)
    if kind == "sequential":
        return np.minimum(m, 1.0) + 0.0 * (s + p)
    if kind == "interleaved":
        v = np.asarray(v, dtype=float)
        return np.where(
            v > 1,
            np.minimum(2.0 * (p - 1.0 - s) + (v - 1.0) * p + 1.0, m * v) / v,
            np.minimum(m, p - s),
        )
    if kind == "dualpipe":
        return np.minimum(m, p + 1.0) + 0.0 * s
    return np.minimum(m, p) + 0.0 * s


def refusal(kind: str, p: int, v: int, m: int) -> str:
    """Why a schedule cannot run with these degrees, and what would do; empty if it can."""
    if kind not in KINDS:
        return f"no schedule {quoted(kind)}; known: {', '.join(KINDS)}"
    if kind == "none" and p > 1:
        return f"{p} pipeline stages need a schedule, for example 1f1b"
    if kind != "interleaved" and v > 1 and not (kind == "zb-v" and v == 2):
        return f"schedule {kind} has no virtual stages; use interleaved for vpp {v}"
    if kind == "interleaved" and v > 1 and m % p:
        return (
            f"interleaved needs micro-batches ({m}) in multiples of the {p} stages, for example"
            f" {-(-m // p) * p}"
        )
    if kind == "dualpipe" and (p % 2 or m % 2 or m < 2 * p):
        return (
            f"dualpipe needs an even number of stages ({p}) and of micro-batches ({m}), at least"
            f" {2 * p} of them"
        )
    return ""


def possible(kind: str, p: ArrayLike, v: ArrayLike, m: ArrayLike) -> np.ndarray:
    """Whether `refusal` is empty. Broadcasts."""
    p, v, m = np.asarray(p), np.asarray(v), np.asarray(m)
    good = np.ones(np.broadcast_shapes(p.shape, v.shape, m.shape), bool)
    if kind == "interleaved":
        return good & ((v == 1) | (m % p == 0))
    if kind == "dualpipe":
        return good & (v == 1) & (p % 2 == 0) & (m % 2 == 0) & (m >= 2 * p)
    if kind == "none":
        return good & (p == 1) & (v == 1)
    return good & ((v == 1) | ((v == 2) if kind == "zb-v" else False))
