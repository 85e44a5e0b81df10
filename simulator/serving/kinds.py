"""What an engine of a server computes: kernels in groups, their sizes."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.times.grouped import STREAMS
from roofcast.simulator.work.generation import Launch


class Spent(NamedTuple):
    """Of each part of a forward, for every point: {part: array}."""

    seconds: dict[str, np.ndarray]
    joules: dict[str, np.ndarray]


class Point(NamedTuple):
    """Sizes of forwards, arrays of one shape [points]."""

    sequences: np.ndarray  # of this rank, whose last token has logits
    tokens: np.ndarray  # new ones of this rank
    everywhere: np.ndarray  # new tokens of all ranks that share the experts


class Kinds:
    """Kernels that are computed in one call, with their sizes in arrays [kernels, 1]."""

    def __init__(self, launches: list[Launch]) -> None:
        self.launches = launches
        self.count = np.array([k.count for k in launches], dtype=float)  # [kernels]
        self.weights = np.array([[float(k.weights)] for k in launches])
        self._entries: dict[int, np.ndarray] = {}
        self.classes = [STREAMS[k.kind][0] if k.kind in STREAMS else k.kind for k in launches]
        self._sizes = {
            field: np.array([getattr(k, field) for k in launches]).T[:, :, None]
            for field in ("rows", "matrix", "vector", "special", "moved")
        }

    def size(self, place: int) -> np.ndarray:
        """An entry of their shapes."""
        if place not in self._entries:
            self._entries[place] = np.array([[float(k.shape[place])] for k in self.launches])
        return self._entries[place]

    def at(self, field: str, point: Point) -> np.ndarray:
        """A size at points [kernels, points]."""
        a, b, c = self._sizes[field]
        return np.maximum(a + b * point.sequences + c * point.tokens, 0.0)
