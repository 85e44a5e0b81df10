"""Damage to the structure of a file: trees of dicts, lists and scalars, and how they are written.

A dict may become a list of pairs (`Pairs`), whose keys may repeat.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from fuzzing import hostile
from fuzzing.hostile import Raw


class Pairs(list[tuple[str, Any]]):
    """Keys and values in order; a key may be there twice."""


def damaged(random: Random, tree: dict[str, Any], words: tuple[str, ...] = ()) -> Any:
    """The tree with one to three damages. words: keys that this kind of file knows."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = random.choice(places)
        damage = random.choice(DAMAGES)
        damage(random, holder, key, words)
        if damage is _repeat:  # a second one would multiply
            break
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key or index) of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, inner in pairs:
        yield tree, key
        if isinstance(inner, dict | list) and not isinstance(inner, Pairs):
            yield from _places(inner)


def _delete(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    del holder[key]


def _swap(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    holder[key] = hostile.value(random)


def _near(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    holder[key] = hostile.near(random, holder[key])


def _rename(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    """A key gets another name: one that is known elsewhere, or a hostile text."""
    if isinstance(holder, dict):
        name = (
            random.choice(words)
            if words and random.random() < 0.5
            else random.choice(hostile.TEXTS)
        )
        holder[name] = holder.pop(key)


def _add(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    """One more key that the kind of file knows, or one more item."""
    if isinstance(holder, dict):
        name = random.choice(words) if words else "added"
        holder[name] = hostile.value(random)
    else:
        holder.insert(key, copy.deepcopy(holder[key]))


def _wrap(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    inner = holder[key]
    holder[key] = random.choice(([inner], {"value": inner}, {str(key): inner}, [inner, inner]))


def _twice(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    """A key of a table that is there twice."""
    inner = holder[key]
    if isinstance(inner, dict) and inner:
        holder[key] = Pairs([*inner.items(), random.choice(list(inner.items()))])
    elif isinstance(holder, dict):
        holder[Duplicate(str(key))] = copy.deepcopy(inner)


def _repeat(random: Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    """A list that is much longer."""
    if isinstance(holder[key], list):
        holder[key] = holder[key] * random.choice((2, 50, 2000))
    else:
        holder[key] = [holder[key]] * random.choice((1, 3, 5000))


class Duplicate(str):
    """A key that equals another one only when it is written."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


DAMAGES: tuple[Callable[..., None], ...] = (
    _delete, _swap, _swap, _swap, _near, _near, _near, _rename, _add, _add, _wrap, _twice, _repeat,
)  # fmt: skip


# ------------------------------------------------------------------ written
def to_json(tree: Any) -> str:
    """The tree as JSON, raw literals and repeated keys as they are."""
    if isinstance(tree, Raw):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(tree.text, tree.text)
    if isinstance(tree, Pairs | dict):
        pairs = tree if isinstance(tree, Pairs) else tree.items()
        return "{" + ", ".join(f"{json.dumps(str(k))}: {to_json(v)}" for k, v in pairs) + "}"
    if isinstance(tree, list | tuple):
        return "[" + ", ".join(map(to_json, tree)) + "]"
    return json.dumps(tree)


def to_toml(tree: Any, above: str = "") -> str:
    """The tree as TOML: tables as [a.b], lists of tables as [[a.b]]."""
    lines: list[str] = []
    later: list[str] = []
    for key, inner in tree.items() if isinstance(tree, dict) else tree:
        name = f"{above}{_key(str(key))}"
        if isinstance(inner, dict) and inner and len(name) < 200:
            later.append(f"[{name}]\n{to_toml(inner, name + '.')}")
        elif isinstance(inner, list) and inner and all(isinstance(i, dict) and i for i in inner):
            later += [f"[[{name}]]\n{to_toml(each, name + '.')}" for each in inner]
        else:
            lines.append(f"{_key(str(key))} = {_inline(inner)}")
    return "\n".join([*lines, *later]) + "\n"


def _key(key: str) -> str:
    plain = key and key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if plain else _string(key)


def _string(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f").replace("\\ud", "?")


def _inline(tree: Any) -> str:
    if isinstance(tree, Raw):
        return tree.text
    if isinstance(tree, bool):
        return str(tree).lower()
    if tree is None:
        return '""'
    if isinstance(tree, str):
        return _string(tree)
    if isinstance(tree, dict | Pairs):
        pairs = tree if isinstance(tree, Pairs) else tree.items()
        return "{" + ", ".join(f"{_key(str(k))} = {_inline(v)}" for k, v in pairs) + "}"
    if isinstance(tree, list | tuple):
        return "[" + ", ".join(map(_inline, tree)) + "]"
    return repr(tree)
