"""Time of a host and its device together; hosts by age."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.records import Device

OLDEST = 2016  # hosts of earlier years are not slower still: their clocks were the same


def slowness(year: int | None, c: Kernels) -> float:
    """Launch time of a host bought with a device of that year, as a multiple of a current host's.

        ageing^(current - year), at least 1, at most the value of 2016; 1 for an unknown year

    >>> from roofcast.hwdb.constants import kernels
    >>> slowness(2030, kernels()), slowness(None, kernels())
    (1.0, 1.0)
    """
    h = c.host
    slower = h.ageing ** (h.current - (year or h.current))
    return float(np.clip(slower, 1.0, h.ageing ** (h.current - OLDEST)))


def of_device(device: Device, c: Kernels) -> float:
    """Launch time on the host of a device, as a multiple of a current x86 host's.

    A device that is sold with its processor, as Grace with Blackwell, says how that processor
    compares with an x86 host of the same age (`host_launch`).

    >>> from roofcast import hwdb
    >>> from roofcast.hwdb.constants import kernels
    >>> [round(of_device(hwdb.device(d), kernels()), 2) for d in ("b200-sxm", "gb200")]
    [1.25, 3.24]
    """
    return slowness(device.year, c) * float(device.host_launch or 1.0)


def combine(
    device_s: ArrayLike, host_s: ArrayLike, c: Kernels, alike: bool = False, blocking: bool = False
) -> np.ndarray:
    """Seconds of a part of a step for which the device needs device_s and the host, to launch it,
    host_s.

        t = (device^p + host^p)^(1/p)

    The result lies between the longer of the two (the host runs ahead perfectly) and their sum (not
    at all). p is smaller where some stages of the part are bound by the device and others by the
    host, as in ConvNets, and larger where the part is one of many equal layers (`alike`). Eager
    CNNs on V100 are forecast within 8.5 % with p = 4.5 (maximum 9.4, sum 13.8), GPT on one node of
    A100 within 7.5 % with p = 8 (p = 4.5: 7.6, maximum 7.6, sum 45). A host that waits for every
    kernel that it launches (blocking; CUDA_LAUNCH_BLOCKING=1) never runs ahead: the two add.

    >>> from roofcast.hwdb.constants import kernels
    >>> round(float(combine(1.0, 1.0, kernels())), 3)
    1.167
    >>> round(float(combine(1.0, 1.0, kernels(), alike=True)), 3)
    1.091
    >>> float(combine(1.0, 1.0, kernels(), blocking=True))
    2.0
    """
    device, host = np.asarray(device_s), np.asarray(host_s)
    if blocking:
        return device + host
    top = np.maximum(np.maximum(device, host), 1e-30)
    p = c.host.alike if alike else c.host.norm
    return top * ((device / top) ** p + (host / top) ** p) ** (1.0 / p)
