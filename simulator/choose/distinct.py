"""Columns of many rows with few distinct values, and the rows that agree in several of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Column(NamedTuple):
    """A value for each row: the distinct values, and of each row the index into them."""

    values: list
    codes: np.ndarray

    @property
    def array(self) -> np.ndarray:
        """The values of all rows; they are numbers, or texts."""
        return np.array(self.values)[self.codes]


def column(values: Iterable[Any]) -> Column:
    """The column of these values, which can be hashed."""
    index: dict[tuple[type, Any], int] = {}  # True and 1 are two values
    codes = [index.setdefault((type(v), v), len(index)) for v in values]
    return Column([v for _, v in index], np.array(codes, dtype=np.intp))


class Together(NamedTuple):
    """Combinations of the values of some columns."""

    first: np.ndarray  # the first row of each combination
    codes: np.ndarray  # of each row, its combination


def together(columns: Sequence[Column], rows: np.ndarray) -> Together:
    """The distinct combinations of the columns' values among these rows, which ascend, in the order
    of their first rows.

    >>> pair = column([4, 4, 8]), column("aba")
    >>> together(pair, np.arange(3)).codes.tolist(), together(pair[:1], np.arange(3)).first.tolist()
    ([0, 1, 2], [0, 2])
    """
    codes, count = np.zeros(len(rows), dtype=np.intp), 1
    for values, own in columns:
        if len(values) > 1:
            if count * len(values) > _most(codes):
                codes, count = _numbered(codes, count)
            codes = codes * len(values) + own[rows]
            count *= len(values)
    codes, count = _numbered(codes, count)
    first = np.empty(count, dtype=np.intp)
    first[codes[::-1]] = rows[::-1]  # the first row of each is written last
    order = np.argsort(first)
    place = np.empty(count, dtype=np.intp)
    place[order] = np.arange(count)
    return Together(first[order], place[codes])


def _numbered(codes: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """The codes, which are below `count`, without gaps, and how many there are."""
    if count > _most(codes):
        found, codes = np.unique(codes, return_inverse=True)
        return codes, len(found)
    seen = np.zeros(count, dtype=bool)
    seen[codes] = True
    number = np.cumsum(seen) - 1
    return number[codes], int(number[-1]) + 1


def _most(codes: np.ndarray) -> int:
    """Combinations up to which a table of them all is faster than sorting."""
    return 8 * len(codes) + 64
