"""Strict reading of TOML: a table into a frozen record, or a one-line error.

The error names file and key, what was found, and what would be accepted.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from roofcast.hwdb.errors import BadInput, unknown

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
Record = TypeVar("Record", bound=msgspec.Struct)


def load(path: Path, what: str) -> dict[str, Any]:
    """The TOML file as a dict; BadInput where it cannot be read or parsed.

    what: what the file should hold, for the message.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; wanted {what}") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a directory; wanted {what}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not text in UTF-8; wanted {what}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: is not valid TOML, or is cut off: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        why = getattr(error, "strerror", error)
        raise BadInput(
            f"{str(path)!r} cannot be read: {why}; check the path and its permissions"
        ) from None


def checked(cls: type[Record], raw: dict[str, Any], where: str) -> Record:
    """The record of type `cls` that `raw` holds: known keys only, none missing, right types.

    where: file, and place in it, that start the message of the BadInput or UnknownName.
    """
    known = cls.__struct_encode_fields__
    for key in raw:
        if key not in known:
            listing = f"keys here: {', '.join(known)}" if known else "no key is allowed here"
            raise BadInput(f"{where}: {unknown('key', key, known, listing)}")
    try:
        return msgspec.convert(raw, cls)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {_plain(str(error), raw, cls)}") from None


def _plain(text: str, raw: dict[str, Any], cls: type[msgspec.Struct] = msgspec.Struct) -> str:
    """msgspec's message in our order: the key, what was found, what would be accepted.

    >>> _plain("Expected `int` >= 1 - at `$.stride`", {"stride": 0})
    'stride is 0; wanted a whole number >= 1'
    """
    missing = re.fullmatch(r"Object missing required field `(.+?)`.*", text)
    if missing:
        return f"{missing[1]} is missing; add it"
    message, _, path = text.partition(" - at ")
    path = path.strip("`").removeprefix("$.")
    found = repr(_found(raw, path))
    expected = re.fullmatch(r"Expected `(.+?)`( [<>]=? \S+)?(?:, got .*)?", message)
    if not expected:
        choices = _choices(get_type_hints(cls).get(path))
        return f"{path} is {found}; wanted {' or '.join(choices)}"
    words = [WORDS.get(word, word) for word in expected[1].split(" | ") if word != "null"]
    return f"{path} is {found}; wanted {' or '.join(words)}{expected[2] or ''}"


def _choices(hint: Any) -> list[str]:
    """The strings that a key may hold: every Literal within its annotation."""
    if get_origin(hint) is Literal:
        return [repr(choice) for choice in get_args(hint)]
    return [choice for part in get_args(hint) for choice in _choices(part)]


def _found(raw: Any, path: str) -> Any:
    """The value at a path like `kernel[1]`."""
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(raw, list):
            raw = raw[int(step)]
        elif isinstance(raw, dict) and step in raw:
            raw = raw[step]
        else:
            break
    return raw
