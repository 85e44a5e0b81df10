"""A tensor without numbers: shape, number format and the storage that holds it."""

from __future__ import annotations

from math import prod

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.precision import WIDTH

LARGEST = 2**59
"""Elements of one tensor; no memory holds as many, and their bytes still count in 64 bits."""


class Value:
    """A tensor without numbers. Views share the storage of their base.

    shape, dtype   dimensions and number format
    storage        identity of the memory behind the tensor
    size, bytes    elements, and the bytes they occupy
    held           bytes of the whole storage: more than `bytes` if the tensor is a slice
    grad           whether a gradient flows to it
    kind           activation | parameter | buffer | input | weight_copy
    repeats        repetitions of the block in which it was created
    split          share held by one tensor-parallel rank: None (whole), "features" or "tokens"
    pieces         parts in which its gradient is computed and used up, one after the other
    """

    __slots__ = (
        "shape", "dtype", "storage", "size", "bytes", "held", "grad", "kind", "repeats", "split",
        "pieces",
    )  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        storage: int,
        grad: bool = False,
        kind: str = "activation",
        repeats: int = 1,
        held: float | None = None,
        split: str | None = None,
    ):
        self.shape = shape
        self.dtype = dtype
        self.storage = storage
        self.size = prod(shape)
        if not 0 <= self.size <= LARGEST:
            raise BadInput(
                f"a tensor of {' x '.join(f'{n:.6g}' for n in shape)} elements is larger than any"
                " memory; use smaller sizes"
            )
        self.bytes = self.size * WIDTH[dtype]
        self.held = self.bytes if held is None else held
        self.grad = grad
        self.kind = kind
        self.repeats = repeats
        self.split = split
        self.pieces = 1

    @property
    def in_flight(self) -> float:
        """Bytes of its gradient that exist at once."""
        return self.bytes / self.pieces

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"
