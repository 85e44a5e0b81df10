"""A step that was traced once, and steps of other batches computed from two to four of them.

Every number of a step (FLOPs, bytes, sizes) is a polynomial of the batch, as long as the module
launches the same kernels. It is of degree one where no tensor has two axes that grow with it: two
traces tell.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np

from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Block, Kernel, Node, Saved, Weight
from roofcast.simulator.work.value import Value

DEGREES = (1, 2)  # tried in this order; two samples compared with each other cost the second
NEAR = 1e-12  # relative: numbers that differ less are equal


class Recorded(NamedTuple):
    """What a traced step leaves on a tape."""

    nodes: tuple[Node, ...]
    blocks: tuple[Block, ...]
    kernels: tuple[Kernel, ...]
    weights: tuple[Weight, ...]
    saved: tuple[tuple[int, Saved], ...]
    inputs: tuple[Value, ...]
    assumptions: tuple[str, ...]

    @staticmethod
    def of(tape: Tape) -> Recorded:
        """What is on this tape."""
        return Recorded(
            tuple(tape.nodes), tuple(tape.blocks), tuple(tape.kernels), tuple(tape.weights),
            tuple(tape.saved.items()), tuple(tape.inputs), tuple(tape.assumptions),
        )  # fmt: skip

    def onto(self, tape: Tape) -> None:
        """Leave it on an empty tape."""
        tape.nodes.extend(self.nodes)
        tape.blocks[:] = self.blocks
        tape.kernels.extend(self.kernels)
        tape.weights.extend(self.weights)
        tape.saved.update(self.saved)
        tape.inputs.extend(self.inputs)
        tape.assumptions.extend(self.assumptions)


class _Taken(NamedTuple):
    """A step without its numbers, and these in order."""

    form: tuple
    numbers: list[float]
    ends: list[list[int]]  # of every item of every part: how many numbers there are up to it

    @staticmethod
    def of(step: Recorded) -> _Taken:
        """A step taken apart; what is assumed of it may state figures of its batch."""
        numbers: list[float] = []
        storages: dict[int, int] = {}  # their numbers, which tell nothing, in the order of use
        forms, ends = [], []
        for part in _parts(step):
            form, stops = [], []
            for item in part:
                form.append(_form(item, numbers, storages))
                stops.append(len(numbers))
            forms.append(tuple(form))
            ends.append(stops)
        kept = tuple(storages.setdefault(storage, len(storages)) for storage, _ in step.saved)
        return _Taken((*forms, kept), numbers, ends)


def _parts(step: Recorded) -> list[tuple]:
    """The parts of a step that have numbers; of what is kept, all but the number of its storage."""
    return [*step[:4], tuple(s for _, s in step.saved), step.inputs]


class Curve:
    """The steps of all batches from those of a few: every number is a polynomial through theirs."""

    def __init__(self, form: Recorded, taken: Mapping[int, _Taken]):
        self.form, self.through = form, list(taken)
        first = taken[self.through[0]]  # that of the form
        self.own, self.ends = first.numbers, first.ends
        table = np.array([t.numbers for t in taken.values()])
        varied = np.flatnonzero(np.any(table != table[0], axis=0))
        self.table, self.varied = table[:, varied], varied.tolist()

    def at(self, batch: int) -> Recorded:
        """The step of a batch."""
        numbers, some = self.own.copy(), _weights(batch, self.through) @ self.table
        for place, n in zip(self.varied, some.tolist(), strict=True):
            numbers[place] = round(n) if isinstance(numbers[place], int) else n
        begin, parts = 0, []
        for part, ends in zip(_parts(self.form), self.ends, strict=True):
            parts.append(tuple(self._items(part, begin, ends, numbers)))
            begin = ends[-1] if ends else begin
        *others, kept, inputs = parts
        saved = zip((storage for storage, _ in self.form.saved), kept, strict=True)
        return Recorded._make((*others, tuple(saved), inputs, self.form.assumptions))

    def _items(
        self, part: tuple, begin: int, ends: list[int], numbers: list[float]
    ) -> Iterator[Any]:
        """The items of a part with other numbers; those of which none varies as they are."""
        varied = bisect_left(self.varied, begin)
        for item, end in zip(part, ends, strict=True):
            until = bisect_left(self.varied, end, varied)
            yield item if until == varied else _rebuilt(item, iter(numbers[begin:end]))
            varied, begin = until, end


def curve(known: Mapping[int, Recorded]) -> Curve | None:
    """The steps of all batches, from the known ones by batch.

    For each degree, the polynomial through as many known steps as it needs must give one more of
    them exactly; None where none does.
    """
    batches = sorted(known, reverse=True)
    taken = {batch: _Taken.of(known[batch]) for batch in batches}
    if len(batches) == 2 and taken[batches[0]].form == taken[batches[1]].form:
        if _linear(known, *batches):
            return Curve(known[batches[0]], taken)
    for degree in DEGREES:
        if len(batches) < degree + 2:
            return None
        check, *through = some = batches[: degree + 2]
        if any(taken[batch].form != taken[check].form for batch in through):
            return None
        numbers = taken[check].numbers
        expected = _weights(check, through) @ np.array([taken[b].numbers for b in through])
        if np.all(np.abs(expected - numbers) <= NEAR * np.maximum(abs(expected), numbers)):
            return Curve(known[check], {batch: taken[batch] for batch in some})
    return None


def extrapolated(known: Mapping[int, Recorded], batch: int) -> Recorded | None:
    """The step of another batch, from the known ones by batch; None where they do not tell."""
    found = curve(known)
    return None if found is None else found.at(batch)


def _linear(known: Mapping[int, Recorded], larger: int, smaller: int) -> bool:
    """Whether every number must be of degree one: two steps of the same form, in whose tensors and
    products at most one axis differs, in proportion to the batch.
    """
    more, less = known[larger], known[smaller]

    def grows(a: tuple, b: tuple) -> bool:
        pairs = [(x, y) for x, y in zip(a, b, strict=True) if x != y and not isinstance(x, str)]
        return len(pairs) < 2 and all(x * smaller == y * larger for x, y in pairs)

    for k, same in zip(more.kernels, less.kernels, strict=True):
        values = zip((*k.inputs, *k.outputs), (*same.inputs, *same.outputs), strict=True)
        if not grows(k.shape, same.shape) or not all(grows(v.shape, w.shape) for v, w in values):
            return False
    return True


def _form(x: Any, numbers: list[float], storages: dict[int, int]) -> Any:
    """x with its numbers, which are added to `numbers`, replaced by their types."""
    kind = type(x)
    if kind is int or kind is float or _is_number(x):
        numbers.append(x)
        return kind
    if kind is Value:
        numbers += (*x.shape, x.repeats, x.held, x.bytes)
        storage = storages.setdefault(x.storage, len(storages))
        return len(x.shape), x.dtype, storage, x.grad, x.kind, x.split
    if isinstance(x, tuple):
        return (kind, *[_form(part, numbers, storages) for part in x])
    return x


def _rebuilt(x: Any, numbers: Iterator[Any]) -> Any:
    """x with other numbers, of the types of its own."""
    kind = type(x)
    if kind is int or kind is float:
        return next(numbers)
    if kind is Value:
        shape = tuple([next(numbers) for _ in x.shape])
        repeats, held = next(numbers), next(numbers)
        out = Value(shape, x.dtype, x.storage, x.grad, x.kind, repeats, held, x.split)
        out.bytes = next(numbers)
        return out
    if isinstance(x, tuple):
        parts = [_rebuilt(part, numbers) for part in x]
        return tuple(parts) if kind is tuple else kind._make(parts)
    return next(numbers) if _is_number(x) else x


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _weights(batch: int, through: list[int]) -> np.ndarray:
    """Weights of Lagrange's polynomial at `batch`, through its values at other batches."""
    parts = (
        prod((Fraction(batch - c, b - c) for c in through if c != b), start=Fraction(1))
        for b in through
    )
    return np.array([float(part) for part in parts])
