"""Forwards that are traced once: they depend on the model, the formats and the cut, not on the
device, so that a search over devices and formats of the cache shares them.
"""

from __future__ import annotations

import functools

from roofcast.simulator.work.generation import Formats, Forward, forward
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.traced import Parallel

_once = functools.lru_cache(maxsize=256)(forward)


def traced(model: Model, phase: str, formats: Formats, parallel: Parallel) -> Forward:
    """The forward of a rank, as `forward` gives it; the same for the same Model."""
    try:
        return _once(model, phase, formats, parallel)
    except TypeError:  # a model that is not hashable
        return forward(model, phase, formats, parallel)
