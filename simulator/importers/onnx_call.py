"""One node of an ONNX graph about to run: its inputs as values, initializers or numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

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
FLOATING = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


class Stored(NamedTuple):
    """An initializer."""

    name: str
    shape: tuple[int, ...]
    format: str
    proto: onnx.TensorProto

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.format in FLOATING

    @property
    def learned(self) -> bool:
        """Whether it can be a parameter: several numbers, or one with a parameter's name."""
        return self.floating and (
            prod(self.shape) > 1 or self.name.endswith(("weight", "bias", "scale", "gamma"))
        )

    @property
    def exported(self) -> bool:
        """Whether it has the name of a constant that an exporter created."""
        return EXPORTED.match(self.name) is not None


Operand = Value | Stored | np.ndarray | None  # None: an optional input that is left out


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
        return super().parameter(*shape, tied=own, trainable=trainable, dtype=dtype, expert=expert)

    def initializer(self, stored: Stored) -> Value:
        """The parameter that this initializer is, whatever is announced."""
        return super().parameter(*stored.shape, tied=stored.name)


class Call(NamedTuple):
    """One node, about to run."""

    t: NamedTape
    node: onnx.NodeProto
    ins: list[Operand]
    attributes: dict[str, Any]

    def given(self, place: int) -> bool:
        """Whether input `place` is there. Optional inputs may be left out."""
        return place < len(self.ins) and self.ins[place] is not None

    def numbers(self, place: int) -> np.ndarray:
        """Input `place` as numbers that the graph holds or computed.

        Raises ValueError if they depend on the graph's inputs, of which only shapes are known, or
        if the input is left out.
        """
        value = self.ins[place] if self.given(place) else None
        if isinstance(value, Stored):
            return numpy_helper.to_array(value.proto)
        if value is None:
            raise ValueError(f"input {place} is missing")
        if not isinstance(value, np.ndarray):
            raise ValueError(
                f"{self.node.input[place]!r} depends on the values of the graph's inputs; only"
                " their shapes are known"
            )
        return value

    def numbers_or(self, place: int, default: Any) -> Any:
        """Input `place` as numbers, or `default` if it is left out."""
        return self.numbers(place) if self.given(place) else default

    def value(self, place: int) -> Value:
        """Input `place` as a tensor: an activation, a parameter, or a constant.

        Raises ValueError if it is left out.
        """
        value = self.ins[place]
        if isinstance(value, Value):
            return value
        if value is None:
            raise ValueError(f"input {place} is missing")
        if isinstance(value, Stored):
            floating = value.floating
            if floating and not (value.exported and self.node.op_type in POINTWISE):
                held = self.t.initializer(value)
                return held if held.shape == value.shape else self.t.view(held, *value.shape)
        else:
            floating = value.dtype.kind == "f"
        dtype = self.t.precision.activations if floating else "int64"
        return self.t.buffer(*value.shape, dtype=dtype)

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


Result = Value | list[Value]
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
