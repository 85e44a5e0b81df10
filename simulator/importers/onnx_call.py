"""One node of an ONNX graph about to run: its inputs as values, initializers or numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
        adapter: bool = False,
        share: float = 1.0,
    ) -> Value:
        """The next parameter announced, or a new one of that shape."""
        own = self.announced.pop(0) if self.announced else tied
        if isinstance(own, Value):
            return own
        sizes = sizes_of(shape, "a weight")
        repeats, self._repeats = self._repeats, 1  # of a loop's body: used again and again
        try:
            return super().parameter(
                *sizes, tied=own, trainable=trainable, dtype=dtype, expert=expert, share=share
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


class Call(NamedTuple):
    """One node, about to run."""

    t: NamedTape
    node: onnx.NodeProto
    ins: list[Operand]
    attributes: dict[str, Any]
    # the format of the result where the op that reads it quantizes it, else None
    narrow: str | None = None

    def with_inputs(self, *ins: Operand, **attributes: Any) -> Call:
        """The same node with other inputs, and with further attributes."""
        return self._replace(ins=list(ins), attributes={**self.attributes, **attributes})

    def attribute(self, name: str, *, least: int = 1) -> int:
        """A whole number that must be there. Raises BadInput if it is not, or below `least`."""
        if name not in self.attributes:
            raise BadInput(f"the attribute {name} is missing")
        value = self.attributes[name]
        if not isinstance(value, int) or value < least:
            raise BadInput(f"{name} {str(value)[:40]}: expected a whole number from {least} on")
        return value

    def text(self, name: str, default: str = "") -> str:
        """An attribute that is a text."""
        value = self.attributes.get(name)
        return value.decode(errors="replace") if isinstance(value, bytes) else default

    def given(self, place: int) -> bool:
        """Whether input `place` is there. Optional inputs may be left out."""
        return place < len(self.ins) and self.ins[place] is not None

    def numbers(self, place: int) -> np.ndarray:
        """Input `place` as numbers that the graph holds or computed.

        Raises NotKnown if they depend on the graph's inputs, of which only shapes are known, and
        ValueError if the input is left out.
        """
        value = self.ins[place] if self.given(place) else None
        if isinstance(value, Stored):
            return value.numbers()
        if value is None:
            raise ValueError(f"input {place} is missing")
        if not isinstance(value, np.ndarray):
            raise NotKnown(
                f"{quoted(self.node.input[place])} depends on the values of the graph's inputs;"
                " only their shapes are known"
            )
        return value

    def numbers_or(self, place: int, default: Any) -> Any:
        """Input `place` as numbers, or `default` if it is left out."""
        return self.numbers(place) if self.given(place) else default

    def value(self, place: int) -> Value:
        """Input `place` as a tensor: an activation, a parameter, or a constant.

        Raises ValueError if it is left out.
        """
        value = self.ins[place] if place < len(self.ins) else None
        if isinstance(value, Dequantized):
            value = value.x
        if isinstance(value, Value):
            return value
        if value is None:
            raise ValueError(f"input {place} is missing")
        if isinstance(value, Several):
            raise ValueError(f"input {place} is a sequence of tensors, not a tensor")
        if isinstance(value, Stored):
            floating = value.floating
            if floating and not value.constant_of(self.node.op_type):
                held = self.t.initializer(value)
                return held if held.shape == value.shape else self.t.view(held, *value.shape)
        else:
            floating = value.dtype.kind == "f"
        dtype = self.t.precision.activations if floating else "int64"
        return self.t.buffer(*value.shape, dtype=dtype)

    def weight(self, place: int, trained: bool = False) -> Value:
        """Input `place` as a parameter in the format in which it is stored, where it is quantized.

        It is not trained, but for one that `trained` then holds in the format of the step.
        """
        value = self.ins[place] if place < len(self.ins) else None
        if not isinstance(value, Stored) or value.floating:
            return self.value(place)
        held = HELD.get(value.format)
        return self.t.initializer(value, held=None if self.t.training and trained else held)

    def values(self) -> list[Value]:
        """The inputs that are given, as values of the tape."""
        return [self.value(i) for i in range(len(self.ins)) if self.given(i)]

    @property
    def grad(self) -> bool:
        """Whether a gradient flows to any input."""
        return any(v.grad for v in self.values())

    def announce(self, *places: int) -> None:
        """The next parameters of the tape are these inputs, in this order."""
        given = [self.ins[p] for p in places if self.given(p)]
        self.t.announced[:] = [
            i.name if isinstance(i, Stored) else i for i in given if isinstance(i, (Stored, Value))
        ]

    def scalar(self, place: int) -> bool:
        """Whether input `place` is a single number that is known and not a parameter."""
        value = self.ins[place]
        if isinstance(value, np.ndarray):
            return value.size == 1
        return isinstance(value, Stored) and prod(value.shape) == 1 and not value.learned


Result = Operand | list[Any]
Handler = Callable[[Call], Result]


def moved(c: Call, kind: str, outs: Sequence[Value], vector: float = 1) -> float:
    """A kernel that reads its operands once and writes its results once, and its adjoint.

    `vector`: FLOPs per element of the largest tensor. Returns the bytes moved by both.
    """
    t, ins = c.t, c.values()
    size = max((v.size for v in (*ins, *outs)), default=0)
    t.emit(kind, tuple(ins), tuple(outs), vector=vector * size)
    read, written = sum(v.bytes for v in ins), sum(v.bytes for v in outs)
    if not (t.training and c.grad):
        return read + written
    t.save(*(v for v in ins if v.grad or v.dtype.startswith("int")))
    t.backward(
        "scatter" if kind == "gather" else kind,
        vector=vector * size,
        read=read + written,
        written=read,
        product=outs[0].dtype if outs else "fp32",
    )
    return 2 * (read + written) + read
