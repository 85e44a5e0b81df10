"""Forwards that are traced once: they depend on the model, the formats and the cut, not on the
device, so that a search over devices and formats of the cache shares them.
"""

from __future__ import annotations

import functools

from roofcast.simulator.work.generation import Formats, Forward, forward
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.traced import Parallel


class _Same:
    """A model that is equal to itself alone: some cannot be hashed, and others take long."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __hash__(self) -> int:
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.model is other.model


_equal = functools.lru_cache(maxsize=256)(forward)


@functools.lru_cache(maxsize=512)
def _same(same: _Same, phase: str, formats: Formats, parallel: Parallel) -> Forward:
    try:
        return _equal(same.model, phase, formats, parallel)
    except TypeError:  # a model that is not hashable
        return forward(same.model, phase, formats, parallel)


def traced(model: Model, phase: str, formats: Formats, parallel: Parallel) -> Forward:
    """The forward of a rank, as `forward` gives it; the same for the same Model."""
    return _same(_Same(model), phase, formats, parallel)
