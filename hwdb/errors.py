"""The two errors a user can meet, and others' errors on a line. Each message is one line: what was
found where, and what would do.
"""

import difflib
from collections.abc import Iterable


class RoofcastError(Exception):
    """Anything a user can put right; the command prints it on one line and exits with 2."""


class UnknownName(RoofcastError):
    """No device, link, system, model or key is called that."""


class BadInput(RoofcastError):
    """A file or a value that cannot be."""


def unknown(what: str, name: str, known: Iterable[str], listing: str) -> UnknownName:
    """The error for `name`, with up to three names that look like it.

    >>> str(unknown("device", "h100-smx5", ["h100-sxm5", "v100"], "known names: roofcast devices"))
    "no device 'h100-smx5'; did you mean h100-sxm5? known names: roofcast devices"
    """
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UnknownName(f"no {what} {name!r}; {hint}{listing}")


def one_line(error: BaseException) -> str:
    """The first line of an exception, with its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
