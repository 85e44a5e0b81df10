"""How far measured peaks of memory lie from forecast ones: hwdb/memory.toml, which
scenarios/fits/memory.py writes.
"""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from roofcast import hwdb
from roofcast.hwdb.strict import checked, load

PATH = Path(hwdb.__file__).parent / "memory.toml"


class Factors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors on a forecast peak between which 80 % of the measured peaks lie."""

    low: float
    high: float
    source: str  # measured runs by table


class Modes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The factors by mode; None where no measured run tells."""

    train: Factors | None = None
    infer: Factors | None = None


@functools.cache
def factors() -> Modes:
    """The shipped factors."""
    return checked(Modes, load(PATH, "the errors of memory"), str(PATH))


def band(peak_bytes: float, mode: str) -> tuple[float, float] | tuple[None, None]:
    """Bytes between which 80 % of the measured runs would lie that are forecast to need these; None
    twice for a mode without measured runs.
    """
    found: Factors | None = getattr(factors(), mode)
    return (peak_bytes * found.low, peak_bytes * found.high) if found else (None, None)


def share_below(low: float | None, high: float | None, limit: float) -> float | None:
    """Share of measured peaks below a limit inside the interval of 80 % of them, of which a tenth
    lay below it and a tenth above, evenly between; None outside, and where there is none [bytes].

    >>> round(share_below(40.0, 50.0, 47.5), 6)
    0.7
    """
    if low is None or high is None or not low <= limit <= high:
        return None
    return 0.1 + 0.8 * (limit - low) / (high - low)
