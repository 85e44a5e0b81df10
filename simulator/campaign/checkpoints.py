"""Checkpoints: what they hold, and how often one is saved.

T_s seconds to save, T_f seconds between failures, T_r seconds from a failure to the next step.
Intervals are seconds of work between two saves.
"""

from __future__ import annotations

import math

from roofcast.hwdb.formats import WIDTH
from roofcast.simulator.memory import MASTER
from roofcast.simulator.work.ops.optimizer import optimizer
from roofcast.simulator.work.step import Step


def state_bytes(step: Step) -> float:
    """Bytes that a checkpoint holds, once for all devices: every weight and buffer, and of the
    weights that train the optimizer states and the fp32 copies, in the formats of the stack.

    step: of the whole model.
    """
    weights = float(step.parameter_bytes)
    if step.recipe.optimizer is None:
        return weights
    o, stack = optimizer(step.recipe.optimizer), step.recipe.stack
    for w in step.weights:
        if w.trainable:
            width = WIDTH[w.dtype]
            each = MASTER * (1 + o.states) if stack.master else o.states * width
            weights += w.size * w.count * (each + o.fixed)
    return weights


def young(save_s: float, between_s: float) -> float:
    """sqrt(2 T_f T_s), which wastes least time to first order [young1974].

    >>> round(young(40.0, 4.2 * 86400) / 60)
    90
    """
    return math.sqrt(2.0 * between_s * save_s)


def daly(save_s: float, between_s: float) -> float:
    """The higher-order form [daly2006, equation 37]; T_f where saving takes longer than 2 T_f."""
    if save_s >= 2.0 * between_s:
        return between_s
    x = save_s / (2.0 * between_s)
    return math.sqrt(2.0 * save_s * between_s) * (1 + math.sqrt(x) / 3 + x / 9) - save_s


def available(save_s: float, between_s: float, recover_s: float) -> float:
    """The interval of the highest availability, T_s + sqrt(2 (T_f + T_r) T_s + T_s^2), from the
    start of a save to the next [saxena2024]; here without the save.
    """
    return math.sqrt(2.0 * (between_s + recover_s) * save_s + save_s * save_s)


def best(save_s: float, between_s: float) -> float:
    """The interval of the shortest mean run where failures are a Poisson process, exactly:
    minimises (exp((t + T_s) / T_f) - 1) / t, in which detection and restart are only a factor. With
    x = t / T_f it solves x - 1 + exp(-x - T_s / T_f) = 0, found by Newton's steps.

    >>> abs(best(40.0, 4e5) / daly(40.0, 4e5) - 1) < 1e-3
    True
    """
    if save_s <= 0.0:
        return 0.0
    ratio = save_s / between_s
    x = min(math.sqrt(2.0 * ratio), 1.0)
    for _ in range(NEWTON):
        fell = math.exp(-x - ratio)
        x -= (x - 1.0 + fell) / (1.0 - fell)
    return x * between_s


NEWTON = 30  # steps; quadratic, from a start within a factor of two
