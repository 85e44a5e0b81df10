"""What a traced model is fed, as text: 64x3x32x32, 64x128:int64, ids=64x128:int64."""

from __future__ import annotations

import re
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput, unknown

DTYPES = {  # words people use -> our formats
    "float": "fp32", "float32": "fp32", "fp32": "fp32", "f32": "fp32", "float64": "fp64",
    "double": "fp64", "fp64": "fp64", "bfloat16": "bf16", "bf16": "bf16", "float16": "fp16",
    "half": "fp16", "fp16": "fp16", "int64": "int64", "long": "int64", "int": "int64",
    "int32": "int32", "int8": "int8", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
FLOATING = ("fp64", "fp32", "bf16", "fp16")
FORM = (
    "a shape like 64x3x32x32, with :int64 for whole numbers and name= in front where inputs have"
    " names"
)


class Input(NamedTuple):
    """One tensor a step is fed. `dtype` None: floating numbers in the precision of the step."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None = None


def parse(text: str) -> Input:
    """A shape, a format, a name.

    >>> parse("64x3x32x32")
    Input(name=None, shape=(64, 3, 32, 32), dtype=None)
    >>> parse("ids=64x128:long")
    Input(name='ids', shape=(64, 128), dtype='int64')
    """
    name, equals, rest = text.strip().rpartition("=")
    shape, colon, dtype = rest.partition(":")
    if equals and not name.strip():
        raise BadInput(f"input {text}: no name before '='; wanted {FORM}")
    if not re.fullmatch(r"\s*\d+(\s*[xX×,]\s*\d+)*\s*", shape):
        raise BadInput(f"input {text}: not a shape; wanted {FORM}")
    sizes = tuple(int(n) for n in re.findall(r"\d+", shape))
    if min(sizes) < 1:
        raise BadInput(f"input {text}: a length of 0; wanted {FORM}")
    if colon and dtype.strip().lower() not in DTYPES:
        raise unknown(
            "format", dtype.strip(), DTYPES, f"of input {text}; known: {', '.join(DTYPES)}"
        )
    return Input(name.strip() or None, sizes, DTYPES[dtype.strip().lower()] if colon else None)


def written(inputs) -> str:
    """Inputs as a message shows them: 64x3x32x32, ids=64x128:int64."""
    parts = []
    for i in inputs:
        parts.append(
            (f"{i.name}=" if i.name else "")
            + "x".join(map(str, i.shape))
            + (f":{i.dtype}" if i.dtype else "")
        )
    return ", ".join(parts)


class Axes(NamedTuple):
    """How a step is fed: what one calls the batch and the size, and where both stand in the
    inputs.
    """

    takes: str  # sequence | image | table
    batch: int
    size: int | None


def axes(inputs) -> Axes:
    """Batch and size from the shapes: ids [batch, length] are a sequence, floats [batch, channels,
    n, n] an image.

    >>> axes([parse("8x3x32x32")])
    Axes(takes='image', batch=8, size=32)
    """
    first = inputs[0]
    batch = first.shape[0]
    if first.dtype in ("int64", "int32") and len(first.shape) == 2:
        return Axes("sequence", batch, first.shape[1])
    if (
        first.dtype in (None, *FLOATING)
        and len(first.shape) == 4
        and first.shape[2] == first.shape[3]
    ):
        return Axes("image", batch, first.shape[2])
    return Axes("table", batch, None)


def resized(inputs, batch: int, size: int | None):
    """The same inputs for another batch and another size: every leading axis as long as the batch,
    every axis that is the size.

    >>> resized([parse("8x3x32x32"), parse("8:int64")], 2, 64)
    (Input(name=None, shape=(2, 3, 64, 64), dtype=None), Input(name=None, shape=(2,),
    dtype='int64'))
    """
    known = axes(inputs)

    def one(i: Input) -> Input:
        shape = list(i.shape)
        if shape[0] == known.batch:
            shape[0] = batch
        if known.takes == "sequence" and len(shape) > 1 and shape[1] == known.size:
            shape[1] = size
        if known.takes == "image" and len(shape) == 4 and shape[2:] == [known.size] * 2:
            shape[2:] = [size] * 2
        return i._replace(shape=tuple(shape))

    return tuple(one(i) for i in inputs)
