"""Seconds of recurrent layers: one small product per time step, each waiting for the previous."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.stream import stream


def recurrent(
    steps: ArrayLike,
    batch: ArrayLike,
    features: ArrayLike,
    hidden: ArrayLike,
    moved: ArrayLike,
    vector: ArrayLike,
    special: ArrayLike,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of one direction of one layer over `steps` time steps. Arguments broadcast.

        t = steps (matmul(batch, features, hidden) + stream(moved, vector, special of one step))

    features: gates x hidden; moved [bytes], vector [FLOP] and special (functions): of the whole
    sequence. The weights are read again at each step. The product with the input does not depend
    on earlier steps and is a matmul of its own.
    """
    n = np.asarray(steps, dtype=float)
    moved, vector, special = (np.asarray(x, dtype=float) / n for x in (moved, vector, special))
    width = max(rates.width, 2.0)
    product = matmul(batch, features, hidden, 1.0, width, width, rates, c)
    return n * (product + stream("elementwise", moved, vector, special, rates, c))
