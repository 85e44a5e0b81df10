"""Cells of a table of measured runs: texts, whole numbers, and words that mean a known name."""

from __future__ import annotations

from collections.abc import Mapping

from roofcast.hwdb.errors import BadInput

Row = dict[str, str]  # one row of a CSV, by column


def text(row: Row, column: str) -> str:
    """The cell without surrounding spaces; "" where it is empty or the table has no such column."""
    return (row.get(column) or "").strip()


def number(row: Row, column: str) -> int | None:
    """The whole number in a cell, None where the cell is empty; raises BadInput for other text."""
    cell = text(row, column)
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        raise BadInput(f"{column} {cell!r}: a number is wanted") from None
    if value != int(value) or value < 0:
        raise BadInput(f"{column} {cell}: a whole number is wanted")
    return int(value)


def positive(cell: str) -> float | None:
    """The finite positive number in a cell; None where there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if 0.0 < value < float("inf") else None


def first_match(words: str, meanings: Mapping[str, str]) -> str | None:
    """The value of the first key that occurs in `words`, ignoring case; None where no key does.

    >>> first_match("NVIDIA H100-SXM5-80GB", {"a100": "a100-sxm4-80gb", "h100-sxm": "h100-sxm5"})
    'h100-sxm5'
    """
    words = words.lower()
    return next((meaning for key, meaning in meanings.items() if key in words), None)
