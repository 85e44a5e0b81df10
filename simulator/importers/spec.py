"""Inputs of a traced model as text: 64x3x32x32, 64x128:int64, ids=64x128:int64."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from roofcast.hwdb.errors import BadInput, unknown

# names of formats that people use, in ours
DTYPES = {
    "float": "fp32", "float32": "fp32", "fp32": "fp32", "f32": "fp32", "float64": "fp64",
    "double": "fp64", "fp64": "fp64", "bfloat16": "bf16", "bf16": "bf16", "float16": "fp16",
    "half": "fp16", "fp16": "fp16", "int64": "int64", "long": "int64", "int": "int64",
    "int32": "int32", "int8": "int8", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
FLOATING = ("fp64", "fp32", "bf16", "fp16")
FORM = (
    "expected a shape like 64x3x32x32, with :int64 for integers, and name= in front if the inputs"
    " have names"
)


class Input(NamedTuple):
    """One input tensor of a step."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None = None  # None: floating-point, in the precision of the step


# inputs of a module in order, or by argument name: texts, Inputs or tensors
Given = Iterable[Any] | Mapping[str, Any]


def parse(text: str) -> Input:
    """A shape, a format and a name. Raises BadInput or UnknownName.

    >>> parse("64x3x32x32")
    Input(name=None, shape=(64, 3, 32, 32), dtype=None)
    >>> parse("ids=64x128:long")
    Input(name='ids', shape=(64, 128), dtype='int64')
    """
    name, equals, rest = text.strip().rpartition("=")
    shape, colon, dtype = rest.partition(":")
    if equals and not name.strip():
        raise BadInput(f"input {text}: no name before '='; {FORM}")
    if not re.fullmatch(r"\s*\d+(\s*[xX×,]\s*\d+)*\s*", shape):
        raise BadInput(f"input {text}: not a shape; {FORM}")
    sizes = tuple(int(n) for n in re.findall(r"\d+", shape))
    if min(sizes) < 1:
        raise BadInput(f"input {text}: a dimension of 0; {FORM}")
    if not colon:
        return Input(name.strip() or None, sizes)
    dtype = dtype.strip()
    if dtype.lower() not in DTYPES:
        raise unknown("format", dtype, DTYPES, f"of input {text}; known: {', '.join(DTYPES)}")
    return Input(name.strip() or None, sizes, DTYPES[dtype.lower()])


def written(inputs: Iterable[Input]) -> str:
    """Inputs as text for messages.

    >>> written([parse("64x3x32x32"), parse("ids=64x128:int64")])
    '64x3x32x32, ids=64x128:int64'
    """
    parts = []
    for i in inputs:
        name, dtype = f"{i.name}=" if i.name else "", f":{i.dtype}" if i.dtype else ""
        parts.append(name + "x".join(map(str, i.shape)) + dtype)
    return ", ".join(parts)


class Axes(NamedTuple):
    """What the inputs are, and the values of their batch and size axes."""

    takes: str  # sequence | image | table
    batch: int
    size: int | None  # sequence length, or image side in pixels


def axes(inputs: Sequence[Input]) -> Axes:
    """Batch and size of the first input.

    Integers [batch, length] are a sequence, floating-point numbers [batch, channels, n, n] an
    image.

    >>> axes([parse("8x3x32x32")])
    Axes(takes='image', batch=8, size=32)
    """
    first = inputs[0]
    batch, rank = first.shape[0], len(first.shape)
    if first.dtype in ("int64", "int32") and rank == 2:
        return Axes("sequence", batch, first.shape[1])
    floating = first.dtype in (None, *FLOATING)
    if floating and rank == 4 and first.shape[2] == first.shape[3]:
        return Axes("image", batch, first.shape[2])
    return Axes("table", batch, None)


def resized(inputs: Sequence[Input], batch: int, size: int | None) -> tuple[Input, ...]:
    """The same inputs for another batch and size.

    Changes every leading axis that is as long as the batch, and every axis that is the size.

    >>> resized([parse("8x3x32x32"), parse("8:int64")], 2, 64)
    (Input(name=None, shape=(2, 3, 64, 64), dtype=None), Input(name=None, shape=(2,),
    dtype='int64'))
    """
    known = axes(inputs)
    size = known.size if size is None else size

    def one(i: Input) -> Input:
        shape = list(i.shape)
        if shape[0] == known.batch:
            shape[0] = batch
        if size is not None and known.takes == "sequence" and shape[1:2] == [known.size]:
            shape[1] = size
        if size is not None and known.takes == "image" and shape[2:] == [known.size] * 2:
            shape[2:] = [size] * 2
        return i._replace(shape=tuple(shape))

    return tuple(one(i) for i in inputs)
