"""Cells that a row of a table leaves empty and a sibling of it has: a run of the same model under
the same tensor and pipeline parallelism in the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from roofcast.scenarios.measured.architectures import names
from roofcast.scenarios.measured.cells import Row, first_match, text

ALIKE = ("source_name", "model_name", "tp", "pp")  # columns in which siblings are equal
SAID = "vpp_of"  # column that names the sibling
GRAPHS = "cuda_graphs_of_siblings"  # column: what siblings on the same device say
# cuda_graph of Megatron-Bridge's configurations -> the column cuda_graphs
IMPLEMENTED = {"none": "none", "transformer_engine": "partial", "full_iteration": "full",
               "local": "full"}  # fmt: skip


def filled(rows: Iterable[Row]) -> list[Row]:
    """The rows; where one with a pipeline has no vpp, that of its siblings, if they have one and
    the same.
    """
    table = list(rows)
    stated: dict[tuple[str, ...], dict[str, str]] = {}  # key -> vpp -> first row that has it
    for row in table:
        if text(row, "vpp"):
            stated.setdefault(_key(row), {}).setdefault(text(row, "vpp"), text(row, "id"))
    graphs: dict[tuple[str, ...], set[str]] = {}  # model on a device -> what rows say
    for row in table:
        if graphs_of(row):
            graphs.setdefault(_model(row), set()).add(graphs_of(row))
    found = []
    for row in table:
        whole, said = _with_sibling(row, stated.get(_key(row), {})), graphs.get(_model(row), set())
        found.append({**whole, GRAPHS: next(iter(said))} if len(said) == 1 else whole)
    return found


def graphs_of(row: Row) -> str:
    """What a row says of CUDA graphs: none, partial, full; "" for nothing.

    The column, or the notes.

    >>> graphs_of({"notes": "cuda_graph=transformer_engine/['attn'], moe_a2a_overlap=False"})
    'partial'
    """
    if text(row, "cuda_graphs"):
        return text(row, "cuda_graphs").lower()
    found = re.search(r"cuda_graph(?:_impl)?\s*[=:]\s*(\w+)", text(row, "notes").lower())
    if found and found[1] in IMPLEMENTED:
        return IMPLEMENTED[found[1]]
    return ""


def _model(row: Row) -> tuple[str, ...]:
    """A model on a device, under the versions of a framework that are one stack."""
    stack = first_match(text(row, "framework"), names().stacks) or ""
    return (stack, text(row, "model_name"), text(row, "device"))


def _key(row: Row) -> tuple[str, ...]:
    return tuple(text(row, column) for column in ALIKE)


def _with_sibling(row: Row, found: dict[str, str]) -> Row:
    if text(row, "vpp") or len(found) != 1 or text(row, "pp") in ("", "0", "1", "1.0"):
        return row
    if not text(row, "model_name"):
        return row
    ((vpp, sibling),) = found.items()
    return {**row, "vpp": vpp, SAID: sibling}
