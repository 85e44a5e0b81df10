"""Seconds of kernels that move bytes and do little else, by class."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import cpu_start
from roofcast.simulator.times.rates import Rates

# bytes a clock that main memory feeds a core with where [issue] was measured: A100
CORE = {"gather": 11.6}
RTX_3090 = 6.3  # the same where all else was
# kind of kernel -> class of kernels.toml: [stream], the share of the bandwidth it reaches, or
# [issue]
CLASS = {
    "elementwise": "elementwise", "cast": "elementwise", "optimizer": "elementwise",
    "batch_norm": "elementwise", "fused": "elementwise", "reduce": "rows", "softmax": "rows",
    "loss": "rows", "copy": "rows", "norm": "norm", "rms_norm": "rms_norm", "rope": "rope",
    "gated": "norm", "norm_backward": "norm_backward", "pool": "pool", "gather": "gather",
    "scatter": "gather", "depthwise": "depthwise", "depthwise_input": "depthwise_input",
    "depthwise_weight": "depthwise_weight",
}  # fmt: skip


def stream(kind, bytes, flops, special, rates: Rates, c: Kernels):
    """Seconds of a kernel that touches `bytes` once, does `flops` on the vector units and `special`
    special functions.

        t = sqrt(start^2 + max(bytes / (share of the class x BW), bytes / (rate of the class x cores
        x clock),
                               flops / vector rate, special / special rate)^2)

    kind: a name of CLASS, or a sequence of them as long as the arrays. A CPU adds its start
    instead. A class has a share of the bandwidth, or the bytes that a core gets through in a clock,
    whatever the bandwidth: with the shares that pooling, gathering and depthwise convolutions reach
    on an RTX 3090 or an A100, boards of less bandwidth a core were forecast a third too slow and
    boards of more a quarter too fast. Machines other than GPUs take those shares. Quadrature beats
    a sum on A100 kernels: residual add 8.7 against 13.5 % mean error.
    """
    w = c.stream
    one = isinstance(kind, str)
    classes = [CLASS[kind]] if one else [CLASS[k] for k in kind]
    # a byte on one core
    cycles = np.array([1.0 / getattr(c.issue, name, np.inf) for name in classes])
    beside = np.array([CORE.get(name, RTX_3090) for name in classes])
    share = np.array([getattr(w, name, 1.0) for name in classes])
    start = np.array([w.start if name == "elementwise" else w.start_rows for name in classes])
    if one:
        cycles, share, start, beside = cycles[0], share[0], start[0], beside[0]
    size = np.asarray(bytes, dtype=float)
    if rates.kind == "gpu":
        slowest = np.maximum(
            1.0 / (share * rates.stream * rates.bandwidth), cycles / (rates.cores * rates.clock)
        )
    else:
        slowest = np.maximum(1.0 / share, beside * cycles) / (rates.stream * rates.bandwidth)
    units = np.maximum(
        np.asarray(flops) / (w.vector * rates.vector),
        np.asarray(special) / (w.vector * rates.special),
    )
    busy = np.maximum(size * slowest, units)
    if rates.kind == "cpu":
        return c.cpu.start_stream * cpu_start(rates, c) + busy
    return np.hypot(start / rates.clock if rates.kind == "gpu" else c.systolic.start, busy)
