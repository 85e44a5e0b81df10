"""Engines that layouts of one device share: what one layout has computed, the next takes.

Layouts that differ in pipeline stages, replicas or the format of the cache run the same kernels on
a rank, and most of the same sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.records import Device
from roofcast.simulator.serving.engine import Engine
from roofcast.simulator.serving.kinds import Point, Spent
from roofcast.simulator.serving.programs import Software
from roofcast.simulator.work.generation import Forward


class Remembering(Engine):
    """An engine that computes the same sizes once. What it returns is not to be changed."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._linear: dict[tuple[bytes, ...], Spent] = {}
        self._attention: dict[tuple[Any, ...], Spent] = {}

    def linear(self, at: Point) -> Spent:
        """All but attention."""
        key = tuple(np.asarray(size).tobytes() for size in at)
        if key not in self._linear:
            self._linear[key] = super().linear(at)
        return self._linear[key]

    def attention(
        self, sequences: ArrayLike, new: ArrayLike, cached: ArrayLike, width: ArrayLike
    ) -> Spent:
        """Attention, as `Engine` has it."""
        sizes = (np.asarray(size, dtype=float) for size in (sequences, new, cached, width))
        key = tuple((size.shape, size.tobytes()) for size in sizes)
        if key not in self._attention:
            self._attention[key] = super().attention(sequences, new, cached, width)
        return self._attention[key]


class Shared:
    """The engines of one device."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], tuple[Forward, Remembering]] = {}

    def engine(
        self, made: Forward, device: Device, sixteen: str, how: Software, ranks: int
    ) -> Remembering:
        """The engine of a forward, which is kept, so that its identity is no other's; ranks: that
        hold different experts.
        """
        key = (id(made), sixteen, how, ranks)
        if key not in self._made:
            engine = Remembering(made, device, sixteen, how=how, ranks=ranks)
            self._made[key] = (made, engine)
        return self._made[key][1]
