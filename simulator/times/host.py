"""Host and device together."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.constants import Kernels

OLDEST = 2016  # older hosts are not slower still: their clocks were the same


def slowness(year, c: Kernels):
    """How much longer the host of a device of that year takes for a launch than a current one:
    hosts are bought with their devices.

        ageing^(current - year), at least 1 and at most what a host of 2016 takes

    >>> from roofcast.hwdb.constants import kernels
    >>> float(slowness(2030, kernels())), float(slowness(None, kernels()))
    (1.0, 1.0)
    """
    h = c.host
    return np.clip(
        h.ageing ** (h.current - (year or h.current)), 1.0, h.ageing ** (h.current - OLDEST)
    )


def combine(device_s, host_s, c: Kernels, alike: bool = False):
    """Seconds of a stretch of work that the device needs device_s for and the host host_s to
    dispatch.

        t = (device^p + host^p)^(1/p)

    Between the longer of the two (perfect run-ahead) and their sum (none). p is smaller where a
    stretch holds stages that the device and stages that the host bounds, as ConvNets do, and larger
    where it is one of many that are all `alike`: eager CNNs on V100 are forecast within 8.5 % with
    p = 4.5 (maximum 9.4, sum 13.8), GPT on one node of A100 within 7.5 with p = 8 (4.5: 7.6,
    maximum 7.6, sum 45).

    >>> from roofcast.hwdb.constants import kernels
    >>> round(float(combine(1.0, 1.0, kernels())), 3), round(float(combine(1.0, 1.0, kernels(), alike=True)), 3)
    (1.167, 1.091)
    """
    top = np.maximum(np.maximum(device_s, host_s), 1e-30)
    p = c.host.alike if alike else c.host.norm
    return top * ((np.asarray(device_s) / top) ** p + (np.asarray(host_s) / top) ** p) ** (1.0 / p)
