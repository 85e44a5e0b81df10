"""Strict reading of TOML: a table into a frozen record, or one line that says where, which key,
what was found and what would do.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from roofcast.hwdb.errors import BadInput, unknown

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def load(path: Path, what: str) -> dict[str, Any]:
    """The TOML file as a dict. `what` the file should be, in TOML, is for the message."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; wanted {what}") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a directory; wanted {what}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not text; wanted {what}, TOML in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: is not TOML, or was cut off: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise BadInput(
            f"{str(path)!r} cannot be read: {getattr(error, 'strerror', error)}; check the path and"
            " its permissions"
        ) from None


def checked(cls: type[msgspec.Struct], raw: dict[str, Any], where: str) -> Any:
    """The record of type `cls` that `raw` holds: known keys only, none missing, right types.
    `where` starts the message.
    """
    known = cls.__struct_encode_fields__
    for key in raw:
        if key not in known:
            listing = f"keys here: {', '.join(known)}" if known else "it has no keys"
            raise BadInput(f"{where}: {unknown('key', key, known, listing)}")
    try:
        return msgspec.convert(raw, cls)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {_plain(str(error), raw, cls)}") from None


def _plain(text: str, raw: dict[str, Any], cls: type[msgspec.Struct] = msgspec.Struct) -> str:
    """msgspec's sentence as one of ours: the key first, then what was found, then what would do.

    >>> _plain("Expected `int` >= 1 - at `$.stride`", {"stride": 0})
    'stride is 0; wanted a whole number >= 1'
    """
    missing = re.fullmatch(r"Object missing required field `(.+?)`.*", text)
    if missing:
        return f"{missing[1]} is missing; it must be given"
    said, _, path = text.partition(" - at ")
    path = path.strip("`").removeprefix("$.")
    wanted = re.fullmatch(r"Expected `(.+?)`( [<>]=? \S+)?(?:, got .*)?", said)
    if not wanted:
        return (
            f"{path} is {_found(raw, path)!r}; wanted"
            f" {' or '.join(_choices(get_type_hints(cls).get(path)))}"
        )
    names = [WORDS.get(word, word) for word in wanted[1].split(" | ") if word != "null"]
    return f"{path} is {_found(raw, path)!r}; wanted {' or '.join(names)}{wanted[2] or ''}"


def _choices(hint: Any) -> list[str]:
    """The texts a key may hold, wherever they stand in its annotation."""
    if get_origin(hint) is Literal:
        return [repr(choice) for choice in get_args(hint)]
    return [choice for part in get_args(hint) for choice in _choices(part)]


def _found(raw: Any, path: str) -> Any:
    """What stands at a path like `kernel[1]`."""
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(raw, list):
            raw = raw[int(step)]
        elif isinstance(raw, dict) and step in raw:
            raw = raw[step]
        else:
            break
    return raw
