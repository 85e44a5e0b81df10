"""The two kinds of error that a user can meet.

A message is one line: what was found and where, and what would be accepted.
"""

import difflib
from collections.abc import Iterable


class RoofcastError(Exception):
    """An error that the user can correct; the command prints it on one line and exits with 2."""


class UnknownName(RoofcastError):
    """No device, link, system, model or key has that name."""


class BadInput(RoofcastError):
    """A file or a value that is not valid."""


def unknown(what: str, name: str, known: Iterable[str], listing: str) -> UnknownName:
    """The error for an unknown `name`, with up to three similar names of `known`.

    `listing` ends the message: where the known names are listed, or the names themselves.

    >>> known = ["h100-sxm5", "v100"]
    >>> str(unknown("device", "h100-smx5", known, "roofcast devices lists the names"))
    "no device 'h100-smx5'; did you mean h100-sxm5? roofcast devices lists the names"
    """
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UnknownName(f"no {what} {name!r}; {hint}{listing}")


def one_line(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
