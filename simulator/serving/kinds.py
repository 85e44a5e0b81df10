"""What an engine of a server computes: kernels in groups, their sizes, its software."""

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


class Software(NamedTuple):
    """Kernels of an engine's software."""

    gemv: float = 0.0  # bytes a clock and core of those that multiply a matrix by vectors; 0: as
    # fast as memory
    stream: float = 1.0  # their rate where memory limits, as a multiple of the formula's
    grouped: float = 1.0  # rate of the products of experts, as a fraction of that of plain ones
    fp4: float = 1.0  # share of the bandwidth of other formats that plain ones in fp4 reach
    half: bool = False  # products by a library in fp16, whose operands are converted
    vector: str = ""  # what runs on vector units, in fp32: bf16 (products), all (attention, too)
    dots: float = 0.0  # of a CPU's int8 dot products that those of quantized weights reach; 0: a
    # library multiplies
    start: float = 0.0  # seconds to start a kernel on a CPU; 0: those of a fork and join
    converts: float = 0.0  # instructions to widen an element of a weight; 0: as a library does it
    gathers: bool = False  # ranks that share experts have the tokens of all, and choose their own
    aligned: int = 0  # rows to which products of experts in 8 bits pad those of each; 0: to a tile


LIBRARY = Software()  # kernels of a library, as they are
