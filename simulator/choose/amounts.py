"""Limits of a choice as people write them: 10d, 50k, 300 W, 5 MWh."""

from __future__ import annotations

from roofcast.hwdb.units import check_has_unit, count, quantity

MEANT = {"s": "d", "J": "kWh"}  # the unit of a bare number, by its SI unit


def limit(value: str | float, unit: str) -> float:
    """An amount in a SI unit, from a number or a text. Raises BadInput; of a text that is a bare
    number of seconds or joules with the unit that was probably meant.

    >>> limit("10d", "s"), limit("50k", "USD"), limit("$1.5M", "USD"), limit("300 W", "W")
    (864000.0, 50000.0, 1500000.0, 300.0)
    """
    if isinstance(value, str) and unit == "USD":
        return count(value.replace("$", "").replace("USD", "").strip(), "dollars")
    if unit in MEANT:
        check_has_unit(value, unit, MEANT[unit])
    if isinstance(value, str) and unit == "s":
        value = value.replace("days", "d").replace("weeks", "wk").replace("hours", "h")
    return quantity(value, unit)
