"""Reuse of operands on chips smaller than those to which it was fitted."""

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.constants import kernels
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import FEWEST_CORES, resolve


def test_a_small_chip_reuses_as_much_as_the_smallest_that_was_fitted():
    small, fitted = (resolve(hwdb.device(d), "bf16").rates for d in ("rtx-3070", "a100-sxm4-80gb"))
    assert small.cores < FEWEST_CORES == fitted.cores
    assert small.footprint == pytest.approx(fitted.footprint)
    larger = resolve(hwdb.device("l40s"), "bf16").rates
    assert larger.footprint > fitted.footprint


def test_large_products_of_an_l4_come_near_the_best_that_was_measured():
    """0.754 of the peak (gpu-benchmark), before its limit of 72 W."""
    device = hwdb.device("l4")
    rates, n = resolve(device, "bf16").rates, np.array([8192.0])
    share = 2 * n**3 / matmul(n, n, n, 1.0, 2.0, 2.0, rates, kernels()) / rates.matrix
    assert float(share[0]) == pytest.approx(float(device.achieved["matmul_bf16"]), rel=0.2)
    assert rates.footprint > resolve(hwdb.device("rtx-3070"), "bf16").rates.footprint
