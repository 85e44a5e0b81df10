"""Distinct experts that the tokens of a step meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def experts_hit(experts: ArrayLike, share: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """Distinct experts that so many tokens choose, each with probability `share`.

    >>> round(float(experts_hit(256, 8 / 256, 64)), 1)
    222.4
    """
    share = np.asarray(share, dtype=float)
    missed = np.asarray(tokens) * np.log1p(-np.minimum(share, 1 - 1e-12))
    return np.asarray(experts) * -np.expm1(missed)


def experts_met(experts: ArrayLike, share: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """Distinct experts that so many tokens of a text choose, each a share of all in the mean.

    Routers favour some experts: their popularity is taken as exponentially distributed, which
    assumes nothing beyond its mean. One that gets x times its share is missed by t - 1 tokens with
    the probability exp(-x l (t - 1)), l = -ln(1 - share), in the mean over x 1 / (1 + l (t - 1)).

        met = experts (1 - (1 - share) / (1 + l (t - 1)))

    >>> round(float(experts_met(256, 8 / 256, 1))), round(float(experts_met(256, 8 / 256, 64)), 1)
    (8, 173.3)
    """
    each = np.minimum(np.asarray(share, dtype=float), 1 - 1e-12)
    count = np.asarray(tokens, dtype=float)
    first = np.minimum(count, 1.0) * each
    others = 1.0 - np.log1p(-each) * np.maximum(count - 1.0, 0.0)
    return np.asarray(experts) * (1.0 - (1.0 - first) / others)


def blocked(rows: ArrayLike, experts: ArrayLike, block: float) -> np.ndarray:
    """Rows that a kernel computes which has room for each expert's in whole blocks, whoever is met.

        padded = block ceil((rows + experts (block - 1)) / block)

    >>> float(blocked(128.0, 128.0, 128.0))
    16384.0
    """
    room = np.asarray(rows, dtype=float) + np.asarray(experts) * (block - 1.0)
    return np.asarray(block * np.ceil(room / block))


def busiest(ranks: int) -> float:
    """By how many standard deviations the largest of so many equal normal values lies above their
    mean, in the mean [blom1958].

    >>> [round(busiest(n), 2) for n in (1, 2, 8)]
    [0.0, 0.59, 1.43]
    """
    if ranks == 1:
        return 0.0
    from statistics import NormalDist

    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))
