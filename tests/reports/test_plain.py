"""Pages without rich: the text is the one that rich writes."""

import random

from roofcast.reports.coloured import styled
from roofcast.reports.parts import Console, Table
from roofcast.reports.plain import written

LETTERS = "ab-/_.%µ×—…█ü"


def words(chosen, most):
    """Up to so many words of all lengths, with more spaces and lines than usual."""
    count = chosen.randrange(most + 1)
    made = ("".join(chosen.choices(LETTERS, k=chosen.choice((1, 3, 8, 20)))) for _ in range(count))
    return chosen.choice((" ", " ", "  ", "\n")).join(made) + chosen.choice(("", "", " "))


def page(chosen):
    """A line and a table on a page of some width."""
    out = Console(chosen.choice((20, 40, 60, 80, 100)))
    out.print(words(chosen, 4), "bold")
    kinds = chosen.choices(("left", "right", "fold"), k=chosen.choice((1, 2, 3, 5)))
    table = Table(*((words(chosen, 1), kind) for kind in kinds))
    for _ in range(chosen.choice((0, 1, 3))):
        table.add_row(*(words(chosen, 6) for _ in kinds), style=chosen.choice(("", "dim")))
    table.show_header = chosen.random() < 0.8
    table.wide = out.width - 2 if chosen.random() < 0.2 else None
    out.print(table, indent=chosen.choice((0, 2)))
    return out


def test_plain_pages_are_those_of_rich():
    chosen = random.Random(1)
    plain = 0
    for _ in range(400):
        out = page(chosen)
        text = written(out)
        if text is not None:
            plain += 1
            both = ([line.rstrip() for line in t.splitlines()] for t in (text, styled(out, False)))
            assert next(both) == next(both)
    assert plain > 100


def test_unusual_characters_are_left_to_rich():
    for text in ("漢字", "a\x1b[31m", "a\tb", "x" * 90, "e\u0301", "soft\u00adhyphen"):
        out = Console(80)
        out.print(text)
        assert written(out) is None, text
