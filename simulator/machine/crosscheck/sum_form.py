"""The simplest CPU models: arithmetic and memory traffic one after the other, nothing fitted.

    plain    t = F / P + B / D
    causes   t = F' / P' + B' / D + C / R

F and B are the FLOPs and bytes of the traced step; P and D are the rates of two probes measured in
the same minutes. The second form adds what is known about the libraries that run the nets: F' fills
whole vectors where convolutions have few channels; P' is the product rate of the net's own BLAS; B'
includes the copies of convolutions (im2col and back, or oneDNN's blocked layout); C are the
comparisons of max-pools, which PyTorch makes one by one at a rate R. Two global multipliers may be
fitted to all nets but one, and judged on that one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from roofcast import hwdb
from roofcast.simulator import models
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.matmul import COPIED
from roofcast.simulator.work.step import trace
from roofcast.simulator.work.traced import Kernel

# fp32 numbers in a 512-bit vector register, and channels in a block of oneDNN's layout
LANES = 16
COLUMNS_STACK = "numba-stack.toml"  # convolutions by im2col and a product


class Counted(NamedTuple):
    """The work of a step."""

    flops: float  # of products and convolutions
    padded: float  # the same, with whole vectors of channels in convolutions
    bytes: float  # read and written by all kernels
    moved: float  # the same, with the copies of convolutions
    compared: float  # numbers compared by max-pools


def counted(scenario: Scenario) -> Counted:
    """FLOPs, bytes and comparisons of a scenario's step."""
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    recipe, _ = recipe_of(scenario, model, device)
    kernels, columns = trace(model, recipe).kernels, str(scenario.stack).endswith(COLUMNS_STACK)
    pools = [k for k in kernels if k.kind == "pool" and k.phase == "forward" and not columns]
    return Counted(
        flops=float(sum(k.matrix * k.count for k in kernels)),
        padded=float(sum(k.matrix * k.count * lanes(k) for k in kernels)),
        bytes=float(sum((k.read + k.written) * k.count for k in kernels)),
        moved=float(sum(copied(k, columns) * k.count for k in kernels)),
        compared=float(sum(k.vector * k.count for k in pools)),
    )


def copied(k: Kernel, columns: bool) -> float:
    """Bytes of a kernel, with what the library copies for a convolution.

    With `columns`, the im2col matrix is written and read (or, in backward, read and added back);
    otherwise every operand is copied to a blocked layout and back.
    """
    if k.kind != "conv" or not k.shape:
        return k.read + k.written
    if not columns:
        return COPIED * (k.read + k.written)
    _, batch, c_in, _, _, pixels_out, taps, *_ = k.shape
    return k.read + k.written + 2.0 * 4.0 * batch * taps * c_in * pixels_out


def lanes(k: Kernel) -> float:
    """Factor on a convolution's FLOPs where channels do not fill the lanes of a vector.

    The channels that lie across a vector are the output channels in forward and in the weight
    gradient, and the input channels in the input gradient.
    """
    if k.kind != "conv" or not k.shape:
        return 1.0
    across = k.shape[2] if k.shape[0] == "dgrad" else k.shape[3]
    return np.ceil(across / LANES) * LANES / across


class Rates(NamedTuple):
    """Rates of the probes measured with each net; arrays over nets."""

    product: np.ndarray  # numpy's product [FLOP/s]
    own: np.ndarray  # the product of the net's own library [FLOP/s]
    stream: np.ndarray  # bytes/s
    compare: np.ndarray  # comparisons/s of a max-pool


def plain(work: list[Counted], rates: Rates) -> tuple[np.ndarray, np.ndarray]:
    """F / P and B / D [s] of each step."""
    flops = np.array([w.flops for w in work])
    return flops / rates.product, np.array([w.bytes for w in work]) / rates.stream


def causes(work: list[Counted], rates: Rates) -> tuple[np.ndarray, np.ndarray]:
    """F' / P' and B' / D + C / R [s] of each step."""
    moved = np.array([w.moved for w in work]) / rates.stream
    compared = np.array([w.compared for w in work]) / rates.compare
    return np.array([w.padded for w in work]) / rates.own, moved + compared


def leave_one_out(
    f: np.ndarray, b: np.ndarray, measured: np.ndarray, groups: list[str]
) -> np.ndarray:
    """Seconds of each step, with multipliers of f and b that were fitted to the other groups."""
    out = np.empty(len(measured))
    for group in set(groups):
        mine = np.array([g == group for g in groups])
        x, y = multipliers(f[~mine], b[~mine], measured[~mine])
        out[mine] = x * f[mine] + y * b[mine]
    return out


def multipliers(f: np.ndarray, b: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """x, y with the least sum of |ln((x f + y b) / measured)|, which is robust to outliers.

    >>> f, b = np.array([1.0, 2.0, 1.0]), np.array([1.0, 1.0, 3.0])
    >>> x, y = multipliers(f, b, np.array([3.0, 4.0, 7.0]))
    >>> round(x, 2), round(y, 2)
    (1.0, 2.0)
    """

    def off(logs: np.ndarray) -> float:
        return float(np.abs(np.log((np.exp(logs[0]) * f + np.exp(logs[1]) * b) / measured)).sum())

    starts = [
        minimize(off, (np.log(x), np.log(y)), method="Nelder-Mead")
        for x in (0.7, 1.0, 1.5)
        for y in (0.7, 1.0, 1.5)
    ]
    x, y = np.exp(min(starts, key=lambda s: s.fun).x)
    return float(x), float(y)
