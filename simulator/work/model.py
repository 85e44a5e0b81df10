"""What every door for models ends in: a program that leaves on a tape what one step does."""

from __future__ import annotations

from typing import Any, NamedTuple

from roofcast.simulator.work.tape import Tape


class Model(NamedTuple):
    """A program for the tape. `takes` says what a step is fed: 'sequence' or 'image'; `size` is how
    long or wide by default.
    """

    name: str
    family: str
    takes: str
    size: int | None
    program: Any  # called with (tape, batch, size)
    config: Any = None
    source: str = ""
    batch: int | None = None  # samples a step where nothing is said: what a traced module was given

    def run(self, tape: Tape, batch: int, size: int | None = None) -> Tape:
        """Leave on the tape what one step over `batch` samples does."""
        self.program(tape, batch, self.size if size is None else size)
        return tape
