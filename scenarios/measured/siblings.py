"""Cells that a row of a table leaves empty and a sibling of it has: a run of the same model under
the same tensor and pipeline parallelism in the same table.
"""

from __future__ import annotations

from collections.abc import Iterable

from roofcast.scenarios.measured.cells import Row, text

ALIKE = ("source_name", "model_name", "tp", "pp")  # columns in which siblings are equal
SAID = "vpp_of"  # column that names the sibling


def filled(rows: Iterable[Row]) -> list[Row]:
    """The rows; where one with a pipeline has no vpp, that of its siblings, if they have one and
    the same.
    """
    table = list(rows)
    stated: dict[tuple[str, ...], dict[str, str]] = {}  # key -> vpp -> first row that has it
    for row in table:
        if text(row, "vpp"):
            stated.setdefault(_key(row), {}).setdefault(text(row, "vpp"), text(row, "id"))
    return [_with_sibling(row, stated.get(_key(row), {})) for row in table]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(text(row, column) for column in ALIKE)


def _with_sibling(row: Row, found: dict[str, str]) -> Row:
    if text(row, "vpp") or len(found) != 1 or text(row, "pp") in ("", "0", "1", "1.0"):
        return row
    if not text(row, "model_name"):
        return row
    ((vpp, sibling),) = found.items()
    return {**row, "vpp": vpp, SAID: sibling}
