"""The plain roofline: no machine with the printed rates runs a kernel faster."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.simulator.times.rates import Rates


def printed_times(
    matrix: ArrayLike, vector: ArrayLike, moved: ArrayLike, rates: Rates
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds that the matrix units, the vector units and the memory bus need at printed rates.

    matrix, vector: FLOPs on either unit; moved: bytes of main-memory traffic. Broadcasts.
    """
    on_matrix, on_vector = np.asarray(matrix) / rates.matrix, np.asarray(vector) / rates.vector
    return on_matrix, on_vector, np.asarray(moved) / rates.bandwidth


def lower_bound(matrix: ArrayLike, vector: ArrayLike, moved: ArrayLike, rates: Rates) -> np.ndarray:
    """Printed roofline of a kernel [s]: the slowest of its matrix FLOPs, vector FLOPs and bytes
    [williams2009].

        t = max(matrix / matrix peak, vector / vector peak, moved / bandwidth)

    A board that runs above its printed clock (GeForce boards do, by some 10 %) can be faster.

    >>> from roofcast.hwdb import device
    >>> from roofcast.simulator.times.rates import resolve
    >>> h100 = resolve(device("h100-sxm5"), "bf16").rates
    >>> f"{float(lower_bound(989.4e12, 0.0, 3.35e9, h100)):.3f}"
    '1.000'
    """
    on_matrix, on_vector, in_memory = printed_times(matrix, vector, moved, rates)
    return np.maximum(np.maximum(on_matrix, on_vector), in_memory)
