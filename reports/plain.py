"""Pages as plain text, laid out as rich does it, in a hundredth of its time to start.

Only where that is simple: every character takes one column, text fits, and columns that wrap make
tables narrow enough. Elsewhere rich writes the page (reports/coloured.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from roofcast.reports.parts import Console, Table, Text

GAP = 2  # columns between those of a table
# characters of one column: of Latin alphabets without the soft hyphen, dashes, the ellipsis, bars
_SIMPLE = re.compile("[\n -~\u00a0-\u00ac\u00ae-\u017f\u2013\u2014\u2026\u2580-\u2593]*")
_WORD = re.compile(r"\s*\S+\s*")


def written(out: Console) -> str | None:
    """What was printed, as text; None where that is not simple."""
    found: list[str] = []
    for what, indent in out.printed:
        width = out.width - indent
        lines = _text(what, width) if isinstance(what, Text) else _table(what, width)
        if lines is None:
            return None
        found += (" " * indent + line for line in lines)
    return "".join(line + "\n" for line in found)


def _text(what: Text, width: int) -> list[str] | None:
    """Lines that fit."""
    lines = what.plain.split("\n")
    if max(map(len, lines)) > width or not _SIMPLE.fullmatch(what.plain):
        return None
    return lines


def _table(table: Table, width: int) -> list[str] | None:
    """A header and rows: cells of several lines begin at the top, headers end at the bottom."""
    heads = [header for header, _ in table.columns]
    rows = [heads] if table.show_header else []
    rows += ([cell.plain for cell in cells] for cells, _ in table.rows)
    uneven = any(len(row) != len(heads) for row in rows)
    if (
        not heads
        or not rows
        or uneven
        or not all(_SIMPLE.fullmatch(cell) for row in rows for cell in row)
    ):
        return None
    cells = [[cell.split("\n") for cell in row] for row in rows]
    natural = [max(len(line) for row in cells for line in row[i]) for i in range(len(heads))]
    folds = [kind == "fold" for _, kind in table.columns]
    widths = (
        _narrowed(natural, folds, width) if table.wide is None else _widened(natural, table.wide)
    )
    if widths is None or (table.wide or 0) > width:
        return None
    found: list[str] = []
    for number, row in enumerate(cells):
        folded = [
            [part for line in lines for part in _wrapped(line, most)] if kind == "fold" else lines
            for lines, most, (_, kind) in zip(row, widths, table.columns, strict=True)
        ]
        height = max(map(len, folded))
        for i, lines in enumerate(folded):
            blank = [""] * (height - len(lines))
            folded[i] = blank + lines if table.show_header and number == 0 else lines + blank
        for k in range(height):
            padded = (
                lines[k].rstrip().rjust(most) if kind == "right" else lines[k].ljust(most)
                for lines, most, (_, kind) in zip(folded, widths, table.columns, strict=True)
            )  # fmt: skip
            found.append((" " * GAP).join(padded))
    return found


def _narrowed(natural: Sequence[int], folds: Sequence[bool], width: int) -> list[int] | None:
    """Widths of the columns: those that fold are cut, the widest first, until the table fits; None
    where that is not enough.
    """
    gaps = [GAP] * (len(natural) - 1) + [0]
    widths = [min(n + gap, width) or 1 for n, gap in zip(natural, gaps, strict=True)]
    while (excess := sum(widths) - width) > 0:
        wide = [w for w, fold in zip(widths, folds, strict=True) if fold]
        most = max(wide, default=0)
        next_most = max((w for w in wide if w != most), default=0)
        widest = [fold and w == most for w, fold in zip(widths, folds, strict=True)]
        if most == next_most or not any(widest):
            return None
        left, count = excess, sum(widest)
        for i, cut in enumerate(widest):
            if cut:  # as rich deals what is too much
                less = min(min(excess, most - next_most), round(left / count))
                widths[i] -= less
                left, count = left - less, count - 1
    content = [w - gap for w, gap in zip(widths, gaps, strict=True)]
    lost = (
        c < n and not (fold and c > 0) for n, c, fold in zip(natural, content, folds, strict=True)
    )
    return None if any(lost) else content


def _widened(natural: Sequence[int], width: int) -> list[int] | None:
    """Widths of the columns, of which the first takes what the others leave; None where that is
    too little.
    """
    first = width - sum(natural[1:]) - GAP * (len(natural) - 1)
    return [first, *natural[1:]] if first >= natural[0] and min(natural[1:], default=1) else None


def _wrapped(line: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken at spaces; longer words within."""
    breaks, filled = [0], 0
    for found in _WORD.finditer(line):
        start, word = found.start(), found[0]
        length = len(word.rstrip())
        if width - filled >= length:
            filled += len(word)
        elif length > width:
            pieces = [word[i : i + width] for i in range(0, len(word), width)]
            for piece in pieces:
                if start:
                    breaks.append(start)
                start += len(piece)
            filled = len(pieces[-1])
        elif filled and start:
            breaks.append(start)
            filled = len(word)
    ends = [*breaks[1:], len(line)]
    return [line[a:b][:width] for a, b in zip(breaks, ends, strict=True)]
