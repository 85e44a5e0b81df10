"""Output files, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from roofcast.hwdb.errors import BadInput


def check_target(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """The path of a file to be written, checked before the work is done.

    suffixes: those allowed; empty for any. Raises BadInput if the file could not be written there.
    """
    if not str(path).strip():
        suffix = f" that ends in {suffixes[0]}" if suffixes else ""
        raise BadInput(f"the output file has no name; give one{suffix}")
    target = Path(path).expanduser()
    if target.is_dir():
        raise BadInput(f"{path}: is a directory; give the name of a file in it")
    if suffixes and target.suffix.lower() not in suffixes:
        found = f"{target.suffix!r}" if target.suffix else "no suffix"
        raise BadInput(f"{path}: cannot write {found}; use {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise BadInput(f"{path}: there is no directory {str(target.parent)!r}; create it first")
    if not os.access(target.parent, os.W_OK):
        raise BadInput(f"{path}: directory {str(target.parent)!r} is not writable")
    return target


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix, that replaces it when the block ends.

    If the block raises, the temporary file is deleted. At any time the file at `path` is the old
    one or the complete new one. Raises BadInput if the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_mode(target))
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written ({error.strerror or error})") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mode(target: Path) -> int:
    """Permissions of the file to replace, or those that the umask gives a new one."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
