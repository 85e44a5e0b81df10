"""What is finished of a sweep, kept in a file beside its table, so that an interrupted sweep
continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.choose.sweep import Chunk, Rows, Runner

SUFFIX = ".part"


def path_of(table: str | Path) -> Path:
    """The file beside a table."""
    return Path(f"{table}{SUFFIX}")


def signature(todo: Sequence[Chunk], version: str) -> str:
    """What tells one sweep from another: its scenario, axes, points, and the version."""
    first = todo[0]
    asked = [
        version, msgspec.to_builtins(first.scenario, enc_hook=str), first.axes,
        len(todo), len(first.points), todo[-1].points[-1],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()


def finished(path: Path, mark: str) -> dict[int, Rows]:
    """The rows of the finished chunks. Raises BadInput where the file is of another sweep.

    A last line that was cut off when the sweep was interrupted is left out.
    """
    if not path.exists():
        return {}
    found: dict[int, Rows] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        if next(lines, "").strip() != mark:
            raise BadInput(
                f"{path}: holds what was finished of another sweep; delete it, or give another -o"
            )
        for line in lines:
            try:
                entry: Any = json.loads(line)
            except ValueError:
                break
            found[entry["chunk"]] = entry["rows"]
    return found


def keeping(run: Runner, path: Path, mark: str) -> Runner:
    """The runner, with every finished chunk appended to the file at once."""

    def kept(todo: Sequence[Chunk]) -> Iterator[tuple[int, Rows]]:
        before = finished(path, mark)  # written whole: without a line that was cut off
        with path.open("w", encoding="utf-8") as out:
            out.write(mark + "\n")
            for number, rows in before.items():
                out.write(json.dumps({"chunk": number, "rows": rows}) + "\n")
            out.flush()
            yield from before.items()
            for number, rows in run([chunk for chunk in todo if chunk.number not in before]):
                out.write(json.dumps({"chunk": number, "rows": rows}) + "\n")
                out.flush()
                yield number, rows

    return kept
