"""What pages print, before it is known whether a terminal shows colours: text, tables, a console.

A console keeps what is printed. reports/console.py writes it when the page ends: as plain text by
reports/plain.py, or with colours, and where names hold unusual characters, by rich.
"""

from __future__ import annotations

from typing import Any, Literal

Justify = Literal["left", "right", "fold"]


class Text:
    """Words in one style, or in several."""

    def __init__(self, plain: str, style: str = "") -> None:
        self.plain, self.style = plain, style
        self.parts: list[tuple[str, str]] = []
        """What was appended, each with its style."""

    def append(self, plain: str, style: str = "") -> None:
        """More words behind the others."""
        self.plain += plain
        self.parts.append((plain, style))


class Table:
    """A table without rules. Each column: its header, and "left", "right" or "fold".

    A "fold" column is left-aligned and wraps where the terminal is narrow; others are cut.
    """

    def __init__(self, *columns: tuple[str, Justify]) -> None:
        self.columns = columns
        self.rows: list[tuple[tuple[Text, ...], str]] = []
        """Cells and style of each row."""
        self.show_header = True
        self.wide: int | None = None
        """Columns of the whole table, where the first one takes what the others leave."""

    def add_row(self, *cells: str | Text, style: str | None = None) -> None:
        """A row below the others."""
        texts = tuple(Text(cell) if isinstance(cell, str) else cell for cell in cells)
        self.rows.append((texts, style or ""))


class Console:
    """What is printed, one thing after another, on so many columns."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.printed: list[tuple[Text | Table, int]] = []
        """With the columns that each is indented by."""

    def print(self, what: str | Text | Table = "", style: str = "", indent: int = 0) -> None:
        """Print text or a table; an empty line where there is nothing."""
        self.printed.append((Text(what, style) if isinstance(what, str) else what, indent))


def rich_of(what: Text | Table) -> Any:
    """The same for a console of rich."""
    if isinstance(what, Text):
        from rich.text import Text as RichText

        found = RichText(what.plain[: len(what.plain) - sum(len(part) for part, _ in what.parts)])
        found.style = what.style
        for part, style in what.parts:
            found.append(part, style=style or None)
        return found
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header, justify in what.columns:
        if justify == "fold":
            table.add_column(header, justify="left", overflow="fold")
        else:
            table.add_column(header, justify=justify, no_wrap=True, overflow="ellipsis")
    table.show_header, table.width = what.show_header, what.wide
    if what.wide is not None:
        table.columns[0].ratio = 1
    for cells, style in what.rows:
        table.add_row(*map(rich_of, cells), style=style)
    return table
