"""Bytes of the cache of a sequence: keys and values, latents, windows and states."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.generation import Forward


class Part(NamedTuple):
    """Layers that keep alike."""

    token: float  # bytes per token, of all of them
    reach: float  # tokens at most


class Cached(NamedTuple):
    """What one rank holds of a sequence."""

    parts: tuple[Part, ...]
    fixed: float  # bytes whatever the length: states, and keys of an encoder's output

    def bytes(self, context: ArrayLike) -> np.ndarray:
        """Bytes of a sequence with so many tokens."""
        tokens = np.asarray(context, dtype=float)
        return self.fixed + sum(
            (p.token * np.minimum(tokens, p.reach) for p in self.parts), np.zeros_like(tokens)
        )

    @property
    def per_token(self) -> float:
        """Bytes that the first tokens of a sequence take each."""
        return sum(p.token for p in self.parts)

    @property
    def per_token_past_windows(self) -> float:
        """Bytes per token where all windows are full."""
        return sum(p.token for p in self.parts if not np.isfinite(p.reach))


def cached(made: Forward, width: float) -> Cached:
    """The cache of a rank's forward; width: bytes of an element, where the tape's has 16 bits."""
    share = width / WIDTH["bf16"]
    reach: dict[float, float] = {}
    fixed = sum(s.bytes * s.count for s in made.states)
    for c in made.caches:
        if c.tokens is not None:
            fixed += share * c.bytes * c.count * c.tokens
        else:
            tokens = np.inf if c.window is None else float(c.window)
            reach[tokens] = reach.get(tokens, 0.0) + share * c.bytes * c.count
    parts = tuple(Part(token, tokens) for tokens, token in sorted(reach.items()))
    return Cached(parts, fixed)
