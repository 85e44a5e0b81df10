"""Text on stdout: as wide as the terminal (80 columns if there is none), coloured only on one."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from roofcast.hwdb.errors import escaped
from roofcast.reports.parts import Console, Justify, Table, Text
from roofcast.reports.plain import written

# spaces at which no line is broken: before units and words for thousands, around a multiplication
# sign, after MFU and HFU, between a colon and a number
_JOINED = re.compile(
    r"(?<=\d) (?=%|[A-Za-zµ]{1,3}\b|[mbtr]+illion\b|×)|(?<=×) |(?<=\b[MH]FU) |(?<=:) (?=\d)"
)
WIDTH = 80  # columns where there is no terminal
NARROWEST = 20  # columns; a narrower terminal wraps the lines itself
_LEAST = 20  # columns that a folded column needs
_NO_BREAK = "\N{NO-BREAK SPACE}"


def tell(words: str) -> None:
    """Print one line to stdout, on a page of its own."""
    click.echo(escaped(words))


@contextmanager
def page() -> Iterator[Console]:
    """A console whose text is written to stdout when the block ends.

    Words are printed as they are: no markup, no colouring of numbers.
    """
    coloured = _coloured()
    if coloured:
        from roofcast.reports.coloured import styled, width

        out = Console(max(width(), NARROWEST))
        yield out
        text = styled(out)
    else:
        out = Console(max(_width(), NARROWEST))
        yield out
        text = as_text(out)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in text.splitlines()))


def as_text(out: Console) -> str:
    """What was printed, without colours."""
    found = written(out)
    if found is not None:
        return found
    from roofcast.reports.coloured import styled

    return styled(out, colours=False)


def _coloured() -> bool:
    """Whether rich writes the page: to a terminal, or where one of its settings asks for it."""
    asked = any(name in os.environ for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
    try:
        terminal = sys.stdout.isatty()
    except (AttributeError, ValueError):  # not a stream, or a closed one
        terminal = False
    return terminal or asked or "IPython" in sys.modules or sys.platform == "win32"


def _width() -> int:
    """Columns of the terminal that another stream is, or of the variable COLUMNS, as rich has it;
    WIDTH where there is neither.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit():
        return int(columns) or WIDTH
    for stream in filter(None, (sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        try:
            return os.get_terminal_size(stream.fileno()).columns or WIDTH
        except (AttributeError, ValueError, OSError):
            continue
    return WIDTH


def unbroken(words: str) -> str:
    """The words with spaces at which `say` does not break a line."""
    return words.replace(" ", _NO_BREAK)


def joined(words: str) -> str:
    """The words with no-break spaces between a number and its unit, and between MFU and its number.

    >>> joined("MFU 47 % of 80 GiB").replace(_NO_BREAK, "~")
    'MFU~47~% of 80~GiB'
    """
    return _JOINED.sub(_NO_BREAK, words)


def breakable(words: str) -> str:
    """The words with plain spaces again, after their lines are broken."""
    return words.replace(_NO_BREAK, " ")


def say(out: Console, words: str, indent: int = 2, first: str = "", style: str = "") -> None:
    """Print an indented paragraph, as wide as the console; `first` leads its first line."""
    lead = " " * indent
    lines = textwrap.wrap(
        joined(words),
        out.width,
        initial_indent=lead + first,
        subsequent_indent=lead + " " * len(first),
        break_on_hyphens=False,
    )
    for line in lines:
        out.print(Text(breakable(line), style=style))


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most `width` characters.

    Lines break at spaces; a word wider than the line after - / _ . or :, if there is one that fits.

    >>> wrapped("seen in ml-engineering-network", 16)
    'seen in\\nml-engineering-\\nnetwork'
    """
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if len(joined) <= width:
            lines[-1] = joined
            continue
        lines.append("")
        parts = [word] if len(word) <= width else re.findall(r"[^-/_.:]*[-/_.:]|[^-/_.:]+", word)
        for part in parts:
            if len(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line for line in lines if line)


def section(out: Console, title: str) -> None:
    """Print a heading, after an empty line."""
    out.print()
    out.print(Text(title, style="bold"))


def show(out: Console, what: Table) -> None:
    """Print a table, indented."""
    out.print(what, indent=2)


def plain_table(*columns: tuple[str, Justify]) -> Table:
    """A table without rules. Each column: its header, and "left", "right" or "fold".

    A "fold" column is left-aligned and wraps where the terminal is narrow; others are cut.
    """
    return Table(*columns)


def fitting(
    width: int,
    columns: Sequence[tuple[str, Justify]],
    rows: Sequence[Sequence[str]],
    spare: Sequence[str] = (),
) -> list[int]:
    """Indices of the columns to print in `width` characters so that no cell is cut.

    Columns titled as in `spare` are left out, in that order, until the rest fits. A "fold" column
    needs at most 20 characters.

    >>> columns = [("device", "left"), ("year", "right"), ("price", "right")]
    >>> fitting(16, columns, [["h100-sxm5", "2022", "$2.95/h"]], spare=("price", "year"))
    [0, 1]
    """
    titles = [title for title, _ in columns]

    def needed(i: int) -> int:
        longest = max(len(line) for row in (titles, *rows) for line in row[i].split("\n"))
        return min(longest, _LEAST) if columns[i][1] == "fold" else longest

    kept = list(range(len(columns)))
    left = [titles.index(title) for title in spare]
    while left and sum(map(needed, kept)) + 2 * (len(kept) - 1) > width:
        kept.remove(left.pop(0))
    return kept


def fitted_table(
    width: int,
    columns: Sequence[tuple[str, Justify]],
    rows: Sequence[Sequence[str]],
    spare: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> Table:
    """A plain table of the columns that `fitting` keeps; `styles`: of the rows, if any."""
    kept = fitting(width, columns, rows, spare)
    table = plain_table(*(columns[i] for i in kept))
    for row, style in zip(rows, styles or [""] * len(rows), strict=True):
        table.add_row(*(Text(row[i]) for i in kept), style=style)
    return table
