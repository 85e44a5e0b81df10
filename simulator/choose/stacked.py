"""Ranks of one structure as one rank, whose numbers are columns: of the ranks, or of layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from roofcast.simulator.parallel.dealing import counted, is_balanced, stages
from roofcast.simulator.parallel.holdings import Share, share
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.stages import Unit
from roofcast.simulator.parallel.step import unlike
from roofcast.simulator.parallel.traffic import Cost
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Step

NUMBERS = (  # of a unit, in which ranks differ
    "dense", "expert", "trained", "trained_expert", "kept", "largest", "inside", "twice", "added",
    "products", "tensors",
)  # fmt: skip
TUPLES = ("compute", "host", "called")  # of numbers


def structure_of(step: Step, units: Sequence[Unit]) -> tuple:
    """What ranks share that the formulas take as one: all that is no number, and those numbers that
    choose between formulas.
    """
    again = policy(step.recipe.recompute)
    return (
        *(again.by_layer, again.n if again.kind == "uniform" else 1),
        *(step.weight_width, step.trained_width, step.trainable_parameters < step.parameters),
        *(
            (
                *(u.layers, u.places, tuple(u.traffic), u.products if is_balanced(step) else 0.0),
                *(n > 0 for n in (u.dense, u.expert, u.trained, u.trained_expert)),
            )
            for u in units
        ),
    )


def stacked_units(ranks: Sequence[Sequence[Unit]], rows: Sequence[int]) -> list[Unit]:
    """The units of ranks with one structure. rows: entries that each rank has in the columns."""
    found = []
    for same in zip(*ranks, strict=True):
        numbers: dict[str, Any] = {n: _column([getattr(u, n) for u in same], rows) for n in NUMBERS}
        for name in TUPLES:
            each = zip(*(getattr(u, name) for u in same), strict=True)
            numbers[name] = tuple(_column(values, rows) for values in each)
        traffic = {}
        for key in same[0].traffic:
            costs = zip(*(u.traffic[key] for u in same), strict=True)
            traffic[key] = Cost(*(_column(values, rows) for values in costs))
        found.append(same[0]._replace(traffic=traffic, **numbers))
    return found


def stacked_step(steps: Sequence[Step], rows: Sequence[int]) -> Step:
    """The steps of such ranks, as far as the formulas over layouts read them."""
    if len(steps) == 1:
        return steps[0]
    carried: Any = [max((block.carried for block in step.blocks), default=0.0) for step in steps]
    block = steps[0].blocks[0]._replace(carried=_column(carried, rows))
    inputs: Any = _column([step.input_bytes for step in steps], rows)
    return steps[0]._replace(blocks=(block,), input_bytes=inputs)


def _column(values: Sequence[Any], rows: Sequence[int]) -> Any:
    """One number where all are equal, else a column. values: of each rank, numbers, or columns of
    its rows.
    """
    if any(np.ndim(v) for v in values):
        return np.concatenate([np.broadcast_to(v, n) for v, n in zip(values, rows, strict=True)])
    first = values[0]
    return first if all(v == first for v in values) else np.repeat(values, rows)


class Dealt(NamedTuple):
    """How layers are dealt to the stages of a layout, one for all stages that are alike."""

    often: list[np.ndarray]  # each unit on the first stage, on those between, and on the last
    held: list[tuple[int, int]]  # a stage, and what it holds: index into Structure.held


class Structure:
    """The structure of some ranks: what their stages may consist of."""

    def __init__(self, step: Step, units: list[Unit]) -> None:
        self.units, self.balanced = units, is_balanced(step)  # of one of the ranks
        self.held: dict[tuple[int, ...], int] = {}  # units of a stage -> index
        self.known: dict[tuple, Dealt] = {}

    def dealt(self, x: Layout) -> Dealt:
        """How layers are dealt to the stages of a layout. Raises BadInput where they cannot be."""
        key = x.pp, x.vpp, x.schedule, x.stages
        if key not in self.known:
            members = stages(self.units, x, self.balanced)
            often = counted(members, len(self.units))
            ends = [often[0], often[-1]] if x.pp > 1 else [often[0]]
            inner = often[1:-1] if x.pp > 2 else often  # as the schedule takes them: step.ends
            between = map(np.array, dict.fromkeys(map(tuple, inner.tolist())))
            held = [
                (stage, self.held.setdefault(mine, len(self.held)))
                for mine, stage in unlike(x, members).items()
            ]
            self.known[key] = Dealt([*ends[:1], *between, *ends[1:]] if x.pp > 1 else ends, held)
        return self.known[key]

    def shares(self, steps: Sequence[Step], units: Sequence[list[Unit]]) -> Share:
        """The share of each rank of all that a stage may hold; numbers, or arrays (what, rank)."""
        columns, how = stacked_units(units, [1] * len(units)), steps[0].recipe.recompute
        width, shape = steps[0].weight_width, (len(self.held), len(units))
        found = [share(list(mine), columns, how, width) for mine in self.held]
        arrays = []
        for each in zip(*found, strict=True):
            array = np.empty(shape)
            for i, value in enumerate(each):
                array[i] = value
            arrays.append(array if np.any(array != array[0, 0]) else float(array[0, 0]))
        return Share(*arrays)


def often_of(deals: Sequence[Dealt], deal: np.ndarray) -> np.ndarray:
    """How often each kind of stage has each unit: (stages, units, layouts). deal: of each layout,
    which of `deals` it has.
    """
    most = max(len(each.often) for each in deals)
    padded = []
    for often in (each.often for each in deals):
        between = max(len(often) - 2, 0)  # index of the last stage between the ends
        padded.append(
            [*often[: between + 1], *[often[between]] * (most - len(often)), *often[between + 1 :]]
        )
    return np.array(padded).transpose(1, 2, 0)[:, :, deal]


def held_of(
    deals: Sequence[Dealt], deal: np.ndarray, shares: Share, rank: np.ndarray
) -> list[tuple[np.ndarray, Share]]:
    """What each kind of stage holds, with its first stage, of each layout.

    deal, rank: of each layout, which of `deals` it has, and which rank of `shares`.
    """
    most = max(len(each.held) for each in deals)
    padded = np.array([[*d.held, *d.held[-1:] * (most - len(d.held))] for d in deals])
    found = []
    for kind in range(most):
        stage, what = padded[deal, kind].T
        mine = (n if np.ndim(n) == 0 else np.asarray(n)[what, rank] for n in shares)
        found.append((stage, Share(*mine)))
    return found
