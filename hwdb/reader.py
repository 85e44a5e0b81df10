"""Strict reading of hardware files: a TOML table into a frozen record, or a one-line error.

The annotations of `hwdb.records` define the file format and are walked here, because a number of a
hardware file is a Figure, which has a unit and cites a source. `hwdb.strict` reads files of plain
values.
"""

import math
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from roofcast.hwdb.errors import BadInput, UnknownName, listed, quoted, unknown
from roofcast.hwdb.figure import STATUSES, Figure, Table, table
from roofcast.hwdb.strict import load as load_toml
from roofcast.hwdb.units import quantity, written

OWN = "own file"
"""Source of a number for which a user's file cites none."""

LEAST, MOST = 1e-24, 1e24
"""Of any number [its SI unit]: no hardware has less or more."""

FIGURE_KEYS = ("value", "source", "status", "where")
NOT_IN_FILES = ("id", "edits", "given", "read_as")
Record = TypeVar("Record", bound=Struct)


def load(path: Path, sort: str = "") -> dict[str, Any]:
    """The hardware file as a dict; BadInput where it cannot be read or parsed, or where it is of
    another sort (hwdb/sorts.py).
    """
    return load_toml(path, "a hardware file or a name that roofcast devices lists", sort)


@cache
def keys(cls: type[Struct]) -> dict[str, tuple[Any, bool]]:
    """Keys that a table of type `cls` may hold -> (annotated type without None, required)."""
    hints = get_type_hints(cls, include_extras=True)
    required = {
        field.name: field.default is NODEFAULT and field.default_factory is NODEFAULT
        for field in fields(cls)
    }
    return {
        name: (_without_none(hint), required[name])
        for name, hint in hints.items()
        if name not in NOT_IN_FILES
    }


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(arg for arg in get_args(hint) if arg is not type(None))
    return hint


def unit_of(hint: Any) -> str | None:
    """The unit of an annotated Figure; None for any other annotation."""
    args = get_args(hint)
    return args[1] if args and args[0] is Figure else None


def most_of(hint: Any) -> float:
    """The largest value of an annotated Figure: infinite where the annotation states none."""
    args = get_args(hint)
    return float(args[2]) if len(args) > 2 else math.inf


def members(hint: Any) -> type[Struct] | None:
    """The record whose keys the table may hold; None where `hint` is not a table of known keys."""
    args = get_args(hint)
    if args and get_origin(args[0]) is Table:
        return args[1]
    return hint if isinstance(hint, type) and issubclass(hint, Struct) else None


def read(
    cls: type[Record], data: Mapping[str, Any], file: str, identity: str, **extra: Any
) -> Record:
    """The record of type `cls` that the parsed file `data` holds.

    file: the file's name in messages.  identity: the record's `id`.  extra: fields that no file
    states. Raises BadInput or UnknownName, naming file and key.
    """
    sources = data.get("sources", {})
    texts = isinstance(sources, Mapping) and all(isinstance(s, str) for s in sources.values())
    if not texts:
        raise BadInput(
            f"{file}: [sources] must map keys to citations in quotes; write for example datasheet ="
            ' "NVIDIA H100 datasheet, 2023"'
        )
    return _Reader(file, sources).record(cls, data, "", id=identity, **extra)


