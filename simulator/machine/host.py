"""Records for a description of the local machine: CPU name, cores, caches, instruction set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

VENDORS = {
    "GenuineIntel": "Intel", "AuthenticAMD": "AMD", "0x41": "Arm", "0xc0": "Ampere",
    "0x61": "Apple",
}  # fmt: skip
WIDE = re.compile(
    r"sse4_2|avx|avx2|fma|f16c|avx512\w*|avx_\w+|amx_\w+|neon|asimd\w*|sve\w*|bf16|i8mm"
)


class Cache(NamedTuple):
    """One level of data cache."""

    bytes: int  # capacity of one instance
    instances: int  # number of instances that the usable cores share


class Host(NamedTuple):
    """What the operating system reports about the machine; unknown values are None or empty."""

    name: str
    vendor: str
    architecture: str
    system: str  # operating system and its version
    threads: int  # hardware threads that this process may use
    cores: int  # physical cores of those threads
    caches: dict[str, Cache]  # by level: "l1", "l2", "l3"
    memory: int | None  # bytes
    clock: float | None  # maximum frequency [Hz]
    isa: tuple[str, ...]  # vector and matrix instruction sets


def vector_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """The CPU flags that name vector or matrix instruction sets, sorted.

    >>> vector_flags(["ht", "fma", "avx2"])
    ('avx2', 'fma')
    """
    return tuple(sorted({flag for flag in flags if WIDE.fullmatch(flag)}))
