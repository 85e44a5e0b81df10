"""Inputs of an ONNX graph: shapes as it declares them, completed by those that are given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import LARGEST, quoted, sizes_of
from roofcast.simulator.importers.onnx_extra import onnx
from roofcast.simulator.importers.onnx_run import format_of

SHOWN = 12  # inputs that a message lists


class Axis(NamedTuple):
    """One dimension of an input."""

    size: int | None  # None: open
    name: str


class Fed(NamedTuple):
    """What a graph is run on."""

    inputs: tuple[spec.Input, ...]  # of all that the graph declares, in its order
    values: dict[str, np.ndarray]  # of inputs that are one number, where it is given
    notes: tuple[str, ...]  # what was assumed of open axes


class Asked(NamedTuple):
    """What the caller gives."""

    inputs: list[spec.Input]
    dims: dict[str, int]  # sizes of open axes by name
    numbers: dict[str, int]  # values of inputs that are one number


def asked(
    declared: Sequence[onnx.ValueInfoProto],
    given: Iterable[str | spec.Input],
    dims: Mapping[str, int],
) -> Asked:
    """Texts as shapes, sizes of named axes and numbers.

    `name=8` is the size of an axis where the graph has an open axis, and no input, of that name; it
    is a number where the input has no axes.
    """
    names = {i.name: i for i in declared}
    symbols = {s for i in declared for a in _axes(i) for s in re.findall(r"[^\s+*-]+", a.name)}
    found = Asked([], dict(dims), {})
    for each in given:
        if not isinstance(each, str):
            found.inputs.append(each)
            continue
        name, equals, rest = each.strip().rpartition("=")
        name = name.strip()
        whole = re.fullmatch(r"\s*(-?\d{1,15})\s*", rest) if equals else None
        if whole and name in names and not _axes(names[name]) and _ranked(names[name]):
            found.numbers[name] = int(whole[1])
        elif whole and name not in names and name in symbols and int(whole[1]) >= 0:
            found.dims[name] = int(whole[1])
        else:
            found.inputs.append(spec.parse(each))
    return found


def fed(where: str, declared: Sequence[onnx.ValueInfoProto], a: Asked) -> Fed:
    """Shapes of all inputs that the graph declares. Raises BadInput where one cannot be."""
    if not declared:
        raise BadInput(f"{where}: the graph has no inputs; there is nothing to run")
    names = [i.name for i in declared]
    for i in declared:
        _check(where, i)
    unknown = next((i.name for i in a.inputs if i.name and i.name not in names), None)
    if unknown is not None:
        symbols = sorted({x.name for i in declared for x in _axes(i) if x.name})
        sizes = f"; open axes: {_listed(symbols)}" if symbols else ""
        raise BadInput(f"{where}: no input {quoted(unknown)}; inputs: {_listed(names)}{sizes}")
    by_name = {i.name: i for i in a.inputs if i.name}
    in_order = iter([i for i in a.inputs if not i.name])
    given: dict[str, spec.Input | None] = {}
    for i in declared:  # numbers take no shape
        by_place = None if not _axes(i) and _ranked(i) else next(in_order, None)
        given[i.name] = by_name.get(i.name) or by_place
    if next(in_order, None) is not None:
        raise BadInput(
            f"{where}: takes {len(names)} inputs ({_listed(names)}); {len(a.inputs)} were given"
        )
    dims = dict(a.dims)
    for i in declared:
        _bind(where, i, given[i.name], dims)
    notes: dict[str, None] = {}
    inputs = tuple(_one(where, i, given[i.name], dims, notes) for i in declared)
    values = {n: np.array(v) for n, v in a.numbers.items()}
    return Fed(inputs, values, tuple(notes))


def _listed(names: Sequence[str]) -> str:
    shown = [quoted(n)[1:-1] for n in names[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _ranked(declared: onnx.ValueInfoProto) -> bool:
    return declared.type.tensor_type.HasField("shape")


def _axes(declared: onnx.ValueInfoProto) -> list[Axis]:
    """Declared axes. -1 is open, as some exporters write it."""
    return [
        Axis(d.dim_value if d.HasField("dim_value") and d.dim_value != -1 else None, d.dim_param)
        for d in declared.type.tensor_type.shape.dim
    ]


def _check(where: str, declared: onnx.ValueInfoProto) -> None:
    kind = declared.type.WhichOneof("value")
    name = quoted(declared.name)[1:-1]
    if kind is not None and kind != "tensor_type":
        raise BadInput(
            f"{where}: input {name} is of the type {kind.removesuffix('_type')}; only tensors can"
            " be given"
        )
    if format_of(declared.type.tensor_type.elem_type) is None:
        form = onnx.TensorProto.DataType.Name(declared.type.tensor_type.elem_type)
        if form == "STRING":
            raise BadInput(f"{where}: input {name} is a tensor of texts; only numbers are modelled")
    sizes_of([a.size or 0 for a in _axes(declared)], f"{where}: input {name}")


def _bind(
    where: str, declared: onnx.ValueInfoProto, given: spec.Input | None, dims: dict[str, int]
) -> None:
    """Take the sizes of named axes from a shape that is given."""
    axes = _axes(declared)
    if given is None or not axes:
        return
    name = quoted(declared.name)[1:-1]
    if not _fits(given.shape, axes):
        raise BadInput(
            f"{where}: input {name} is {_written(axes)}; {spec.written([given])} does not fit it"
        )
    for n, axis in zip(given.shape, axes, strict=True):
        if axis.size is None and axis.name and dims.setdefault(axis.name, n) != n:
            raise BadInput(
                f"{where}: input {name} is {_written(axes)}; {spec.written([given])} gives"
                f" {quoted(axis.name)} another size than {dims[axis.name]}"
            )


def _one(
    where: str,
    declared: onnx.ValueInfoProto,
    given: spec.Input | None,
    dims: dict[str, int],
    notes: dict[str, None],
) -> spec.Input:
    dtype, axes = format_of(declared.type.tensor_type.elem_type), _axes(declared)
    name = quoted(declared.name)[1:-1]
    if given is not None:
        if prod_of(given.shape) >= LARGEST:
            raise BadInput(f"{where}: input {name} has 2^40 elements or more")
        return spec.Input(declared.name, given.shape, dtype)
    sizes = [a.size if a.size is not None else _sum(a.name, dims) for a in axes]
    if sizes and sizes[0] is None:
        sizes[0] = 1
        if axes[0].name:
            dims[axes[0].name] = 1
        what = quoted(axes[0].name) if axes[0].name else f"0 of input {name}"
        notes.setdefault(f"open axis {what}: 1 (not given)")
    if not _ranked(declared) or any(n is None for n in sizes):
        example = "x".join(str(n if n is not None else "N") for n in sizes) or "64x3x224x224"
        shown = _written(axes) if _ranked(declared) else "of unknown shape"
        raise BadInput(
            f"{where}: input {name} is {shown}; give the sizes of its open axes, --input"
            f" {name}={example}{_by_name(axes, dims)}"
        )
    shape = sizes_of([n for n in sizes if n is not None], f"{where}: input {name}")
    return spec.Input(declared.name, shape, dtype)


def prod_of(shape: Sequence[int]) -> int:
    """Elements of a shape."""
    out = 1
    for n in shape:
        out *= n
    return out


def _by_name(axes: Sequence[Axis], dims: Mapping[str, int]) -> str:
    open_ = next((a.name for a in axes if a.size is None and a.name not in dims), "")
    return f", or --input {quoted(open_)[1:-1]}=N" if re.fullmatch(r"\w+", open_) else ""


def _sum(name: str, dims: Mapping[str, int]) -> int | None:
    """The size of an axis by its name, which may be a sum: past_length + 1."""
    if name in dims:
        return dims[name]
    total = 0
    for part in name.split("+"):
        word = part.strip()
        if word in dims:
            total += dims[word]
        elif re.fullmatch(r"\d{1,12}", word):
            total += int(word)
        else:
            return None
    return total


def _written(axes: Sequence[Axis]) -> str:
    shown = [str(a.size if a.size is not None else quoted(a.name)[1:-1] or "?") for a in axes[:10]]
    return ("x".join(shown) or "one number") + ("x..." if len(axes) > 10 else "")


def _fits(shape: tuple[int, ...], axes: list[Axis]) -> bool:
    """Whether a shape has the declared dimensions; the first one, the batch, may differ."""
    return len(shape) == len(axes) and all(
        a.size in (None, n) for a, n in zip(axes[1:], shape[1:], strict=True)
    )
