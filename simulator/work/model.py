"""A model: a program that leaves on a tape what one step does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.storage import Storage
from roofcast.simulator.work.tape import Tape


class Model(NamedTuple):
    """A program for the tape, with its default sizes."""

    name: str
    family: str
    takes: str  # input: sequence | image | table
    size: int | None  # default sequence length, or image side in pixels
    program: Callable[[Tape, int, int | None], object]  # of tape, batch, size
    config: Any = None
    source: str = ""
    batch: int | None = None  # default samples per step: those of a traced module's inputs
    # where a run of the program is slow: one that computes most batches from a few others
    quick: Callable[[Tape, int, int | None], object] | None = None
    storage: Storage | None = None  # of a quantized checkpoint
    widened: bool = False  # a training step holds the checkpoint's weights as it holds all others
    # the same net with another configuration, as `config` is one; None of what is taken as it is
    again: Callable[[Any], Model] | None = None

    def for_many_batches(self) -> Model:
        """The same model, for one that asks for many batches in a row."""
        return self if self.quick is None else self._replace(program=self.quick)

    def run(self, tape: Tape, batch: int, size: int | None = None) -> Tape:
        """Record one step over `batch` samples on the tape, which is returned."""
        self.program(tape, batch, self.size if size is None else size)
        return tape
