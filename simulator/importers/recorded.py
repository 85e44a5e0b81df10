"""A step that was traced once, and steps of other batches computed from two to four of them.

Every number of a step (FLOPs, bytes, sizes) is a polynomial of the batch, as long as the module
launches the same kernels. It is of degree one where no tensor has two axes that grow with it: two
traces tell.
"""

from __future__ import annotations

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


class Curve:
    """The steps of all batches from those of a few: every number is a polynomial through theirs."""

    def __init__(self, known: Mapping[int, Recorded], through: list[int]):
        self.form = known[through[0]]
        self.through = through
        self.numbers = np.array([_taken(known[b])[1] for b in through])

    def at(self, batch: int) -> Recorded:
        """The step of a batch."""
        weights = _weights(batch, self.through)
        varied = np.any(self.numbers != self.numbers[0], axis=0)
        values = np.where(varied, weights @ self.numbers, self.numbers[0])
        at_batch = iter(values.tolist())
        parts = (_rebuilt(part, at_batch) for part in self.form[:-1])
        return Recorded._make((*parts, self.form.assumptions))


def curve(known: Mapping[int, Recorded]) -> Curve | None:
    """The steps of all batches, from the known ones by batch.

    For each degree, the polynomial through as many known steps as it needs must give one more of
    them exactly; None where none does.
    """
    batches = sorted(known, reverse=True)
    if len(batches) == 2 and _linear(known, *batches):
        return Curve(known, batches)
    for degree in DEGREES:
        if len(batches) < degree + 2:
            return None
        check, *through = batches[: degree + 2]
        forms, numbers = zip(*(_taken(known[b]) for b in (check, *through)), strict=True)
        if any(form != forms[0] for form in forms):
            return None
        expected = _weights(check, through) @ np.array(numbers[1:])
        if np.all(np.abs(expected - numbers[0]) <= NEAR * np.maximum(abs(expected), numbers[0])):
            return Curve(known, [check, *through])
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
    if _taken(more)[0] != _taken(less)[0]:
        return False

    def grows(a: tuple, b: tuple) -> bool:
        pairs = [(x, y) for x, y in zip(a, b, strict=True) if x != y and not isinstance(x, str)]
        return len(pairs) < 2 and all(x * smaller == y * larger for x, y in pairs)

    for k, same in zip(more.kernels, less.kernels, strict=True):
        values = zip((*k.inputs, *k.outputs), (*same.inputs, *same.outputs), strict=True)
        if not grows(k.shape, same.shape) or not all(grows(v.shape, w.shape) for v, w in values):
            return False
    return True


def _taken(step: Recorded) -> tuple[tuple, list[float]]:
    """A step without its numbers, and the numbers in order."""
    numbers: list[float] = []
    # what is assumed of a step may state figures of its batch
    return tuple(_form(part, numbers) for part in step[:-1]), numbers


def _form(x: Any, numbers: list[float]) -> Any:
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        numbers.append(x)
        return type(x)
    if isinstance(x, tuple):
        return (type(x), *(_form(part, numbers) for part in x))
    if isinstance(x, Value):
        return tuple(_form(part, numbers) for part in _parts(x))
    return x


def _parts(v: Value) -> tuple:
    return v.shape, v.dtype, v.storage, v.grad, v.kind, v.repeats, v.held, v.split, v.bytes


def _rebuilt(x: Any, numbers: Iterator[float]) -> Any:
    """x with other numbers, which are whole where its own are."""
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        n = next(numbers)
        return round(n) if isinstance(x, int) else float(n)
    if isinstance(x, tuple):
        parts = (_rebuilt(part, numbers) for part in x)
        return tuple(parts) if type(x) is tuple else type(x)(*parts)
    if isinstance(x, Value):
        *fields, bytes_ = (_rebuilt(part, numbers) for part in _parts(x))
        out = Value(*fields)
        out.bytes = bytes_
        return out
    return x


def _weights(batch: int, through: list[int]) -> np.ndarray:
    """Weights of Lagrange's polynomial at `batch`, through its values at other batches."""
    parts = (
        prod((Fraction(batch - c, b - c) for c in through if c != b), start=Fraction(1))
        for b in through
    )
    return np.array([float(part) for part in parts])
