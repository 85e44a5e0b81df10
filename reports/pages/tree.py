"""The named ops of a model as a tree: names split at dots, repetitions factored out, sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import NamedTuple

from roofcast.simulator.forecast.counts import SUMMED, Counts, LayerCount

ROWS = 50  # most rows shown by default


class Branch(NamedTuple):
    """A part of the model, with sums over its layers and all repetitions."""

    name: str  # relative to the parent; a branch with a single part has the names of both
    op: str  # kind of op of a layer; empty for a branch with parts
    times: int  # repetitions within the parent
    sums: dict[str, int]
    parts: tuple[Branch, ...]


def tree(counts: Counts) -> Branch:
    """The whole model as one branch."""
    rows = [(tuple(layer.name.split(".")), layer) for layer in counts.layers]
    return Branch(counts.model, "", 1, _sums(counts.layers), _parts(rows, 1))


def _parts(rows: Sequence[tuple[tuple[str, ...], LayerCount]], above: int) -> tuple[Branch, ...]:
    """Branches of rows grouped by the first component of their paths, in forward order.

    above: repetitions of the parent in the model.
    """
    below: dict[str, list] = {}
    for path, layer in rows:
        below.setdefault(path[0], []).append((path[1:], layer))
    return tuple(_branch(step, under, above) for step, under in below.items())


def _branch(step: str, under: list[tuple[tuple[str, ...], LayerCount]], above: int) -> Branch:
    layers = [layer for _, layer in under]
    count = _blocks([layer.count for layer in layers], above)
    if len(under) == 1:
        name = ".".join((step, *under[0][0]))
        return Branch(name, layers[0].op, _times(count, above), _sums(layers), ())
    parts = _parts([(path or (layer.op,), layer) for path, layer in under], count)
    if len(parts) == 1:
        return parts[0]._replace(
            name=f"{step}.{parts[0].name}", times=_times(count, above) * parts[0].times
        )
    return Branch(step, "", _times(count, above), _sums(layers), parts)


def _blocks(counts: Sequence[int], above: int) -> int:
    """Identical blocks that layers stand in: their common divisor, where most of them occur just
    as often. Of a parent with layers of several kinds, only its own repetitions are common:

    >>> _blocks([32, 32, 256], 1), _blocks([78, 78, 78, 3, 75], 1)
    (32, 1)
    """
    divisor = gcd(*counts)
    return divisor if 2 * counts.count(divisor) > len(counts) else gcd(divisor, above)


def _times(count: int, above: int) -> int:
    """Repetitions within a parent that is itself repeated `above` times; 1 if not a multiple."""
    return count // above if count % above == 0 else 1


def _sums(layers: Sequence[LayerCount]) -> dict[str, int]:
    return {key: sum(getattr(layer, key) for layer in layers) for key in SUMMED}


def walk(branch: Branch, depth: int | None, level: int = 0) -> Iterator[tuple[int, Branch]]:
    """The branch and those below it, at most `depth` levels down (None: all), with their levels."""
    yield level, branch
    if depth is None or level < depth:
        for part in branch.parts:
            yield from walk(part, depth, level + 1)


def height(branch: Branch) -> int:
    """Number of levels below a branch."""
    return 1 + max(map(height, branch.parts)) if branch.parts else 0


def fitting_depth(branch: Branch, rows: int = ROWS) -> int:
    """The greatest depth, at least 1, at which the tree has at most `rows` rows."""
    deep = [
        depth
        for depth in range(1, height(branch) + 1)
        if sum(1 for _ in walk(branch, depth)) <= rows
    ]
    return max(deep, default=1)
