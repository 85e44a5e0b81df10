"""Damage to a file as text or bytes, whatever is in it, and to the cells of a table."""

from __future__ import annotations

import csv
import io
from random import Random

from fuzzing import hostile
from fuzzing.hostile import Raw


def damaged(random: Random, data: bytes) -> bytes:
    """The bytes with one damage that knows nothing of the format."""
    n = len(data)
    at = random.randrange(n + 1)
    kind = random.randrange(12)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return b"\xef\xbb\xbf" + data
    if kind == 2:
        return data.replace(b"\n", random.choice((b"\r\n", b"\r")))
    if kind == 3:
        return data[:at] + random.choice((b"\xff", b"\xc3", b"\x00", b"\xed\xa0\x80")) + data[at:]
    if kind == 4:
        return data.decode("utf-8", "replace").encode(
            random.choice(("utf-16", "utf-32", "utf-16-le"))
        )
    if kind == 5:
        return data[:at] + random.randbytes(random.choice((1, 8, 200))) + data[at:]
    if kind == 6:
        return random.choice(
            (b"", b"\n", b" ", b"\xef\xbb\xbf", b"null", b"[]", b"{}", b"1", b'"x"')
        )
    if kind == 7:
        other = random.randrange(n + 1)
        return data[: min(at, other)] + data[max(at, other) :]
    if kind == 8:
        return data + data
    if kind == 9:
        lines = data.splitlines(keepends=True)
        random.shuffle(lines)
        return b"".join(lines)
    if kind == 10:
        return data[:at] + b"[" * random.choice((50, 5000, 100_000)) + data[at:]
    flipped = bytearray(data)
    for _ in range(random.choice((1, 3, 20))):
        if flipped:
            flipped[random.randrange(len(flipped))] = random.randrange(256)
    return bytes(flipped)


def cells(random: Random, text: str) -> str:
    """A CSV with damaged cells, columns or rows. Comment lines stay."""
    comments = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    for _ in range(random.choice((1, 1, 2, 4))):
        if len(rows) < 2 or not rows[0]:
            break
        row = random.randrange(0 if random.random() < 0.1 else 1, len(rows))
        column = random.randrange(len(rows[0]))
        kind = random.randrange(10)
        if kind < 7:
            if column < len(rows[row]):
                rows[row][column] = _cell(random, rows[row][column])
        elif kind == 7:
            rows[row] = rows[row][:column]
        elif kind == 8:
            rows[row] += ["more"] * random.choice((1, 50))
        else:
            for each in rows:
                del each[column : column + 1]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return "".join(comments) + out.getvalue()


def _cell(random: Random, old: str) -> str:
    kind = random.randrange(4)
    if kind == 0:
        found = random.choice(hostile.NUMBERS)
        return found.text if isinstance(found, Raw) else str(found)
    if kind == 1:
        return random.choice(hostile.TEXTS)
    if kind == 2:
        return random.choice(
            ("", old * 2, f"-{old}", f"{old}.5", f"{old}e12", "inf", "nan", "-inf", "0")
        )
    try:
        return str(hostile.near(random, float(old) if "." in old else int(old)))
    except (ValueError, OverflowError):
        return str(hostile.near(random, old))
