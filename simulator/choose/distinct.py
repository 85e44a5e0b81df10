"""Columns of many rows with few distinct values, and the rows that agree in several of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from roofcast.hwdb.tuples import NamedTuple


class Column(NamedTuple):
    """A value for each row: the distinct values, and of each row the index into them."""

    values: Sequence
    codes: np.ndarray

    @property
    def array(self) -> np.ndarray:
        """The values of all rows; they are numbers, or texts."""
        return np.array(self.values)[self.codes]

    def of(self, row: int) -> Any:
        """The value of a row."""
        return self.values[self.codes[row]]


def column(values: Iterable[Any]) -> Column:
    """The column of these values, which can be hashed."""
    index: dict[tuple[type, Any], int] = {}  # True and 1 are two values
    codes = [index.setdefault((type(v), v), len(index)) for v in values]
    return Column([v for _, v in index], narrow(codes, len(index)))


def narrow(codes: Any, count: int) -> np.ndarray:
    """Codes below `count` in the smallest format: columns are long, and memory is slow."""
    return np.asarray(codes, dtype=np.min_scalar_type(max(count - 1, 0)))


def numbered(codes: np.ndarray) -> Column:
    """Whole numbers of at least 0 as a column."""
    return Column(range(int(codes.max()) + 1), codes)


def combined(
    columns: Sequence[Column], rows: np.ndarray, every: bool = False
) -> tuple[np.ndarray, int]:
    """Of each of these rows a number that tells the combination of the columns' values, and how
    many numbers there are. every: these are all rows, in order.

    >>> combined([column([4, 4, 8]), column("aba")], np.arange(3))[0].tolist()
    [0, 1, 2]
    """
    codes, count = None, 1
    most = 8 * len(rows) + 64  # a table of all numbers is faster than sorting up to here
    for values, own in (each for each in columns if len(each.values) > 1):
        mine = own if every else own[rows]
        if codes is None:
            codes = mine.astype(np.intp)
        else:
            codes *= len(values)
            codes += mine
        count *= len(values)
        if count > most:
            found, codes = np.unique(codes, return_inverse=True)
            count = len(found)
    return np.zeros(len(rows), dtype=np.intp) if codes is None else codes, count


class Together(NamedTuple):
    """The combinations of the values of some columns."""

    first: np.ndarray  # the first row of each combination
    codes: np.ndarray  # of each row, its combination


def together(columns: Sequence[Column], rows: np.ndarray) -> Together:
    """The combinations of the columns' values among these rows, in the order of their first rows.

    >>> together([column([4, 4, 8])], np.arange(3))
    Together(first=array([0, 2]), codes=array([0, 0, 1]))
    """
    codes, count = combined(columns, rows)
    first = np.full(count, -1)
    first[codes[::-1]] = np.arange(len(rows))[::-1]  # the first row of each is written last
    present = np.flatnonzero(first >= 0)
    present = present[np.argsort(first[present])]
    place = np.empty(count, dtype=np.intp)
    place[present] = np.arange(len(present))
    return Together(rows[first[present]], place[codes])
