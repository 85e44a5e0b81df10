"""Pages written by rich: with colours, and where plain text is not simple."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from roofcast.hwdb.errors import escaped
from roofcast.reports.parts import Console, rich_of

WIDTH = 80  # columns where there is no terminal


class _Page(RichConsole):
    """A console on which no name can act upon the terminal: control characters are escaped."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of what is printed, or of a part of it such as the cell of a table."""
        if isinstance(renderable, str):
            renderable = escaped(renderable, keep="\n")
        elif isinstance(renderable, Text) and (plain := escaped(renderable.plain, keep="\n")):
            if plain != renderable.plain:
                renderable = Text(plain, style=renderable.style)
        return super().render(renderable, options)


def width() -> int:
    """Columns of the terminal, as rich finds them."""
    return _Page().width or WIDTH


def styled(out: Console, colours: bool = True) -> str:
    """What was printed, with colours where the terminal shows them."""
    file = None if colours else io.StringIO()
    paper = _Page(highlight=False, markup=False, emoji=False, file=file)
    paper.width = out.width
    with paper.capture() as captured:
        for what, indent in out.printed:
            made = rich_of(what)
            paper.print(Padding(made, (0, 0, 0, indent)) if indent else made)
    return captured.get()