class _Reader:
    """One file being read: its name for messages, and the sources that its numbers may cite."""

    def __init__(self, file: str, sources: Mapping[str, str]):
        self.file, self.sources = file, sources

    def record(self, cls: type[Record], data: Any, path: str, **extra: Any) -> Record:
        """The record of type `cls` that the table at `path` holds; errors as `pairs`."""
        return cls(**self.pairs(cls, data, path), **extra)

    def pairs(self, cls: type[Struct], data: Any, path: str) -> dict[str, Any]:
        """Values of the table at `path`, by key.

        Raises BadInput where it is no table or lacks a required key, UnknownName where it has a key
        that `cls` lacks.
        """
        known = keys(cls)
        if not isinstance(data, Mapping):
            raise BadInput(
                f"{self.file}: {path} is {quoted(data)}; wanted a table with the keys"
                f" {listed(known)}"
            )
        prefix = f"{path}." if path else ""
        for key in data:
            if key not in known:
                listing = f"keys of {path or 'the file'}: {listed(known)}"
                error = unknown("key", prefix + key, [prefix + name for name in known], listing)
                raise UnknownName(f"{self.file}: {error}")
        for key, (hint, required) in known.items():
            if required and key not in data:
                raise BadInput(f"{self.file}: {prefix}{key} is missing; {_example(hint, key)}")
        return {
            key: self.value(hint, data[key], prefix + key)
            for key, (hint, _) in known.items()
            if key in data
        }

    def value(self, hint: Any, data: Any, path: str) -> Any:
        """What stands at `path`, as the annotation `hint` says; BadInput where it does not fit.

        A figure, a record, a table, a tuple, a string or a whole number.
        """
        if (unit := unit_of(hint)) is not None:
            figure = self.figure(data, unit, path)
            if figure > (most := most_of(hint)):
                raise BadInput(
                    f"{self.file}: {path} is {figure:g}; a fraction of the published rate is at"
                    f" most {most:g}"
                )
            return figure
        if (cls := members(hint)) is not None:
            pairs = self.pairs(cls, data, path)
            return cls(**pairs) if hint is cls else table(pairs.items())
        if get_origin(hint) is Table:
            return Table(data)
        if get_origin(hint) is tuple:
            return self.items(get_args(hint)[0], data, path)
        if type(data) is not hint:
            wanted = "a string in quotes" if hint is str else "a whole number"
            raise BadInput(f"{self.file}: {path} is {quoted(data)}; wanted {wanted}")
        return data

    def items(self, hint: Any, data: Any, path: str) -> tuple[Any, ...]:
        """A list whose items are as `hint` says; BadInput where it is no list."""
        if not isinstance(data, list):
            raise BadInput(f"{self.file}: {path} is {quoted(data)}; wanted a list in brackets")
        return tuple(
            self.value(hint, item, f"{path}[{number}]") for number, item in enumerate(data)
        )

    def figure(self, data: Any, unit: str, path: str) -> Figure:
        """A bare number, a unit string, or a table {value, source, status, where}."""
        if not isinstance(data, Mapping):
            return Figure(self.number(data, unit, path), OWN, "given")
        for key in data:
            if key not in FIGURE_KEYS:
                listing = f"keys of a number: {', '.join(FIGURE_KEYS)}"
                error = unknown("key", f"{path}.{key}", FIGURE_KEYS, listing)
                raise UnknownName(f"{self.file}: {error}")
        if "value" not in data:
            raise BadInput(
                f"{self.file}: {path} has no value; write {path} = {{value = ..., source = ...}} or"
                " a bare number"
            )
        source, status = data.get("source", OWN), data.get("status", "given")
        where = data.get("where", "")
        if not isinstance(source, str) or (source not in self.sources and source != OWN):
            raise BadInput(
                f"{self.file}: {path} cites {quoted(source)}, and [sources] has no such key; add it"
                " there"
            )
        if status not in STATUSES:
            raise BadInput(
                f"{self.file}: {path} has status {quoted(status)}; wanted one of"
                f" {', '.join(STATUSES)}"
            )
        if not isinstance(where, str):
            raise BadInput(
                f"{self.file}: {path}.where is {quoted(where)}; wanted a string in quotes"
            )
        return Figure(self.number(data["value"], unit, path), source, status, where)

    def number(self, data: Any, unit: str, path: str) -> float:
        """A number or unit string in the SI `unit`; BadInput unless it is positive and finite."""
        try:
            value = quantity(data, unit)
        except BadInput as error:
            raise BadInput(f"{self.file}: {path}: {error}") from None
        if not 0 < value < math.inf:
            raise BadInput(
                f"{self.file}: {path} is {quoted(data)}; it must be more than zero (an optional key"
                " may be left out)"
            )
        if not LEAST <= value <= MOST:
            raise BadInput(
                f"{self.file}: {path} is {quoted(data)}; wanted a number from {LEAST:g} to"
                f" {MOST:g} in SI units"
            )
        return value


def _example(hint: Any, key: str) -> str:
    """What to add to a file that lacks a required key."""
    if members(hint) is not None:
        return f"add a table [{key}]"
    unit = unit_of(hint)
    if unit is not None:
        return f"add for example {key} = {written(unit)}"
    return f'add {key} = "..."'
