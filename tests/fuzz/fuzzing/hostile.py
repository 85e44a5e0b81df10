"""Values that a program meets once a year: extremes, other types, and text that hides something."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

MARK = "q"
"""Long hostile texts are runs of this letter, so that a judge sees how much a message quotes."""


class Raw(NamedTuple):
    """A literal that is written as it is: what no Python value would be written as."""

    text: str


NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, -(10**9), 10**6, 10**9, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63,
    10**12, 10**15, 10**18, 10**30, 0.0, -0.0, 0.5, -0.5, 1.125, 1.0001, 2.5, 1e-30, 1e-320, 1e30,
    1e300, Raw("nan"), Raw("inf"), Raw("-inf"), Raw("1e400"), Raw("9" * 5000),
    Raw("-" + "9" * 5000),
    Raw("0x7fffffffffffffff"), Raw("1e-400"), Raw("1" + "0" * 400), Raw("0.1" + "3" * 5000),
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", "0", "-1", "1e400", "nan", "inf", "true", "null", "None", "x2", "+20%", "-100%", "*0",
    "8 TB/s", "80 GB", "3 kg", "1e999 TB/s", "-3 W", "1 / 0 s", "2**9**9", "9**9**9 B", "5 s s s",
    "1 µs", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "a\tb", "a\nb\r\nc", "\u202eabc",
    "a\u2028b", "\x00", "a\x7fb", "é中文🙂", "\ufeffname", "..", "../../etc/passwd", "/dev/zero",
    "/dev/null", "/dev/full", "/", "~", "%s%n{0}", "[bold]x[/bold]", "$(id)", "`id`", "\\", "'",
    '"', "CON", "." * 300, MARK * 81, MARK * 5000, MARK * 200_000, "a/" * 3000, "NaN", "9" * 5000,
)  # fmt: skip


def value(random: Random) -> Any:
    """Any hostile value: a number, a text, another type, or a deep nest."""
    kind = random.randrange(10)
    if kind < 4:
        return random.choice(NUMBERS)
    if kind < 7:
        return random.choice(TEXTS)
    if kind == 7:
        return random.choice((True, False, None))
    if kind == 8:
        return random.choice(([], {}, [[]], {"a": {}}, ["x"], [1, 2], {"value": 1, "source": []}))
    return deep(random)


def deep(random: Random) -> Any:
    """Lists or tables within one another."""
    depth = random.choice((5, 40, 500, 5000, 100_000))
    open_, close = random.choice(("[]", ("{a=", "}"), ('{"a":', "}")))
    return Raw(open_ * depth + "1" + close * depth)


def near(random: Random, old: Any) -> Any:
    """A number not far from one that was there: what slips through checks of types."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return random.choice(
            (
                old + 1,
                old - 1,
                -old,
                old * 2,
                old // 2,
                old * 1000,
                old * 10**6,
                float(old),
                0,
                str(old),
            )
        )
    if isinstance(old, float):
        return random.choice(
            (-old, old * 1e3, old * 1e12, old * 1e-12, old + 1, 1 - old, 0, str(old))
        )
    if isinstance(old, str):
        return random.choice(
            (old + "x", old.upper(), old[:-1], old * 2, [old], old + "\x1b[1m", f" {old}")
        )
    return value(random)
