"""Strict reading of TOML and JSON: a table into a frozen record, or a one-line error.

The error names file and key, what was found, and what would be accepted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import tomli

from roofcast.hwdb.contents import text
from roofcast.hwdb.errors import QUOTED, BadInput, listed, quoted, shortened, unknown

DEEPEST = 64  # levels of lists and tables within one another
_TOO_DEEP = f"lists or tables are nested deeper than {DEEPEST} levels"
_TOO_LONG = "a number has thousands of digits"
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
    written = text(path, what)
    try:
        tree = tomli.loads(written)
    except tomli.TOMLDecodeError as error:
        why = shortened(str(error), 2 * QUOTED)
        raise BadInput(f"{path}: is not valid TOML, or is cut off: {why}") from None
    except RecursionError:
        raise BadInput(f"{path}: {_TOO_DEEP}; wanted {what}") from None
    except ValueError:  # of an integer of more digits than Python converts
        raise BadInput(f"{path}: {_TOO_LONG}; wanted {what}") from None
    _check_depth(path, tree, what)
    return tree


def load_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file; errors as `load`, and for a key that is there twice."""
    written = text(path, what)
    try:
        tree = json.loads(written, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}: not valid JSON at line {error.lineno} ({error.msg}); is the file cut off?"
        ) from None
    except RecursionError:
        raise BadInput(f"{path}: {_TOO_DEEP}; wanted {what}") from None
    except _Twice as error:
        raise BadInput(f"{path}: key {error} is there twice; keep one") from None
    except ValueError:
        raise BadInput(f"{path}: {_TOO_LONG}; wanted {what}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: expected a JSON object, found a {type(tree).__name__}")
    _check_depth(path, tree, what)
    return tree


class _Twice(Exception):
    """A key that a JSON object has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((first, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _Twice(quoted(first))
    return found


def _check_depth(path: Path, tree: dict[str, Any], what: str) -> None:
    """Refuse lists and tables nested deeper than DEEPEST. Without recursion: dotted keys of TOML
    nest as deep as they are long.
    """
    level: list[Any] = [tree]
    for _ in range(DEEPEST):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise BadInput(f"{path}: {_TOO_DEEP}; wanted {what}")


def checked(cls: type[Record], raw: dict[str, Any], where: str) -> Record:
    """The record of type `cls` that `raw` holds: known keys only, none missing, right types.

    where: file, and place in it, that start the message of the BadInput or UnknownName.
    """
    known = cls.__struct_encode_fields__
    for key in raw:
        if key not in known:
            listing = f"keys here: {listed(known)}" if known else "no key is allowed here"
            raise BadInput(f"{where}: {unknown('key', key, known, listing)}")
    try:
        return msgspec.convert(raw, cls)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {_plain(str(error), raw, cls)}") from None


def _plain(message: str, raw: dict[str, Any], cls: type[msgspec.Struct] = msgspec.Struct) -> str:
    """msgspec's message in our order: the key, what was found, what would be accepted.

    >>> _plain("Expected `int` >= 1 - at `$.stride`", {"stride": 0})
    'stride is 0; wanted a whole number >= 1'
    """
    missing = re.fullmatch(r"Object missing required field `(.+?)`.*", message)
    if missing:
        return f"{missing[1]} is missing; add it"
    message, _, path = message.partition(" - at ")
    path = path.strip("`").removeprefix("$.")
    found = quoted(_found(raw, path))
    expected = re.fullmatch(r"Expected `(.+?)`( [<>]=? \S+)?(?:, got .*)?", message)
    if not expected:
        choices = _choices(get_type_hints(cls).get(path))
        if not choices:
            return f"{shortened(path)} is {found}: {message}"
        return f"{shortened(path)} is {found}; wanted {' or '.join(choices)}"
    words = [WORDS.get(word, word) for word in expected[1].split(" | ") if word != "null"]
    return f"{shortened(path)} is {found}; wanted {' or '.join(words)}{expected[2] or ''}"


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
