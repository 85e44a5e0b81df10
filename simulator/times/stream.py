"""Seconds of kernels that are bound by memory, by class."""

from __future__ import annotations

import numpy as np

from hwdb.constants import Kernels
from simulator.times.matmul import cpu_start
from simulator.times.rates import Rates

CLASS = {  # kind of kernel -> class of kernels.toml [stream] whose share of the bandwidth it reaches
    "elementwise": "elementwise", "cast": "elementwise", "optimizer": "elementwise", "batch_norm": "elementwise", "fused": "elementwise",
    "reduce": "rows", "softmax": "rows", "loss": "rows", "copy": "rows",
    "norm": "norm", "rms_norm": "rms_norm", "rope": "rope", "gated": "norm", "norm_backward": "norm_backward",
    "pool": "pool", "gather": "gather", "scatter": "gather",
    "depthwise": "depthwise", "depthwise_input": "depthwise_input", "depthwise_weight": "depthwise_weight",
}  # fmt: skip


def stream(kind, bytes, flops, special, rates: Rates, c: Kernels):
    """Seconds of a kernel that touches `bytes` once, does `flops` on the vector units and `special` special functions.

        t = sqrt(start^2 + max(bytes / (share of the class x BW), flops / vector rate, special / special rate)^2)

    kind: a name of CLASS, or a sequence of them as long as the arrays. A CPU adds its start instead.
    Quadrature beats a sum on A100 kernels: residual add 8.7 against 13.5 % mean error.
    """
    w = c.stream
    if isinstance(kind, str):
        share, start = getattr(w, CLASS[kind]), w.start if CLASS[kind] == "elementwise" else w.start_rows
    else:
        classes = [CLASS[k] for k in kind]
        share = np.array([getattr(w, name) for name in classes])
        start = np.array([w.start if name == "elementwise" else w.start_rows for name in classes])
    memory = np.asarray(bytes, dtype=float) / (share * rates.stream * rates.bandwidth)
    units = np.maximum(np.asarray(flops) / (w.vector * rates.vector), np.asarray(special) / (w.vector * rates.special))
    busy = np.maximum(memory, units)
    if rates.kind == "cpu":
        return c.cpu.start_stream * cpu_start(rates, c) + busy
    return np.hypot(start / rates.clock if rates.kind == "gpu" else c.systolic.start, busy)
