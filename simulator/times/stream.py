"""Seconds of kernels that move bytes and compute little, by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import cpu_start
from roofcast.simulator.times.rates import Rates

# bytes per clock with which main memory feeds a core of the device on which [issue] was measured
CORE = {"gather": 11.6}  # A100
RTX_3090 = 6.3  # all other classes
# kind of kernel -> class in kernels.toml: a share of the bandwidth in [stream], or bytes per clock
# in [issue]
CLASS = {
    "elementwise": "elementwise", "cast": "elementwise", "optimizer": "elementwise",
    "batch_norm": "elementwise", "fused": "elementwise", "eager": "elementwise",
    "reduce": "rows", "softmax": "rows", "loss": "rows", "copy": "rows", "norm": "norm",
    "rms_norm": "rms_norm", "rope": "rope", "gated": "norm", "norm_backward": "norm_backward",
    "pool": "pool", "compare": "pool", "gather": "gather", "scatter": "gather",
    "dequantize": "elementwise", "depthwise": "depthwise", "depthwise_input": "depthwise_input",
    "depthwise_weight": "depthwise_weight",
}  # fmt: skip


def stream(
    kind: str | Sequence[str],
    bytes: ArrayLike,
    flops: ArrayLike,
    special: ArrayLike,
    rates: Rates,
    c: Kernels,
    each: int = 1,
) -> np.ndarray:
    """Seconds of a kernel that touches so many bytes of main memory once, computes `flops` on the
    vector units, and `special` special functions. Arguments broadcast.

        memory = bytes / min(share of the class x BW, bytes per clock x cores x clock)
        t      = sqrt(start^2 + max(memory, flops / vector rate, special / special rate)^2)

    kind: a name of CLASS, or a sequence of them; each: how many elements of the arrays, one after
    the other, are of each of these. On a CPU the start is added instead, and pooling ("compare")
    makes its `flops` comparisons one by one.

    A class has either a share of the bandwidth, or bytes that a core processes per clock whatever
    the bandwidth. The latter holds for pooling, gathering and depthwise convolutions: with shares
    read off an RTX 3090 or an A100, boards with less bandwidth per core were forecast a third too
    slow and boards with more a quarter too fast. Machines other than GPUs use the shares.
    Quadrature is closer than a sum on A100 kernels (residual add: 8.7 against 13.5 % mean error).
    """
    w = c.stream
    one = isinstance(kind, str)
    classes = [CLASS[kind]] if isinstance(kind, str) else [CLASS[k] for k in kind]
    # clocks per byte on one core
    cycles = np.array([1.0 / getattr(c.issue, name, np.inf) for name in classes])
    beside = np.array([CORE.get(name, RTX_3090) for name in classes])
    share = np.array([getattr(w, name, 1.0) for name in classes])
    start = np.array([w.start if name == "elementwise" else w.start_rows for name in classes])
    if one:
        cycles, share, start, beside = cycles[0], share[0], start[0], beside[0]
    elif each > 1:
        cycles, share, start, beside = (x.repeat(each) for x in (cycles, share, start, beside))
    bandwidth = rates.stream * rates.bandwidth
    if rates.kind == "gpu":
        per_byte = np.maximum(1.0 / (share * bandwidth), cycles / (rates.cores * rates.clock))
    else:
        per_byte = np.maximum(1.0 / share, beside * cycles) / bandwidth
    vector = np.asarray(flops) / (w.vector * rates.vector)
    functions = np.asarray(special) / (w.vector * rates.special)
    memory = np.asarray(bytes, dtype=float) * per_byte
    busy = np.maximum(memory, np.maximum(vector, functions))
    if rates.kind == "cpu":
        pools = np.array([k == "compare" for k in ([kind] if one else kind)])
        pools = pools[0] if one else pools.repeat(each)
        compared = np.where(pools, np.asarray(flops), 0.0)
        busy = np.maximum(busy, c.cpu.compare * compared / (rates.cores * rates.clock))
        return c.cpu.start_stream * cpu_start(rates, c) + busy
    return np.hypot(start / rates.clock if rates.kind == "gpu" else c.systolic.start, busy)
