"""Cells of a table of measured runs: texts, whole numbers, and words that mean a known name."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, quoted

Row = dict[str, str]  # one row of a CSV, by column
MOST = 1e15  # largest whole number of a cell
LEAST, LARGEST = 1e-30, 1e30  # of a measured quantity, whatever its unit
DIGITS = 40  # of a number within a cell


def rows(path: Path, what: str) -> csv.DictReader[str]:
    """The rows of a CSV or .csv.gz, by column; lines that start with # are comments.

    what: what the file should hold, for the message. Raises BadInput where it cannot be read; the
    reader raises csv.Error in a row that is no row.
    """
    body = contents.text(path, what, contents.LARGEST_TABLE)
    if endless := re.search(rf"\d{{{DIGITS + 1},}}", body):
        line = body.count("\n", 0, endless.start()) + 1
        raise BadInput(
            f"{path}: line {line}: {quoted(endless[0], 20)} has {len(endless[0]):,} digits;"
            f" at most {DIGITS} are read"
        )
    lines = io.StringIO(body, newline="")
    return csv.DictReader(line for line in lines if not line.startswith("#"))


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
        raise BadInput(f"{column} {quoted(cell)}: a number is wanted") from None
    if not 0 <= value <= MOST or value != int(value):
        raise BadInput(f"{column} {quoted(cell)}: a whole number is wanted, at most {MOST:g}")
    return int(value)


def positive(cell: str) -> float | None:
    """The positive number in a cell; None where there is none that can be measured."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if LEAST < value < LARGEST else None


def first_match(words: str, meanings: Mapping[str, str]) -> str | None:
    """The value of the first key that occurs in `words`, ignoring case; None where no key does.

    >>> first_match("NVIDIA H100-SXM5-80GB", {"a100": "a100-sxm4-80gb", "h100-sxm": "h100-sxm5"})
    'h100-sxm5'
    """
    words = words.lower()
    return next((meaning for key, meaning in meanings.items() if key in words), None)
