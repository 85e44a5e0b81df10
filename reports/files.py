"""Output files: checked before the work is done, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from roofcast.hwdb.contents import replacing
from roofcast.hwdb.errors import BadInput, quoted

__all__ = ["PICTURES", "check_target", "replacing"]
PICTURES = (".png", ".svg", ".pdf")


def check_target(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """The path of a file to be written, checked before the work is done.

    suffixes: those allowed; empty for any. Raises BadInput if the file could not be written there.
    """
    if not str(path).strip():
        suffix = f" that ends in {suffixes[0]}" if suffixes else ""
        raise BadInput(f"the output file has no name; give one{suffix}")
    target = Path(path).expanduser()
    if os.path.isdir(target):
        raise BadInput(f"{path}: is a directory; give the name of a file in it")
    if os.path.exists(target) and not os.path.isfile(target):
        raise BadInput(f"{path}: is a device or a pipe; give the name of a file")
    if suffixes and target.suffix.lower() not in suffixes:
        found = f"{quoted(target.suffix)}" if target.suffix else "no suffix"
        raise BadInput(f"{path}: cannot write {found}; use {' or '.join(suffixes)}")
    if not os.path.isdir(target.parent):
        raise BadInput(
            f"{path}: there is no directory {quoted(str(target.parent))}; create it first"
        )
    if not os.access(target.parent, os.W_OK):
        raise BadInput(f"{path}: directory {quoted(str(target.parent))} is not writable")
    return target
