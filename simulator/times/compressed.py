"""Seconds of products with compressed weights: held in fewer bits than they are multiplied in, or
with 2 of every 4 kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.formats import WIDTH
from roofcast.simulator.times.matmul import matmul, tiled
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.work.traced import Kernel


def sparse_matmul(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    batch: ArrayLike,
    width: ArrayLike,
    moved: ArrayLike,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of products A[m, k] B[k, n] of which B holds 2 of every 4 weights [mishra2021].

        t = tiled(m, n, k / 2), with the main loop at 1 / max(1, loop / fed) of its rate

    The matrix unit multiplies k / 2 times a sum, at its own rate, but is fed all of A and an index
    for each weight: `loop` is how long that takes, over the multiplications of units that run at
    the rate their operand paths were built for. Units that are held at half rate (fed = 2) wait for
    no operand. moved: bytes of all operands and results; width: bytes of an element of A.
    """
    m, n, k, batch = (np.asarray(x, dtype=float) for x in (m, n, k, batch))
    traffic, half = np.asarray(moved, dtype=float), k / 2.0
    if rates.kind != "gpu":
        return matmul(m, n, half, batch, width, width, rates, c, moved=traffic)
    slower = np.maximum(1.0, c.matmul.sparse_loop / np.asarray(rates.fed))
    at = rates._replace(matrix=rates.matrix / slower)
    into = np.asarray(width, dtype=float)
    reread = batch * 2.0 * into * (m * n * half) / rates.footprint
    return tiled(m, n, half, batch, into, traffic, reread, at, c)


def sparse(ks: Sequence[Kernel], _: None, rates: Rates, c: Kernels) -> np.ndarray:
    """Seconds of kernels whose weights hold 2 of every 4."""
    batch, m, n, k = np.array([kernel.shape for kernel in ks], dtype=float).T
    moved = np.array([kernel.read + kernel.written for kernel in ks])
    return sparse_matmul(m, n, k, batch, max(rates.width, 1.0), moved, rates, c)


def widening(ks: Sequence[Kernel], rates: Rates, c: Kernels) -> np.ndarray:
    """Seconds that kernels of a GPU take to start widening the weights they multiply; 0 for those
    that multiply what they read.
    """
    if rates.kind != "gpu":
        return np.zeros(len(ks))
    more = np.array([c.matmul.widened if _widens(kernel) else 0.0 for kernel in ks])
    return more / rates.clock


def _widens(k: Kernel) -> bool:
    """Does the kernel multiply in 16 bits or more a weight that it reads in fewer?"""
    return len(k.inputs) > 1 and WIDTH[k.inputs[1].dtype] < 2.0 <= WIDTH.get(k.product, 4)
