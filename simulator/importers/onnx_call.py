"""One node of an ONNX graph about to run: its inputs as values, initializers or numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_extra import numpy_helper, onnx
from roofcast.simulator.work.tape import Tape, Value

# Names of constants that exporters create: masks, positions. As an operand of an elementwise op,
# such a constant is not a parameter.
EXPORTED = re.compile(
    r"(.*running_(mean|var)$|_?val_\d+|lifted_tensor|_tensor_constant"
    r"|onnx::(Add|Sub|Mul|Div|Where|Pow)_\d+|arange|zeros|ones|full|tmp|scalar)"
)
POINTWISE = frozenset(
    "Add Sub Mul Div Where Max Min Pow Mod Sum Concat ScatterND ScatterElements Equal Less Greater"
    " Expand Tile Cast".split()
)
WEIGHTED = frozenset(
    "MatMul Gemm Conv ConvTranspose FusedMatMul FusedGemm FusedConv Gather BatchNormalization"
    " LayerNormalization".split()
)
FLOATING = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
# formats of quantized weights in ours; a sum of products of 8 bits has 32
HELD = {
    "INT8": "int8", "UINT8": "int8", "INT4": "int4", "UINT4": "int4", "INT32": "int32",
    "INT16": "bf16", "UINT16": "bf16", "FLOAT8E4M3FN": "fp8", "FLOAT8E4M3FNUZ": "fp8",
    "FLOAT8E5M2": "fp8", "FLOAT8E5M2FNUZ": "fp8", "FLOAT4E2M1": "fp4", "INT2": "int4",
    "UINT2": "int4",
}  # fmt: skip
LARGEST = 1 << 40  # elements of a tensor, from where on no device holds it


def quoted(text: str) -> str:
    """A name of a file in quotes for a message: at most 80 characters, control ones escaped.

    >>> quoted("x" * 100) == repr("x" * 75 + "...")
    True
    """
    shown = repr(text if len(text) <= 78 else f"{text[:75]}...")
    return shown if len(shown) <= 80 else f"{shown[:76]}...'"


def sizes_of(shape: Sequence[Any], what: str = "a tensor") -> tuple[int, ...]:
    """Dimensions as whole numbers. Raises BadInput if one is negative or the product too large."""
    sizes = tuple(int(n) for n in shape)
    if min(sizes, default=0) < 0:
        raise BadInput(f"{what} has a negative dimension: {_listed(sizes)}")
    if prod(sizes) >= LARGEST:
        raise BadInput(f"{what} of {_listed(sizes)} has 2^40 elements or more; no device holds it")
    return sizes


def _listed(sizes: Sequence[int]) -> str:
    shown = ", ".join(f"{n:.3g}" if abs(n) > 1e15 else str(n) for n in sizes[:8])
    return f"[{shown}{', ...' if len(sizes) > 8 else ''}]"


class NotKnown(ValueError):
    """A shape depends on the values of the graph's inputs, of which only shapes are known."""


class Stored(NamedTuple):
    """An initializer."""

    name: str
    shape: tuple[int, ...]
    format: str
    proto: onnx.TensorProto
    role: str = "weight"  # "constant": the result of a Constant node; "scale": of a quantization

    def numbers(self) -> np.ndarray:
        """Its numbers. Raises ValueError if they lie in another file and are many."""
        if self.proto.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"the numbers of {quoted(self.name)} lie in another file")
        return numpy_helper.to_array(self.proto)

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.format in FLOATING

    @property
    def learned(self) -> bool:
        """Whether it can be a parameter: several numbers, or one with a parameter's name."""
        return (
            self.floating
            and self.role != "scale"
            and (prod(self.shape) > 1 or self.name.endswith(("weight", "bias", "scale", "gamma")))
        )

    @property
    def exported(self) -> bool:
        """Whether it has the name of a constant that an exporter created."""
        return EXPORTED.match(self.name) is not None

    def constant_of(self, op: str) -> bool:
        """Whether, as an operand of this operator, it is a constant and no parameter.

        The result of a Constant node is a parameter as the operand of a product or of a lookup.
        """
        if self.role == "constant":
            return op not in WEIGHTED
        return self.role == "scale" or (self.exported and op in POINTWISE)


class Dequantized(NamedTuple):
    """The result of a DequantizeLinear, which the op that reads it may compute itself."""

    x: Value  # as it was before, in 8 bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        return self.x.shape


class Several(NamedTuple):
    """A sequence of tensors."""

    items: tuple[Value | Stored | np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its length."""
        return (len(self.items),)


# None: an optional input that is left out
Operand = Value | Stored | np.ndarray | Dequantized | Several | None


class NamedTape(Tape):
    """A tape whose next parameters are the initializers that were announced.

    It shares all of its state with the tape on which it is made. An initializer that is used twice
    is one parameter.
    """

    def __init__(self, tape: Tape):
        self.__dict__ = tape.__dict__
        self.announced: list[str | Value] = []  # names of initializers, or values

    def parameter(
        self,
        *shape: int,
        tied: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        expert: bool = False,
    ) -> Value:
        """The next parameter announced, or a new one of that shape."""
        own = self.announced.pop(0) if self.announced else tied
        if isinstance(own, Value):
            return own
        sizes = sizes_of(shape, "a weight")
        repeats, self._repeats = self._repeats, 1  # of a loop's body: used again and again
        try:
            return super().parameter(
                *sizes, tied=own, trainable=trainable, dtype=dtype, expert=expert
            )
        finally:
            self._repeats = repeats

    def new(self, shape: Sequence[int], dtype: str | None = None, grad: bool = False) -> Value:
        """A new activation. Raises BadInput for a shape that cannot be."""
        return super().new(sizes_of(shape), dtype, grad)

    def view(self, x: Value, *shape: int) -> Value:
        """The storage of x in another shape. Raises BadInput for a shape that cannot be."""
        return super().view(x, *sizes_of(shape))

    def initializer(self, stored: Stored, *shape: int, held: str | None = None) -> Value:
        """The parameter that this initializer is, whatever is announced.

        `shape`: of the numbers, where several are packed into one of those that are stored.
        `held`: the format of quantized numbers, in which it is not trained.
        """
        announced, self.announced = self.announced, []
        shape = shape or stored.shape
        out = self.parameter(*shape, tied=stored.name, trainable=held is None, dtype=held)
        self.announced = announced
        return out
