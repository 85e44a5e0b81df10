"""The two kinds of error that a user can meet.

A message is one line: what was found and where, and what would be accepted.
"""

import re
from collections.abc import Iterable

MATCHES = 8
"""Most names suggested that contain what was typed, word by word."""
QUOTED = 80
"""Characters that a message quotes of an input, at most."""
LISTED = 160
"""Characters of a list of known names in a message, at most."""

# what a terminal acts upon, or shows as something else: controls, line and paragraph separators,
# marks that turn the direction of writing, and halves of surrogate pairs
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
    close = list(meant) or similar(name[: 2 * QUOTED], known)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    given = quoted(name, QUOTED // 2 if close else QUOTED)
    return UnknownName(f"no {what} {given}; {hint}{listing}")


def quoted(value: object, most: int = QUOTED) -> str:
    """An input as a message quotes it: as Python writes it, cut to `most` characters.

    >>> quoted("gpt-9"), quoted("a" * 100, 12)
    ("'gpt-9'", "'aaaa...aaa'")
    """
    try:
        return shortened(repr(value), most)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    except RecursionError:
        return "lists or tables nested too deep"


def shortened(text: str, most: int = QUOTED) -> str:
    """The text without its middle where it is longer than `most` characters.

    >>> shortened("0123456789", 7), shortened("0123456", 7)
    ('01...89', '0123456')
    """
    if len(text) <= most:
        return text
    left = most - 3
    return f"{text[: left - left // 2]}...{text[len(text) - left // 2 :]}"


def escaped(text: str, keep: str = "") -> str:
    """The text with control characters as Python writes them, but those of `keep`: a name in it
    cannot colour, clear or retitle a terminal.

    >>> print(escaped("a\\x1b[31mb"))
    a\\x1b[31mb
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def listed(names: Iterable[str], most: int = LISTED) -> str:
    """Names separated by commas; those that do not fit into `most` characters are counted.

    >>> listed(["conv", "linear", "relu", "gelu"], 14)
    'conv, linear, ... (2 more)'
    """
    every = list(names)
    shown = list(every)
    while len(", ".join(shown)) > most and len(shown) > 1:
        shown.pop()
    more = len(every) - len(shown)
    return ", ".join(shown) + (f", ... ({more} more)" if more else "")


def number_of(number: float, one: str, several: str = "") -> str:
    """A number with the words that agree with it; `several`: of all numbers but 1, an s more.

    >>> number_of(1, "device"), number_of(1200, "device"), number_of(1, "fits", "fit")
    ('1 device', '1,200 devices', '1 fits')
    """
    return f"{number:,.15g} {one if number == 1 else several or f'{one}s'}"


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
    import difflib

    return difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)


def _words(name: str) -> tuple[str, ...]:
    """Runs of letters and numbers: `gpt-2` and `gpt2` are gpt and 2."""
    return tuple(re.findall(r"[a-z]+|\d+", name.lower()))


def _contains(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words)))


def one_line(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return f"{name}: {shortened(lines[0], 2 * QUOTED)}" if lines else name
