"""Seconds of kernels that move bytes and compute little, by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.tuples import NamedTuple
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

BY_ROW = ("gather", "pool")  # classes


class Class(NamedTuple):
    """What a class of kernels, or each of an array of them, has of its own."""

    cycles: Any  # clocks per byte on one core
    beside: Any  # bytes per clock with which memory feeds a core where that was measured
    share: Any  # of the bandwidth
    start: Any  # clocks
    compared: Any  # clocks of each of its FLOPs on a core of a CPU, which makes them one by one
    by_row: Any  # whether it goes along rows, which a CPU reads and writes as any stream

    def of(self, places: Any) -> Class:
        """Those of some kernels."""
        return Class(*(each[places] for each in self))


def class_of(kind: str | Sequence[str], c: Kernels) -> Class:
    """The class of a kind of kernel, a name of CLASS; of a sequence of kinds, arrays."""
    w = c.stream
    kinds = [kind] if isinstance(kind, str) else list(kind)
    classes = [CLASS[k] for k in kinds]
    found = Class(
        np.array([1.0 / getattr(c.issue, name, np.inf) for name in classes]),
        np.array([CORE.get(name, RTX_3090) for name in classes]),
        np.array([getattr(w, name, 1.0) for name in classes]),
        np.array([w.start if name == "elementwise" else w.start_rows for name in classes]),
        np.array([c.cpu.compare if k == "compare" else 0.0 for k in kinds]),
        np.array([name in BY_ROW for name in classes]),
    )
    return found.of(0) if isinstance(kind, str) else found


def stream(
    kind: str | Sequence[str] | Class,
    bytes: ArrayLike,
    flops: ArrayLike,
    special: ArrayLike,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of a kernel that touches so many bytes of main memory once, computes `flops` on the
    vector units, and `special` special functions. Arguments broadcast.

        memory = bytes / min(share of the class x BW, bytes per clock x cores x clock)
        t      = sqrt(start^2 + max(memory, flops / vector rate, special / special rate)^2)

    kind: a name of CLASS, or a sequence of them as long as the arrays, or their `class_of`. On a
    CPU the start is added instead; on a measured one, where PyTorch runs, pooling ("compare") makes
    its comparisons one by one.

    A class has either a share of the bandwidth, or bytes that a core processes per clock whatever
    the bandwidth. The latter holds for pooling, gathering and depthwise convolutions: with shares
    read off an RTX 3090 or an A100, boards with less bandwidth per core were forecast a third too
    slow and boards with more a quarter too fast. Machines other than GPUs use the shares; a
    measured CPU gathers and pools along rows at the bandwidth (13 to 23 GB/s of PyTorch's
    index_select on a Xeon whose triad has 13).
    Quadrature is closer than a sum on A100 kernels (residual add: 8.7 against 13.5 % mean error).
    """
    own, w = kind if isinstance(kind, Class) else class_of(kind, c), c.stream
    bandwidth = rates.stream * rates.bandwidth
    if rates.kind == "gpu":
        cycles = own.cycles / (rates.cores * rates.clock)
        per_byte = np.maximum(1.0 / (own.share * bandwidth), cycles)
    else:
        cycles = own.beside * own.cycles
        if rates.measured:
            cycles = np.where(own.by_row, 0.0, cycles)
        per_byte = np.maximum(1.0 / own.share, cycles) / bandwidth
    vector = np.asarray(flops) / (w.vector * rates.vector)
    functions = np.asarray(special) / (w.vector * rates.special)
    memory = np.asarray(bytes, dtype=float) * per_byte
    busy = np.maximum(memory, np.maximum(vector, functions))
    if rates.measured:
        busy = np.maximum(busy, own.compared * np.asarray(flops) / (rates.cores * rates.clock))
    if rates.kind == "cpu":
        return c.cpu.start_stream * cpu_start(rates, c) + busy
    return np.hypot(own.start / rates.clock if rates.kind == "gpu" else c.systolic.start, busy)
