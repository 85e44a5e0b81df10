"""Host and device together."""

from __future__ import annotations

import numpy as np

from hwdb.constants import Kernels

OLDEST = 2016  # older hosts are not slower still: their clocks were the same


def slowness(year, c: Kernels):
    """How much longer the host of a device of that year takes for a launch than a current one: hosts are bought with their devices.

        ageing^(current - year), at least 1 and at most what a host of 2016 takes

    >>> from hwdb.constants import kernels
    >>> float(slowness(2030, kernels())), float(slowness(None, kernels()))
    (1.0, 1.0)
    """
    h = c.host
    return np.clip(h.ageing ** (h.current - (year or h.current)), 1.0, h.ageing ** (h.current - OLDEST))


def combine(device_s, host_s, c: Kernels):
    """Seconds of a stretch of work that the device needs device_s for and the host host_s to dispatch.

        t = (device^p + host^p)^(1/p)

    Between the longer of the two (perfect run-ahead) and their sum (none). Fitted to two sources: with p = 4.5 the mean error
    is 8.5 % on eager CNNs on V100 and 7.4 % on GPT on one node of A100; with p = 3, 8.6 and 7.7 %; the maximum gives 9.4
    and 8.4 %, the sum 13.8 and 45 %.

    >>> from hwdb.constants import kernels
    >>> round(float(combine(1.0, 1.0, kernels())), 3)
    1.167
    """
    top = np.maximum(np.maximum(device_s, host_s), 1e-30)
    p = c.host.norm
    return top * ((np.asarray(device_s) / top) ** p + (np.asarray(host_s) / top) ** p) ** (1.0 / p)
