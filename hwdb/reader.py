"""Hardware files: a TOML table and a record type in, a frozen record out, or one line that says
what is wrong.

What a key means is written once, in `hwdb.records`: its annotations are walked here, since a number
of a hardware file is a Figure, which has a unit and cites a source. `hwdb.strict` reads files of
plain values.
"""

import math
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from roofcast.hwdb import strict
from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.figure import STATUSES, Figure, Table, table
from roofcast.hwdb.units import quantity

OWN = "own file"
"""Source of a number that a user's file gives without one."""

FIGURE_KEYS = ("value", "source", "status", "where")
NOT_IN_FILES = ("id", "edits")


def load(path: Path) -> dict[str, Any]:
    """The hardware file as a dict; whatever is wrong with it is one line."""
    return strict.load(path, "a hardware file or a shipped name, listed by roofcast devices")


@cache
def keys(cls: type[Struct]) -> dict[str, tuple[Any, bool]]:
    """What a file may say in a table of type `cls`: key -> (annotated type without None,
    required).
    """
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
    """The unit of an annotated Figure; None for anything else."""
    args = get_args(hint)
    return args[1] if args and args[0] is Figure else None


def members(hint: Any) -> type[Struct] | None:
    """The record whose keys the table may hold; None where `hint` is not a table of known keys."""
    args = get_args(hint)
    if args and args[0] is Table and args[1] is not str:
        return args[1]
    return hint if isinstance(hint, type) and issubclass(hint, Struct) else None


def read(cls: type[Struct], data: Mapping[str, Any], file: str, identity: str, **extra: Any) -> Any:
    """The record of type `cls` that the parsed file holds. `file` is for messages, `extra` for what
    no file says.
    """
    sources = data.get("sources", {})
    if not isinstance(sources, Mapping) or not all(
        isinstance(text, str) for text in sources.values()
    ):
        raise BadInput(
            f'{file}: [sources] maps short keys to citations; write key = "who, what, when"'
        )
    return _Reader(file, sources).struct(cls, data, "", id=identity, **extra)


class _Reader:
    """One file being read: its name for messages, and the sources its numbers may cite."""

    def __init__(self, file: str, sources: Mapping[str, str]):
        self.file, self.sources = file, sources

    def struct(self, cls: type[Struct], data: Any, path: str, **extra: Any) -> Struct:
        """The record of type `cls` that the table holds; BadInput as `pairs`."""
        return cls(**self.pairs(cls, data, path), **extra)

    def pairs(self, cls: type[Struct], data: Any, path: str) -> dict[str, Any]:
        """Values by key of the table at `path`; BadInput where it is no table or lacks a key,
        UnknownName where it has one too many.
        """
        if not isinstance(data, Mapping):
            raise BadInput(
                f"{self.file}: {path} is {data!r}; wanted a table with the keys"
                f" {', '.join(keys(cls))}"
            )
        known = keys(cls)
        for key in data:
            if key not in known:
                raise unknown(
                    "key",
                    f"{path}.{key}".lstrip("."),
                    [f"{path}.{name}".lstrip(".") for name in known],
                    f"{self.file} may hold here: {', '.join(known)}",
                )
        for key, (_, required) in known.items():
            if required and key not in data:
                raise BadInput(
                    f"{self.file}: {f'{path}.{key}'.lstrip('.')} is missing; a file must give it"
                )
        return {
            key: self.value(hint, data[key], f"{path}.{key}".lstrip("."))
            for key, (hint, _) in known.items()
            if key in data
        }

    def value(self, hint: Any, data: Any, path: str) -> Any:
        """What stands at `path`, as the annotation `hint` wants it: a figure, a record, a table, a
        tuple, a text or a whole number; else BadInput.
        """
        if (unit := unit_of(hint)) is not None:
            return self.figure(data, unit, path)
        if (cls := members(hint)) is not None:
            pairs = self.pairs(cls, data, path)
            return cls(**pairs) if hint is cls else table(pairs.items())
        if get_args(hint) and get_args(hint)[0] is Table:
            return Table(data)
        if get_origin(hint) is tuple:
            return self.items(get_args(hint)[0], data, path)
        if type(data) is not hint:
            raise BadInput(
                f"{self.file}: {path} is {data!r}; wanted"
                f" {'a text in quotes' if hint is str else 'a whole number'}"
            )
        return data

    def items(self, hint: Any, data: Any, path: str) -> tuple:
        """A list whose items are each as `hint` wants them; BadInput where it is no list."""
        if not isinstance(data, list):
            raise BadInput(f"{self.file}: {path} is {data!r}; wanted a list in brackets")
        return tuple(
            self.value(hint, item, f"{path}[{number}]") for number, item in enumerate(data)
        )

    def figure(self, data: Any, unit: str, path: str) -> Figure:
        """A bare number or unit string, or {value, source, status, where}."""
        if not isinstance(data, Mapping):
            return Figure(self.number(data, unit, path), OWN, "given")
        for key in data:
            if key not in FIGURE_KEYS:
                raise unknown(
                    "key",
                    f"{path}.{key}",
                    FIGURE_KEYS,
                    f"a number in {self.file} has {', '.join(FIGURE_KEYS)}",
                )
        if "value" not in data:
            raise BadInput(
                f"{self.file}: {path} has no value; write {path} = {{value = ..., source = ...}} or"
                " a bare number"
            )
        source, status, where = (
            data.get("source", OWN),
            data.get("status", "given"),
            data.get("where", ""),
        )
        if source not in self.sources and source != OWN:
            raise BadInput(f"{self.file}: {path} cites {source!r}; [sources] has no such key")
        if status not in STATUSES:
            raise BadInput(
                f"{self.file}: {path} has status {status!r}; wanted one of {', '.join(STATUSES)}"
            )
        if not isinstance(where, str):
            raise BadInput(f"{self.file}: {path}.where is {where!r}; wanted a text in quotes")
        return Figure(self.number(data["value"], unit, path), source, status, where)

    def number(self, data: Any, unit: str, path: str) -> float:
        """A number or unit string in the bare SI of `unit`; BadInput where it is neither, or not
        between zero and infinity.
        """
        try:
            value = quantity(data, unit)
        except BadInput as error:
            raise BadInput(f"{self.file}: {path}: {error}") from None
        if not 0 < value < math.inf:
            raise BadInput(
                f"{self.file}: {path} is {data!r}; it must be more than zero, and left out where"
                " unknown"
            )
        return value
