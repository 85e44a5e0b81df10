"""The two kinds of error that a user can meet.

A message is one line: what was found and where, and what would be accepted.
"""

import difflib
import re
from collections.abc import Iterable

MATCHES = 8
"""Most names suggested that contain what was typed, word by word."""


class RoofcastError(Exception):
    """An error that the user can correct; the command prints it on one line and exits with 2."""


class UnknownName(RoofcastError):
    """No device, link, system, model or key has that name."""


class BadInput(RoofcastError):
    """A file or a value that is not valid."""


def unknown(
    what: str, name: str, known: Iterable[str], listing: str, meant: Iterable[str] = ()
) -> UnknownName:
    """The error for an unknown `name`, with similar names of `known`, or those `meant`, if any.

    `listing` ends the message: where the known names are listed, or the names themselves.

    >>> known = ["h100-sxm5", "v100"]
    >>> str(unknown("device", "h100-smx5", known, "roofcast devices lists the names"))
    "no device 'h100-smx5'; did you mean h100-sxm5? roofcast devices lists the names"
    """
    close = list(meant) or similar(name, known)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UnknownName(f"no {what} {name!r}; {hint}{listing}")


def similar(name: str, known: Iterable[str]) -> list[str]:
    """Names of `known` that contain the words of `name`, at their start if possible; else up to
    three that are spelled alike.

    >>> similar("gpt-2", ["gpt2", "gpt-oss-20b", "gpt2-xl"])
    ['gpt2', 'gpt2-xl']
    >>> similar("llama3", ["llama-30b", "llama-3-8b"]), similar("orin", ["rubin", "jetson-orin"])
    (['llama-3-8b'], ['jetson-orin'])
    """
    names = list(known)
    wanted = _words(name)
    spans = {each: _words(each) for each in names} if len("".join(wanted)) > 1 else {}
    first = [each for each, words in spans.items() if words[: len(wanted)] == wanted]
    inside = [each for each, words in spans.items() if _contains(words, wanted)]
    if found := first or inside:
        return sorted(found, key=len)[:MATCHES]
    return difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)


def _words(name: str) -> tuple[str, ...]:
    """Runs of letters and numbers: `gpt-2` and `gpt2` are gpt and 2."""
    return tuple(re.findall(r"[a-z]+|\d+", name.lower()))


def _contains(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words)))


def one_line(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
