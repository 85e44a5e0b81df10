"""No machine with the printed rates does it faster."""

from __future__ import annotations

import numpy as np

from simulator.times.rates import Rates


def lower_bound(flops, bytes, rates: Rates, vector_flops=0.0):
    """Printed roofline of a kernel [s]: the slower of its matrix FLOPs, vector FLOPs and bytes [williams2009].

        t = max(flops / matrix peak, vector_flops / vector peak, bytes / bandwidth)

    A board that was measured above its printed peak (GeForce clocks above the printed boost) is bounded by that.
    """
    compute = np.maximum(np.asarray(flops) / (rates.matrix * np.maximum(rates.sustained, 1.0)), np.asarray(vector_flops) / rates.vector)
    return np.maximum(compute, np.asarray(bytes) / rates.bandwidth)
