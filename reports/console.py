"""Where text goes: as wide as the terminal (80 columns where there is none), coloured only where a
person looks.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# between a number and its unit: no line ends there
_JOINED = re.compile(r"(?<=\d) (?=%|[A-Za-zµ]{1,3}\b)")


@contextmanager
def page() -> Iterator[Console]:
    """A console that prints words as they are (no markup, no colouring of numbers); shown on stdout
    when the block ends.
    """
    out = Console(highlight=False, markup=False, emoji=False)
    with out.capture() as captured:
        yield out
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def say(out: Console, words: str, indent: int = 2, first: str = "", style: str = "") -> None:
    """Words as an indented paragraph, as wide as the console; `first` leads its first line."""
    lead = " " * indent
    words = _JOINED.sub("\N{NO-BREAK SPACE}", words)
    for line in textwrap.wrap(
        words,
        out.width,
        initial_indent=lead + first,
        subsequent_indent=lead + " " * len(first),
        break_on_hyphens=False,
    ):
        out.print(Text(line.replace("\N{NO-BREAK SPACE}", " "), style=style))


def section(out: Console, title: str) -> None:
    """A heading, after an empty line."""
    out.print()
    out.print(Text(title, style="bold"))


def show(out: Console, what: RenderableType) -> None:
    """A table, indented."""
    out.print(Padding(what, (0, 0, 0, 2)))


def plain_table(*columns: tuple[str, str]) -> Table:
    """A table without lines. Each column: its header, and left, right or fold (left, the one that
    gives way where room is short).
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header, justify in columns:
        if justify == "fold":
            table.add_column(header, justify="left", overflow="fold")
        else:
            table.add_column(header, justify=justify, no_wrap=True, overflow="ellipsis")
    return table
