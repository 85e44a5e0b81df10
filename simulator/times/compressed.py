"""Seconds of products with compressed weights: held in fewer bits than they are multiplied in, or
with 2 of every 4 kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import matmul, tiled
from roofcast.simulator.times.rates import Rates


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
    slower = max(1.0, c.matmul.sparse_loop / rates.fed)
    at = rates._replace(matrix=rates.matrix / slower)
    into = np.asarray(width, dtype=float)
    reread = batch * 2.0 * into * (m * n * half) / rates.footprint
    return tiled(m, n, half, batch, into, traffic, reread, at, c)


def widening(widens: ArrayLike, rates: Rates, c: Kernels) -> np.ndarray:
    """Seconds that kernels of a GPU take to start widening the weights they multiply; 0 for those
    that multiply what they read (`widens`: false).
    """
    return np.asarray(widens, dtype=float) * (rates.kind == "gpu") * c.matmul.widened / rates.clock
