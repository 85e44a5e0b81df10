"""One node of an ONNX graph about to run: its inputs as tensors, parameters or numbers."""

from __future__ import annotations

import re
from math import prod
from typing import Any, NamedTuple

import numpy as np

from roofcast.simulator.work.tape import Tape, Value

# constants that an exporter made up: masks, positions. Where one meets an elementwise op it is no
# parameter
MADE = re.compile(
    r"(.*running_(mean|var)$|_?val_\d+|lifted_tensor|_tensor_constant|onnx::(Add|Sub|Mul|Div|Where|Pow)_\d+|arange|zeros|ones|full|tmp|scalar)"
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
    proto: Any

    @property
    def floating(self) -> bool:
        """Does it hold real numbers?"""
        return self.format in FLOATING

    @property
    def learned(self) -> bool:
        """More than one number, or one number that has the name of a module's parameter."""
        return self.floating and (
            prod(self.shape) > 1 or self.name.endswith(("weight", "bias", "scale", "gamma"))
        )


class Named:
    """A tape whose next parameters are the initializers announced: one initializer used twice is
    one parameter.
    """

    def __init__(self, tape: Tape):
        self.tape = tape
        self.announced: list[str | Value] = []

    def __getattr__(self, name: str):
        return getattr(self.tape, name)

    def parameter(self, *shape, tied=None, trainable=True, dtype=None) -> Value:
        """The next parameter announced, or a new one of that shape."""
        own = self.announced.pop(0) if self.announced else tied
        return (
            own
            if isinstance(own, Value)
            else self.tape.parameter(*shape, tied=own, trainable=trainable, dtype=dtype)
        )


class Call(NamedTuple):
    """One node, about to run."""

    t: Named
    node: Any
    ins: list
    attributes: dict[str, Any]

    def given(self, place: int) -> bool:
        """Is input `place` there? Optional ones may be left out."""
        return place < len(self.ins) and self.ins[place] is not None

    def numbers(self, place: int, default=None):
        """Input `place` as numbers that the graph computed or holds."""
        if not self.given(place):
            return default
        value = self.ins[place]
        if isinstance(value, Stored):
            from onnx import numpy_helper

            return numpy_helper.to_array(value.proto)
        if not isinstance(value, np.ndarray):
            raise ValueError(
                f"{self.node.input[place]!r} depends on the numbers that the graph is fed; only"
                " shapes are known"
            )
        return value

    def value(self, place: int) -> Value:
        """Input `place` as a tensor: an activation, a parameter, or a constant."""
        value = self.ins[place]
        if isinstance(value, Value):
            return value
        if (
            isinstance(value, Stored)
            and value.floating
            and not (MADE.match(value.name) and self.node.op_type in POINTWISE)
        ):
            held = self.t.tape.parameter(*value.shape, tied=value.name)
            return held if held.shape == value.shape else self.t.view(held, *value.shape)
        floating = value.dtype.kind == "f" if isinstance(value, np.ndarray) else value.floating
        return self.t.buffer(
            *value.shape, dtype=self.t.precision.activations if floating else "int64"
        )

    def values(self) -> list[Value]:
        """The inputs that are there, as values of the tape."""
        return [self.value(i) for i in range(len(self.ins)) if self.given(i)]

    @property
    def grad(self) -> bool:
        """Does a gradient flow to any input?"""
        return any(v.grad for v in self.values())

    def announce(self, *places: int):
        """The op's own parameters are these inputs, in this order: initializers, or what the graph
        makes of them.
        """
        given = [self.ins[p] for p in places if self.given(p)]
        self.t.announced[:] = [
            i.name if isinstance(i, Stored) else i for i in given if isinstance(i, (Stored, Value))
        ]

    def scalar(self, place: int) -> bool:
        """Is input `place` one number, known beforehand?"""
        value = self.ins[place]
        return (isinstance(value, np.ndarray) and value.size == 1) or (
            isinstance(value, Stored) and prod(value.shape) == 1 and not value.learned
        )


def moved(c: Call, kind: str, outs: list[Value], vector: float = 1) -> float:
    """A kernel that reads its operands once and writes its results once, and its adjoint. Returns
    bytes, both ways.
    """
    t, ins = c.t, c.values()
    size = max((v.size for v in (*ins, *outs)), default=0)
    t.emit(kind, tuple(ins), tuple(outs), vector=vector * size)
    read, written = sum(v.bytes for v in ins), sum(v.bytes for v in outs)
    if t.training and c.grad:
        t.save(*(v for v in ins if v.grad or v.dtype.startswith("int")))
        t.backward(
            "scatter" if kind == "gather" else kind,
            vector=vector * size,
            read=read + written,
            written=read,
            product=outs[0].dtype if outs else "fp32",
        )
        return 2 * (read + written) + read
    return read + written
