"""Inputs of a traced model as text: 64x3x32x32, 64x128:int64, ids=64x128:int64, step=3."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.tuples import NamedTuple

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
SHAPE = r"\s*\d+(\s*[xX×,]\s*\d+)*\s*"
LONGEST = 80  # characters of an input that a message quotes
# words that stand for values, as Python writes them
WORDS = {"true": "True", "false": "False", "none": "None", "null": "None"}


class Input(NamedTuple):
    """One input of a step: a tensor, or a value.

    A tensor whose values matter has both a shape and a literal. So has a single number after a
    name (`step=3`), which is the number, or the length of a tensor where the module takes one.
    """

    name: str | None  # with dots: an item of a dict, a list or a record, d.feat, xs.0
    shape: tuple[int, ...]
    dtype: str | None = None  # None: floating-point, in the precision of the step
    literal: str | None = None  # a Python literal: a value, or the values of a tensor
    of: type | None = None  # the record whose field it is, where that is known

    @property
    def value(self) -> Any:
        """The Python value of the literal."""
        return ast.literal_eval(self.literal or "None")

    @property
    def either(self) -> bool:
        """Whether it may be a number or a tensor of that length."""
        return self.literal is not None and bool(self.shape) and self.dtype is None

    @property
    def tensor(self) -> bool:
        """Whether it is certainly a tensor."""
        return self.literal is None or self.dtype is not None


# inputs of a module in order, or by argument name: texts, Inputs, tensors, values, and containers
Given = Iterable[Any] | Mapping[str, Any]


def parse(text: str) -> Input:
    """A shape, a format, values and a name. Raises BadInput or UnknownName.

    >>> parse("64x3x32x32")
    Input(name=None, shape=(64, 3, 32, 32), dtype=None, literal=None, of=None)
    >>> parse("ids=64x128:long")[:3]
    ('ids', (64, 128), 'int64')
    >>> parse("lengths=4:int64=20")[:4], parse("scale=0.5")[:4]
    (('lengths', (4,), 'int64', '20'), ('scale', (), None, '0.5'))
    """
    name, equals, rest = _split(text)
    if equals and not name:
        raise BadInput(f"input {_cut(text)}: no name before '='; {FORM}")
    shape, values = rest, ""
    if re.match(rf"{SHAPE}(:[^=]*)?=", rest):
        shape, _, values = rest.partition("=")
    shape, colon, dtype = shape.partition(":")
    if not re.fullmatch(SHAPE, shape):
        literal = _literal(rest) if name else None
        if literal is None:
            raise BadInput(f"input {_cut(text)}: not a shape; {FORM}")
        return Input(name, (), None, literal)
    sizes = _sizes(shape, text, name, alone=not colon and not values)
    format_ = _format(dtype.strip()) if colon else None
    literal = None
    if values:
        literal = _literal(values)
        if literal is None:
            raise BadInput(f"input {_cut(text)}: {_cut(values)} is no number or list of numbers")
        format_ = format_ or ("int64" if "." not in literal else "fp32")
    elif name and not colon and len(sizes) == 1 and shape.strip().isdigit():
        literal = str(int(shape))
    if sizes == (0,):
        return Input(name or None, (), None, "0")
    return Input(name or None, sizes, format_, literal)


def _split(text: str) -> tuple[str, str, str]:
    """Name, the sign after it if there is one, and the rest."""
    name, equals, rest = text.strip().partition("=")
    if not equals or re.fullmatch(rf"{SHAPE}:\s*\w+\s*", name):  # 4:int64=20 has no name
        return "", "", text.strip()
    return name.strip(), equals, rest.strip()


def _sizes(shape: str, text: str, name: str, alone: bool) -> tuple[int, ...]:
    """The axes of a shape."""
    numbers = re.findall(r"\d+", shape)
    if max(map(len, numbers)) > 18:
        raise BadInput(f"input {_cut(text)}: a dimension of more than 18 digits; {FORM}")
    sizes = tuple(map(int, numbers))
    if min(sizes) < 1 and not (name and alone and sizes == (0,)):
        raise BadInput(f"input {_cut(text)}: a dimension of 0; {FORM}")
    return sizes


def _format(dtype: str) -> str:
    """A format by one of its names."""
    if dtype.lower() not in DTYPES:
        listing = f"of an input; known: {', '.join(DTYPES)}"
        raise unknown("format", _cut(dtype), DTYPES, listing)
    return DTYPES[dtype.lower()]


def _literal(text: str) -> str | None:
    """A number, a flag, None, a text or a list of them as Python writes it; None if it is none.

    >>> _literal("true"), _literal("[3, 4]"), _literal("bicubic"), _literal("4x")
    ('True', '[3, 4]', "'bicubic'", None)
    """
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if re.fullmatch(r"[A-Za-z_][\w./-]*", text):
        return repr(text)
    if len(text) > 10_000:
        return None
    try:
        return repr(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _cut(text: str) -> str:
    """As much of a text as a message quotes."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def written(inputs: Iterable[Input]) -> str:
    """Inputs as text for messages.

    >>> written([parse("64x3x32x32"), parse("ids=64x128:int64"), parse("step=3")])
    '64x3x32x32, ids=64x128:int64, step=3'
    """
    parts = []
    for i in inputs:
        name, dtype = f"{i.name}=" if i.name else "", f":{i.dtype}" if i.dtype else ""
        if i.literal is None or i.dtype:
            values = f"={_cut(i.literal)}" if i.literal else ""
            parts.append(name + "x".join(map(str, i.shape)) + dtype + values)
        else:
            parts.append(name + _cut(i.literal))
    return ", ".join(parts)


class Axes(NamedTuple):
    """What the inputs are, and the values of their batch and size axes."""

    takes: str  # sequence | image | table
    batch: int
    size: int | None  # sequence length, or image side in pixels


def axes(inputs: Sequence[Input]) -> Axes:
    """Batch and size of the first input that is a tensor.

    Integers [batch, length] are a sequence, floating-point numbers [batch, channels, n, n] an
    image.

    >>> axes([parse("8x3x32x32")])
    Axes(takes='image', batch=8, size=32)
    """
    first = next((i for i in inputs if i.tensor and i.shape), None)
    if first is None:
        return Axes("table", 1, None)
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

    >>> [i.shape for i in resized([parse("8x3x32x32"), parse("8:int64")], 2, 64)]
    [(2, 3, 64, 64), (2,)]
    """
    known = axes(inputs)
    size = known.size if size is None else size

    def one(i: Input) -> Input:
        if not i.tensor or not i.shape:
            return i
        shape = list(i.shape)
        if shape[0] == known.batch:
            shape[0] = batch
        if size is not None and known.takes == "sequence" and shape[1:2] == [known.size]:
            shape[1] = size
        if size is not None and known.takes == "image" and shape[2:] == [known.size] * 2:
            shape[2:] = [size] * 2
        return i._replace(shape=tuple(shape))

    return tuple(one(i) for i in inputs)
