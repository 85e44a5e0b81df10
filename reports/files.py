"""Files out: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from roofcast.hwdb.errors import BadInput


def check_target(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """`path`, if a file of one of these suffixes could be put there; else BadInput. Asked before
    the work, not after it.
    """
    if not str(path).strip():
        raise BadInput(
            "the file to write has no name; give"
            f" one{f' that ends in {suffixes[0]}' if suffixes else ''}"
        )
    target = Path(path).expanduser()
    if target.is_dir():
        raise BadInput(f"{path}: is a directory; give the name of a file in it")
    if suffixes and target.suffix.lower() not in suffixes:
        found = f"{target.suffix!r}" if target.suffix else "no suffix"
        raise BadInput(f"{path}: cannot write {found}; let its name end in {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise BadInput(f"{path}: there is no directory {str(target.parent)!r}; make it first")
    if not os.access(target.parent, os.W_OK):
        raise BadInput(
            f"{path}: directory {str(target.parent)!r} cannot be written to; choose another"
        )
    return target


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` (same suffix); takes its place when the block ends well, else
    vanishes.

    The file at `path` is at every moment the old one or the whole new one.
    """
    target = Path(os.path.realpath(path))
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_mode(target))
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or of a new one under the user's umask."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
