"""Sequences that decode beside each other where a router gives a request to the instance with the
fewest.

Of N users each decodes with the same probability, independent of the others; the number K of those
that do beside a given one is binomial, and Poisson where requests come by themselves. The router
keeps instances even: of K + 1 on n instances,

    beside = max(K + 1 - n, 0) / n

decode beside it, which for n = 1 is K.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.serving.protocol import Numbers


def beside(others: Numbers, instances: Numbers, users: Numbers) -> Numbers:
    """Mean number of sequences on the instance of one, of `others` on all in the mean; users: all,
    infinite where requests come by themselves.

        E[max(K + 1 - n, 0)] = E[K] - (n - 1) + sum over j < n - 1 of (n - 1 - j) P(K = j)

    >>> float(beside(3.0, 1.0, 9.0)), round(float(beside(1.0, 2.0, np.inf)), 3)
    (3.0, 0.184)
    >>> round(float(beside(1.0, 2.0, 2.0)), 3)  # two users on two instances
    0.0
    """
    n, others = np.asarray(instances, dtype=float), np.asarray(others, dtype=float)
    most = int(np.max(n)) - 1
    if most < 1:
        return others
    finite = np.isfinite(users)
    rest = np.where(finite, users, 2.0) - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(rest > 0.0, np.clip(others / np.maximum(rest, 1e-12), 0.0, 1.0), 0.0)
        odds = share / np.maximum(1.0 - share, 1e-12)
        none = np.where(finite, np.exp(rest * np.log1p(-np.minimum(share, 1.0 - 1e-12))),
                        np.exp(-others))  # fmt: skip
        found, at = others - (n - 1.0), none
        for j in range(most):
            found = found + np.maximum(n - 1.0 - j, 0.0) * at
            ratio = np.where(finite, np.maximum(rest - j, 0.0) * odds, others)
            at = at * ratio / (j + 1.0)
    return np.clip(found, 0.0, others) / n


def even(total: np.ndarray, n: int, of: np.ndarray) -> np.ndarray:
    """The sum over n instances of `of` [by sequences on one, from 0] at so many sequences on all,
    evenly.

    >>> even(np.array([0, 1, 2, 3]), 2, np.array([0.0, 5.0, 8.0])).tolist()
    [0.0, 5.0, 10.0, 13.0]
    """
    each, more = np.divmod(total, n)
    above = of[np.minimum(each + 1, len(of) - 1)]
    return np.asarray(more * above + (n - more) * of[each])
