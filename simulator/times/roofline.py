"""Kernels and a device -> seconds: what each kernel needs, its printed lower bound, and what bounds
it.

All kernels of one kind and format are costed in one call on arrays.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.times.attention import attention
from roofcast.simulator.times.bounds import printed_times
from roofcast.simulator.times.conv import conv, least_flops
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import Rates, Resolved, in_training, resolve, warm
from roofcast.simulator.times.recurrent import recurrent
from roofcast.simulator.times.stream import stream
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Kernel

STREAMS = {  # our kernel kinds -> classes of times.stream, forward and backward
    "layer_norm": ("norm", "norm_backward"),
    "accumulate": ("elementwise", "elementwise"),
}
BOUNDS = ("matrix", "vector", "memory", "latency")
# a kernel below both is bound by its latency: share of its time that any roof explains, seconds
MOST_OF_A_KERNEL = 0.4
SMALL_KERNEL = 2e-5
CONV_PHASE = {"forward": "forward", "dgrad": "input", "wgrad": "weight"}


class OpTimes(NamedTuple):
    """Per kernel of a step, `count` repetitions included [s]."""

    seconds: np.ndarray
    # printed roofline, also where a board runs above its printed clock and beats it
    lower: np.ndarray
    bound: np.ndarray  # index into BOUNDS
    assumptions: tuple[str, ...]


@functools.lru_cache(maxsize=256)
def rates_of(device: Device, product: str) -> Resolved:
    """Rates of a device for one format in steps that go on and on, resolved once."""
    resolved = resolve(device, product)
    return resolved._replace(rates=warm(resolved.rates))


def time_all(step: Step, device: Device, c: Kernels | None = None, find=rates_of) -> OpTimes:
    """Step, device -> seconds of every kernel. A fit brings its own constants and rates."""
    ks = step.kernels
    c = c or constants()
    count = np.array([k.count for k in ks], dtype=float)
    seconds, lower, bound = np.zeros(len(ks)), np.zeros(len(ks)), np.zeros(len(ks), dtype=int)
    said: dict[str, None] = {}
    groups: dict[tuple, list[int]] = {}
    stack = step.recipe.stack
    training = step.recipe.mode == "train"
    last = stack.memory_format == "channels_last"
    tf32 = stack.tf32 if "tf32" in device.peak_flops else ()
    for i, k in enumerate(ks):
        groups.setdefault(_group(k, last, tf32), []).append(i)
    for (family, detail, product), indices in groups.items():
        resolved = find(device, product if family != "stream" else "fp32")
        if family != "stream":
            said.update(dict.fromkeys(resolved.assumptions))
        rates = in_training(resolved.rates) if training and family == "matmul" else resolved.rates
        members = [ks[i] for i in indices]
        t = FORMULAS[family](members, detail, rates, c) / _share(family, stack, rates, training)
        least, what = _bounds(members, family, t, rates, c)
        if (
            family == "conv" and product == "tf32" and members[0].product == "fp32"
        ):  # allowed, not prescribed: libraries take the faster
            plain = find(device, "fp32").rates
            other = FORMULAS[family](members, detail, plain, c)
            floor, limit = _bounds(members, family, other, plain, c)
            t, least, what = (
                np.minimum(t, other),
                np.minimum(least, floor),
                np.where(other < t, limit, what),
            )
        seconds[indices], lower[indices], bound[indices] = t, least, what
    return OpTimes(seconds * count, lower * count, bound, tuple(said))


def _group(k: Kernel, channels_last: bool, tf32: tuple[str, ...]) -> tuple:
    """Kernels that one call of one formula costs."""
    if k.kind == "matmul":
        return "matmul", None, "tf32" if k.product == "fp32" and "matmul" in tf32 else k.product
    if k.kind == "attention":
        return "attention", k.phase == "backward", k.product
    if k.kind == "recurrent" and k.shape:
        return "recurrent", k.phase == "backward", k.product
    if k.kind in ("conv", "depthwise"):
        return (
            "conv",
            (k.shape[0], channels_last),
            "tf32" if k.product == "fp32" and "conv" in tf32 else k.product,
        )
    return "stream", None, "fp32"


def _share(family: str, stack: Stack, rates: Rates, training: bool) -> float:
    """Rate of a kernel in this stack and in a step, of what the formulas say of it alone."""
    if family == "matmul":
        return stack.factor * (rates.trained if training else 1.0)
    return stack.attention if family == "attention" else 1.0


def _matmul(ks: list[Kernel], _, rates: Rates, c):
    batch, m, n, k = np.array([kernel.shape for kernel in ks], dtype=float).T
    width = max(rates.width, WIDTH.get(ks[0].product, 4))
    return matmul(m, n, k, batch, width, max(width, 2.0), rates, c)


def _attention(ks: list[Kernel], backward: bool, rates: Rates, c):
    batch, heads, groups, q_len, kv_len, dim, causal = np.array(
        [k.shape for k in ks], dtype=float
    ).T
    # columns before a window cuts them: under context parallelism and across sequences more than
    # rows
    full = np.maximum(q_len, kv_len)
    return attention(
        batch,
        heads,
        groups,
        q_len,
        full,
        dim,
        causal > 0,
        max(rates.width, 2.0),
        rates,
        c,
        backward=backward,
        window=kv_len,
    )


def _conv(ks: list[Kernel], detail, rates: Rates, c):
    phase, channels_last = detail
    batch, c_in, c_out, pixels_in, pixels_out, taps, stride, groups = np.array(
        [k.shape[1:] for k in ks], dtype=float
    ).T
    return conv(
        CONV_PHASE[phase],
        batch,
        c_in,
        c_out,
        pixels_in,
        pixels_out,
        taps,
        groups,
        max(rates.width, 2.0),
        rates,
        c,
        unit_stride=stride == 1,
        channels_last=channels_last,
    )


def _recurrent(ks: list[Kernel], backward: bool, rates: Rates, c):
    steps, batch, features, hidden = np.array([k.shape for k in ks], dtype=float).T
    moved, vector, special = np.array(
        [(k.read + k.written, k.vector, k.special) for k in ks], dtype=float
    ).T
    products = 2.0 if backward else 1.0  # gradients of the state and of the weights
    return products * recurrent(
        steps,
        batch,
        features,
        hidden,
        moved / products,
        vector / products,
        special / products,
        rates,
        c,
    )


def _stream(ks: list[Kernel], _, rates: Rates, c):
    kinds = [STREAMS[k.kind][k.phase == "backward"] if k.kind in STREAMS else k.kind for k in ks]
    moved, vector, special = np.array(
        [((k.read + k.written) * _scalar(k), k.vector, k.special) for k in ks], dtype=float
    ).T
    return stream(kinds, moved, vector, special, rates, c)


def _scalar(k: Kernel) -> float:
    """Gathers and scatters move one element a thread: wide elements reach more of the bandwidth
    than 16-bit ones.
    """
    return 2.0 / max(WIDTH.get(k.product, 4), 2) if k.kind in ("gather", "scatter") else 1.0


FORMULAS = {
    "matmul": _matmul,
    "attention": _attention,
    "conv": _conv,
    "recurrent": _recurrent,
    "stream": _stream,
}


def computed(k: Kernel) -> float:
    """Share of the counted FLOPs of an attention kernel that it does: half of a causal square, the
    columns of a window, and of a ring's ranks each its part of the square. Heads of one width
    assumed.
    """
    batch, heads, _, rows, columns, dim, causal = k.shape
    whole = k.matrix / ((10.0 if k.phase == "backward" else 4.0) * batch * heads * rows * dim)
    return min(columns / whole, 0.5 if causal else 1.0)


def _bounds(
    ks: list[Kernel], family: str, seconds: np.ndarray, rates: Rates, c: Kernels
) -> tuple[np.ndarray, np.ndarray]:
    """Printed lower bound of each kernel [s], and an index into BOUNDS: what its estimate, so many
    `seconds`, consists of mostly.
    """
    matrix, vector, moved = np.array(
        [(k.matrix, k.vector, k.read + k.written) for k in ks], dtype=float
    ).T
    if family == "attention":  # what is masked is skipped
        matrix = matrix * np.array([computed(k) for k in ks])
    if family == "conv":
        taps, stride, groups = np.array([k.shape[6:9] for k in ks], dtype=float).T
        matrix = least_flops(matrix, taps, groups, rates, stride == 1)
    printed = printed_times(matrix, vector, moved, rates)
    at_rates = np.stack(
        [printed[0] / rates.sustained, printed[1] / c.stream.vector, printed[2] / rates.stream]
    )
    limit = at_rates.argmax(axis=0)
    small = (at_rates.max(axis=0) < MOST_OF_A_KERNEL * seconds) & (seconds < SMALL_KERNEL)
    return printed.max(axis=0), np.where(small, BOUNDS.index("latency"), limit)
