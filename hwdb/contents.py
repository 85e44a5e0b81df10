"""Files that a user names: read up to a size, and written whole or not at all.

Every text file that a command reads is read here: no device, pipe or endless file can hold it up.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from roofcast.hwdb.errors import BadInput, quoted

LARGEST = 4 * 2**20
"""Bytes of a text file that describes something: a config.json, a net, a device, a scenario."""
LARGEST_TABLE = 256 * 2**20
"""Bytes of a table of measurements, unpacked."""


def text(path: str | Path, what: str, most: int = LARGEST) -> str:
    """The text of a file in UTF-8, without a byte order mark; a .gz is unpacked.

    what: what the file should hold, for the message.  most: bytes it may have, unpacked.
    Raises BadInput where it is not there, not a regular file, too large, or not such text.
    """
    try:
        return content(path, what, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not text in UTF-8; wanted {what}") from None


def content(path: str | Path, what: str, most: int = LARGEST) -> bytes:
    """The bytes of a file; errors as `text`."""
    try:
        return _content(Path(path), what, most)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; wanted {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        why = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{quoted(str(path))} cannot be read: {why}; check the path and its permissions"
        ) from None


def _content(path: Path, what: str, most: int) -> bytes:
    # a pipe without a writer is opened, too, and then refused
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        found = "a directory" if stat.S_ISDIR(mode) else "a device or a pipe, not a file"
        raise BadInput(f"{path}: is {found}; wanted {what}")
    with os.fdopen(descriptor, "rb") as file:
        if path.suffix == ".gz":
            data = _unpacked(file, path, most + 1)
        else:
            data = file.read(most + 1) or b""
    if len(data) > most:
        raise BadInput(f"{path}: is larger than {most // 2**20} MiB; wanted {what}")
    return data


def _unpacked(file: IO[bytes], path: Path, most: int) -> bytes:
    """The first bytes that a .gz holds."""
    import gzip
    import zlib

    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return unpacked.read(most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: is not a .gz file, or is cut off: {error}") from None


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix, that replaces it when the block ends.

    If the block raises, the temporary file is deleted. At any time the file at `path` is the old
    one or the complete new one. Raises BadInput if the file cannot be written.
    """
    import tempfile

    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise BadInput(f"{path}: is a device or a pipe; give the name of a file")
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem[:80]}-", suffix=target.suffix, dir=target.parent
        )
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"{path}: cannot be written ({why})") from None
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
