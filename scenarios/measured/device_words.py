"""What tables call a device -> its name in hwdb, whatever the spelling.

"Blackwell GPU (GB200)", "NVIDIA H100 80GB HBM3", "HGX B200", "TPU v5p-128" (a slice of that many
cores or chips), "A100-SXM4-80GB (Jean Zay)".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.cells import first_match

_VENDOR = re.compile(r"^(?:nvidia|amd|intel|google|habana|graphcore|hgx|dgx|cloud)\s+")
_MEMORY = re.compile(r"[\s-]*\b\d+\s*gi?b\b(?:\s*hbm\w*)?")
_SLICE = re.compile(r"^(?:tpu[\s-]*)?(v\d+\w*?|7x)(?:pod)?-\d+$")


def device_named(words: str, table: Mapping[str, str]) -> str:
    """The device of hwdb that `words` name.

    table: words of tables, in lower case -> names of hwdb; the first that occurs decides where
    hwdb does not know the spelling itself. Raises UnknownName.

    >>> device_named("Blackwell GPU (GB200)", {}), device_named("NVIDIA H100 80GB HBM3", {})
    ('gb200', 'h100-80gb-hbm3')
    >>> device_named("TPU v5p-128", {}), device_named("v6e-256", {})
    ('tpu-v5p', 'tpu-v6e')
    """
    first = ""
    for name in _candidates(words, table):
        first = first or name
        if _known(name):
            return name
    hwdb.device(first)  # raises with the nearest names
    return first


def _known(name: str) -> bool:
    try:
        hwdb.device(name)
    except RoofcastError:
        return False
    return True


def _candidates(words: str, table: Mapping[str, str]) -> Iterator[str]:
    """Names to try, the most literal first."""
    lower = words.lower().replace("(r)", "").replace("(tm)", "")
    plain = re.sub(r"\s*\(.*?\)\s*", " ", lower).strip()
    for text in (plain, *re.findall(r"\(([^()]+)\)", lower)):
        if text in table:
            yield table[text]
        bare = _VENDOR.sub("", text)
        yield bare.replace(" ", "-")
        found = first_match(text, table)
        if found:
            yield found
        part = _SLICE.match(bare)
        if part:
            yield f"tpu-{part[1].removesuffix('lite') + ('e' if part[1].endswith('lite') else '')}"
        yield _MEMORY.sub("", bare).strip(" -").replace(" ", "-")
