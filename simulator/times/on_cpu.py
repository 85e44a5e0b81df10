"""Kernels on a measured CPU as its software runs them: number by number, or on one thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.times.matmul import cpu_start, summed
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.stream import stream

# kinds whose special functions are square roots, which processors have an instruction for
ROOTS = ("optimizer", "batch_norm", "norm", "norm_backward", "rms_norm")


class Software(NamedTuple):
    """What a stack does on a CPU; the names are kinds of kernels."""

    scalar: tuple[str, ...] = ()  # number by number: "pool", "special" (functions)
    serial: tuple[str, ...] = ()  # on one thread
    row_s: float = 0.0  # of each row that a scatter adds to its table
    packs: bool = False  # the library of products copies operands on every maker's CPUs
    columns: bool = False  # convolutions write the matrix of their windows and multiply it


def streams(
    kinds: Sequence[str],
    bytes: np.ndarray,
    flops: np.ndarray,
    special: np.ndarray,
    rows: np.ndarray,
    own: Software,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of kernels that move bytes, of those kinds (`times.stream.CLASS`).

        busy = max(stream, clocks x special / clock of all cores)
        t    = start + busy, or start + threads x busy where one thread does it all, + row_s rows

    rows: that a scatter adds to its table, 0 of other kernels; special: of ROOTS are none. One
    thread of several gets its share of the bandwidth.
    """
    known = ["pool" if k == "compare" and "pool" not in own.scalar else k for k in kinds]
    start = c.cpu.start_stream * cpu_start(rates, c)
    busy = stream(known, bytes, flops, special, rates, c) - start
    if "special" in own.scalar:
        called = np.where([k in ROOTS for k in known], 0.0, special)
        busy = np.maximum(busy, c.cpu.compare * called / (rates.cores * rates.clock))
    alone = np.array([k in own.serial for k in known])
    return start + np.where(alone, rates.cores, 1.0) * busy + own.row_s * rows


def by_columns(
    flops: np.ndarray, operands: np.ndarray, columns: np.ndarray, rates: Rates, c: Kernels
) -> np.ndarray:
    """Seconds of convolutions as a product with the matrix of all windows (im2col)
    [chellapilla2006].

        t = product of the operands and the matrix + columns / BW

    operands: bytes of x, w and y; columns: bytes of the matrix, which is written once, or read
    once more by the product of the gradient of the weights.
    """
    written = columns / (rates.stream * rates.bandwidth)
    return summed(flops, operands + columns, rates, c) + written
