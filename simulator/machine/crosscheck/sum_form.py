"""The plainest models of a CPU: arithmetic and traffic one after the other, nothing fitted.

    plain    t = F / P + B / D
    causes   t = F' / P' + B' / D + C / R

F and B are the FLOPs and bytes that the tape counts; P and D what two probes of the same minute
did. The second form has what is known of the libraries that run the nets: F' fills whole vectors
where channels are few, P' is the product of the nets' own BLAS, B' has the copies of convolutions
(im2col and back, or oneDNN's blocks of channels), C are the comparisons of max-pools, which PyTorch
makes one by one at a rate R. Two global multipliers may be fitted to the nets but one, and judged
on that one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from roofcast import hwdb
from roofcast.simulator import models
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.step import trace
from roofcast.simulator.work.traced import Kernel

# times an operand of a convolution crosses memory that oneDNN copies to its own layout: read,
# written there, read
BLOCKED = 3.0
# fp32 numbers in a vector register of 512 bits, and channels in a block of oneDNN's layout
LANES = 16


class Counted(NamedTuple):
    """What a step does."""

    flops: float  # of products and convolutions
    padded: float  # the same, where convolutions fill whole vectors of channels
    bytes: float  # read and written by all kernels
    moved: float  # the same with the copies of convolutions
    compared: float  # numbers that max-pools look at


def counted(scenario: Scenario) -> Counted:
    """FLOPs and bytes of a scenario's step."""
    device = hwdb.device(scenario.device, scenario.set)
    model = models.resolve(scenario.model, scenario.inputs, device.kind)
    recipe, _ = recipe_of(scenario, model, device)
    kernels, columns = trace(model, recipe).kernels, str(scenario.stack).endswith(COLUMNS_STACK)
    return Counted(
        float(sum(k.matrix * k.count for k in kernels)),
        float(sum(k.matrix * k.count * lanes(k) for k in kernels)),
        float(sum((k.read + k.written) * k.count for k in kernels)),
        float(sum(copied(k, columns) * k.count for k in kernels)),
        (
            0.0
            if columns
            else float(
                sum(
                    k.vector * k.count for k in kernels if k.kind == "pool" and k.phase == "forward"
                )
            )
        ),
    )


COLUMNS_STACK = "numba-stack.toml"  # whose convolutions are im2col and a product


def copied(k: Kernel, columns: bool) -> float:
    """Bytes of a kernel, those of a convolution with what its library copies: the columns of im2col
    written and read (or, of a gradient, added back), else every operand into blocks of channels and
    back.
    """
    if k.kind != "conv" or not k.shape:
        return k.read + k.written
    if not columns:
        return BLOCKED * (k.read + k.written)
    _, batch, c_in, _, _, pixels_out, taps, *_ = k.shape
    return k.read + k.written + 2.0 * 4.0 * batch * taps * c_in * pixels_out


def lanes(k: Kernel) -> float:
    """How many times its FLOPs a convolution does, because the channels that lie across a vector
    are fewer than its lanes.

    Those are the output channels forward and in the gradient of the weights, the input channels in
    the gradient of the input

    """
    if k.kind != "conv" or not k.shape:
        return 1.0
    across = k.shape[2] if k.shape[0] == "dgrad" else k.shape[3]
    return np.ceil(across / LANES) * LANES / across


class Rates(NamedTuple):
    """What the probes reached beside a net; arrays over nets."""

    product: np.ndarray  # FLOP/s of numpy's product
    own: np.ndarray  # FLOP/s of the product of the net's own library
    stream: np.ndarray  # bytes/s
    compare: np.ndarray  # comparisons/s of a max-pool


def plain(work: list[Counted], rates: Rates) -> tuple[np.ndarray, np.ndarray]:
    """F / P and B / D [s] of each step."""
    return (
        np.array([w.flops for w in work]) / rates.product,
        np.array([w.bytes for w in work]) / rates.stream,
    )


def causes(work: list[Counted], rates: Rates) -> tuple[np.ndarray, np.ndarray]:
    """F' / P' and B' / D + C / R [s] of each step."""
    others = (
        np.array([w.moved for w in work]) / rates.stream
        + np.array([w.compared for w in work]) / rates.compare
    )
    return np.array([w.padded for w in work]) / rates.own, others


def leave_one_out(
    f: np.ndarray, b: np.ndarray, measured: np.ndarray, groups: list[str]
) -> np.ndarray:
    """Seconds of each step from multipliers of both parts that were fitted to the other groups."""
    out = np.empty(len(measured))
    for group in set(groups):
        mine = np.array([g == group for g in groups])
        x, y = multipliers(f[~mine], b[~mine], measured[~mine])
        out[mine] = x * f[mine] + y * b[mine]
    return out


def multipliers(f: np.ndarray, b: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """x, y of x F / P + y B / D with the least sum of |ln(predicted / measured)|: outliers do not
    pull it.

    >>> x, y = multipliers(np.array([1.0, 2.0, 1.0]), np.array([1.0, 1.0, 3.0]), np.array([3.0, 4.0, 7.0]))
    >>> round(x, 2), round(y, 2)
    (1.0, 2.0)
    """

    def off(logs):
        return float(np.abs(np.log((np.exp(logs[0]) * f + np.exp(logs[1]) * b) / measured)).sum())

    starts = [
        minimize(off, (np.log(x), np.log(y)), method="Nelder-Mead")
        for x in (0.7, 1.0, 1.5)
        for y in (0.7, 1.0, 1.5)
    ]
    x, y = np.exp(min(starts, key=lambda s: s.fun).x)
    return float(x), float(y)
