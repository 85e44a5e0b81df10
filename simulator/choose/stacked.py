"""Ranks of one structure as one rank, whose numbers are columns: of the ranks, or of layouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel.dealing import counted, is_balanced, stages
from roofcast.simulator.parallel.holdings import Share, share
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.stages import TrafficKey, Unit
from roofcast.simulator.parallel.step import unlike
from roofcast.simulator.parallel.traffic import NOTHING, Cost
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Step

NUMBERS = (  # of a unit, in which ranks differ
    "dense", "expert", "trained", "trained_expert", "kept", "largest", "inside", "twice", "added",
    "products", "tensors", "buckets",
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
                *(u.layers, u.places, u.products if is_balanced(step) else 0.0),
                *(n > 0 for n in (u.dense, u.expert, u.trained, u.trained_expert)),
            )
            for u in units
        ),
    )


def stacked_units(ranks: Sequence[Sequence[Unit]], rows: Sequence[int]) -> list[Unit]:
    """The units of ranks with one structure. rows: entries that each rank has in the columns, which
    are the first of two axes.
    """
    if len(ranks) == 1:
        return list(ranks[0])
    found = []
    for same in zip(*ranks, strict=True):
        numbers: dict[str, Any] = {n: _column([getattr(u, n) for u in same], rows) for n in NUMBERS}
        for name in TUPLES:
            each = zip(*(getattr(u, name) for u in same), strict=True)
            numbers[name] = tuple(_column(values, rows) for values in each)
        traffic = {}
        for key in in_one_order([u.traffic for u in same]):
            costs = zip(*(u.traffic.get(key, NOTHING) for u in same), strict=True)
            traffic[key] = Cost(*(_column(values, rows) for values in costs))
        found.append(same[0]._replace(traffic=traffic, **numbers))
    return found


def in_one_order(several: Sequence[Iterable[TrafficKey]]) -> list[TrafficKey]:
    """The traffic that any of several units has, in the order of each within a pass, on which it
    depends how much of it hides. Raises CycleError where the orders of two contradict each other.
    """
    found: list[TrafficKey] = []
    for forward in (True, False):
        sorter: TopologicalSorter = TopologicalSorter()
        for each in dict.fromkeys(map(tuple, several)):
            keys = [key for key in each if (key[0] == "forward") == forward]
            for i, key in enumerate(keys):
                sorter.add(key, *keys[max(i - 1, 0) : i])
        found += sorter.static_order()
    return found


def by_order(ranks: Sequence[Sequence[Unit]]) -> list[int]:
    """Of each rank a number, equal where their traffic has one order, as it has as a rule."""
    try:
        for same in zip(*ranks, strict=True):
            in_one_order([u.traffic for u in same])
    except CycleError:
        index: dict[tuple, int] = {}
        orders = (tuple(tuple(u.traffic) for u in units) for units in ranks)
        return [index.setdefault(each, len(index)) for each in orders]
    return [0] * len(ranks)


def stacked_step(steps: Sequence[Step], rows: Sequence[int]) -> Step:
    """The steps of such ranks, as far as formulas over layouts read them; as `stacked_units`."""
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
    if any(isinstance(v, np.ndarray) and v.ndim for v in values):
        each = zip(values, rows, strict=True)
        return np.concatenate([np.broadcast_to(v, (n, 1)) for v, n in each])
    numbers = list(map(float, values))
    return numbers[0] if len(set(numbers)) == 1 else np.repeat(numbers, rows)[:, None]


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

    def shares(
        self, deals: Sequence[Dealt], steps: Sequence[Step], units: Sequence[list[Unit]]
    ) -> Share:
        """The share of each rank of what stages hold; numbers, or arrays (rank, what).

        deals: those in use; steps, units: of each rank.
        """
        used = sorted({what for each in deals for _, what in each.held})
        columns, how = stacked_units(units, [1] * len(units)), steps[0].recipe.recompute
        mine, width = list(self.held), steps[0].weight_width
        found = [share(list(mine[what]), columns, how, width) for what in used]
        arrays: list[Any] = []
        for each in zip(*found, strict=True):
            of_used = np.concatenate([np.broadcast_to(n, (len(units), 1)) for n in each], axis=1)
            if np.all(of_used == of_used[0, 0]):
                arrays.append(float(of_used[0, 0]))
                continue
            arrays.append(np.zeros((len(units), len(mine))))
            arrays[-1][:, used] = of_used
        return Share(*arrays)


def often_of(deals: Sequence[Dealt], deal: np.ndarray) -> np.ndarray:
    """How often each kind of stage has each unit: (stages, units, *shape of deal). deal: of each
    layout, which of `deals` it has.
    """
    most = max(len(each.often) for each in deals)
    padded = []
    for often in (each.often for each in deals):
        last = max(len(often) - 2, 0)  # of the stages between the ends, which is repeated
        padded.append([*often[:last], *[often[last]] * (most - len(often) + 1), *often[last + 1 :]])
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
        stage, what = (padded[deal, kind, i] for i in range(2))
        mine = (n if np.ndim(n) == 0 else np.asarray(n)[rank, what] for n in shares)
        found.append((stage, Share(*mine)))
    return found
