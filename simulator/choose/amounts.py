"""Limits of a choice as people write them: 10d, 50k, 300 W, 5 MWh."""

from __future__ import annotations

from roofcast.hwdb.units import count, quantity


def limit(value: str | float, unit: str) -> float:
    """An amount in a SI unit, from a number or a text.

    >>> limit("10d", "s"), limit("50k", "USD"), limit("$1.5M", "USD"), limit("300 W", "W")
    (864000.0, 50000.0, 1500000.0, 300.0)
    """
    if isinstance(value, str) and unit == "USD":
        return count(value.replace("$", "").replace("USD", "").strip(), "dollars")
    if isinstance(value, str) and unit == "s":
        value = value.replace("days", "d").replace("weeks", "wk").replace("hours", "h")
    return quantity(value, unit)
