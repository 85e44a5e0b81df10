"""The plainest model of a CPU: a step takes F / P + B / D, arithmetic and traffic one after the other, nothing fitted.

F and B are the FLOPs and bytes that the tape counts, P and D what two probes of the same minute did. Two global multipliers may be
fitted to the nets but one, and judged on that one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

import hwdb
from simulator import models
from simulator.resolve import decide
from simulator.scenario import Scenario
from simulator.step import trace
from simulator.traced import Kernel

LANES = 16  # fp32 numbers in a vector register of 512 bits, and channels in a block of oneDNN's layout


class Counted(NamedTuple):
    """What a step does."""

    flops: float  # of products and convolutions
    padded: float  # the same, where convolutions fill whole vectors of channels
    bytes: float  # read and written by all kernels


def counted(scenario: Scenario) -> Counted:
    """FLOPs and bytes of a scenario's step."""
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    recipe, _ = decide(scenario, model, device)
    kernels = trace(model, recipe).kernels
    return Counted(
        float(sum(k.matrix * k.count for k in kernels)),
        float(sum(k.matrix * k.count * lanes(k) for k in kernels)),
        float(sum((k.read + k.written) * k.count for k in kernels)),
    )


def lanes(k: Kernel) -> float:
    """How many times its FLOPs a convolution does, because the channels that lie across a vector are fewer than its lanes.

    Those are the output channels forward and in the gradient of the weights, the input channels in the gradient of the input

    """
    if k.kind != "conv" or not k.shape:
        return 1.0
    across = k.shape[2] if k.shape[0] == "dgrad" else k.shape[3]
    return np.ceil(across / LANES) * LANES / across


def zero(work: list[Counted], flops_per_s, bytes_per_s, padded: bool = False) -> np.ndarray:
    """Seconds of each step: F / P + B / D."""
    f, b = parts(work, flops_per_s, bytes_per_s, padded)
    return f + b


def parts(work: list[Counted], flops_per_s, bytes_per_s, padded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of arithmetic, seconds of traffic."""
    f = np.array([w.padded if padded else w.flops for w in work]) / flops_per_s
    return f, np.array([w.bytes for w in work]) / bytes_per_s


def leave_one_out(f: np.ndarray, b: np.ndarray, measured: np.ndarray, groups: list[str], teach: np.ndarray) -> np.ndarray:
    """Seconds of each step from multipliers of both parts that were fitted to the other groups, of these to the rows of `teach`."""
    out = np.empty(len(measured))
    for group in set(groups):
        mine = np.array([g == group for g in groups])
        others = ~mine & teach
        x, y = multipliers(f[others], b[others], measured[others])
        out[mine] = x * f[mine] + y * b[mine]
    return out


def multipliers(f: np.ndarray, b: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """x, y of x F / P + y B / D with the least sum of |ln(predicted / measured)|: outliers do not pull it.

    >>> x, y = multipliers(np.array([1.0, 2.0, 1.0]), np.array([1.0, 1.0, 3.0]), np.array([3.0, 4.0, 7.0]))
    >>> round(x, 2), round(y, 2)
    (1.0, 2.0)
    """

    def off(logs):
        return float(np.abs(np.log((np.exp(logs[0]) * f + np.exp(logs[1]) * b) / measured)).sum())

    starts = [minimize(off, (np.log(x), np.log(y)), method="Nelder-Mead") for x in (0.7, 1.0, 1.5) for y in (0.7, 1.0, 1.5)]
    x, y = np.exp(min(starts, key=lambda s: s.fun).x)
    return float(x), float(y)
