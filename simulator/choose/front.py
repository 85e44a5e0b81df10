"""The Pareto front: points that no other point beats in every column."""

from __future__ import annotations

import numpy as np


def front(columns: np.ndarray) -> np.ndarray:
    """Indices of the rows that no other row equals or beats in every column, less being better, in
    the order of the first column. Of equal rows the first. Rows with an infinite or unknown number
    are left out.

    columns: rows x columns.

    >>> front(np.array([[1.0, 5.0], [2.0, 3.0], [3.0, 4.0], [4.0, 1.0]])).tolist()
    [0, 1, 3]
    """
    known = np.flatnonzero(np.isfinite(columns).all(axis=1))
    order = known[np.lexsort(columns[known].T[::-1])]  # the first column decides
    kept: list[int] = []
    for i in order.tolist():
        if not kept or not (columns[kept] <= columns[i]).all(axis=1).any():
            kept.append(i)
    return np.array(kept, dtype=int)
