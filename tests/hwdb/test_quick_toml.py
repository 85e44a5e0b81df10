"""The quick reader of TOML: what it gives is what tomllib gives."""

import random
import tomllib
from pathlib import Path

from roofcast.hwdb.constants import HERE
from roofcast.hwdb.quick_toml import quick

TEXTS = {
    path: path.read_text(encoding="utf-8")
    for folder in (HERE, HERE.parent / "simulator", HERE.parent / "scenarios")
    for path in sorted(folder.resolve().glob("**/*.toml"))
}
TRICKY = (
    "a = 1\na = 2", '"a" = 1\na = 2', "[a]\n[a]", "[a.b]\n[a]", "[x]\na = {b = 1}\n[x.a.c]\nd = 1",
    "a = []\n[[a]]", "[[a]]\n[a.b]\nc = 1", "[a]\nb = 1\n[[a]]", "a = {b = 1,}",
    "a = {b = 1, b = 2}",
    "a = [1,]", "a = [,]", "a = [\n1\n2\n]", "a = [\n1,\n2 # two\n]\nb = 3", "a = [", "a = 00",
    "a = 1__0", "a = 1_0", "a = -0", "a = .5", "a = 5.", "a = 1e5", "a = inf", "a = 0x1f",
    "a = tru",
    'a = "b" c', 'a = "b\\"', 'a = "b#c" # d', "a = 'b'", "a.b = 1", "a = 1979-05-27",
    "a = 1\r\nb = 2",
    "a = 1 # \x01", '[a."b.c"]\nd = 1', "a\u2028= 1", "= 1", "a =", "[]", "[a", "a = {}", "a = []",
)  # fmt: skip


def read(text):
    """The tree as tomllib gives it, with the types of all values; None where it refuses."""
    try:
        return typed(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return None


def typed(value):
    if isinstance(value, dict):
        return [(key, typed(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return list(map(typed, value))
    return type(value).__name__, repr(value)


def test_our_files_are_read_as_tomllib_reads_them_and_most_are_read_quickly():
    found = {path: quick(text) for path, text in TEXTS.items()}
    quickly = {path: tree for path, tree in found.items() if tree is not None}
    assert len(quickly) > 0.9 * len(TEXTS)
    assert Path(HERE / "kernels.toml").resolve() in quickly
    some = [*quickly][::7]
    wrong = [str(path) for path in some if typed(quickly[path]) != read(TEXTS[path])]
    assert not wrong


def test_what_is_wrong_or_unusual_is_left_to_tomllib():
    chosen = random.Random(1)
    pieces = list(TRICKY)
    for text in chosen.sample(sorted(TEXTS.values()), 150):
        lines = text.split("\n")
        first = chosen.randrange(len(lines))
        piece = list("\n".join(lines[first : first + chosen.choice((1, 3, 8))]))
        for _ in range(chosen.choice((1, 2)) if piece else 0):
            place = chosen.randrange(len(piece))
            piece[place] = chosen.choice(
                ("", *"[]{}=,.\"#\n _-+09eEx\\'\t\r\x01é", piece[place] * 2)
            )
        pieces.append("".join(piece))
    for piece in pieces:
        tree = quick(piece)
        assert tree is None or typed(tree) == read(piece), piece
