"""Hypothetical hardware is an edit: changes to the tables of a file, before they are read."""

import copy
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.reader import keys, members, unit_of
from roofcast.hwdb.records import Device
from roofcast.hwdb.units import pretty, quantity

SOURCE = "edit"
"""Source key of a number that `changes` gave."""

_FACTOR = re.compile(r"(?:[x*×]\s*([\d.eE+-]+)|([\d.eE+-]+)\s*[x×])")
_PERCENT = re.compile(r"([+-]\s*[\d.]+)\s*%")


def figure_keys(cls: type = Device, path: str = "") -> dict[str, str]:
    """Every dotted key of `cls` that holds a number, with its unit, in the order of the records."""
    found: dict[str, str] = {}
    for key, (hint, _) in keys(cls).items():
        if (unit := unit_of(hint)) is not None:
            found[path + key] = unit
        elif (inner := members(hint)) is not None:
            found |= figure_keys(inner, f"{path}{key}.")
    return found


def apply(
    data: dict[str, Any], changes: Iterable[tuple[str, str | float]], file: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`data` with each change made, and a sentence for each: "memory.bandwidth 3.35 TB/s -> 8
    TB/s".
    """
    changes = tuple(changes)
    if not changes:
        return data, ()
    data = copy.deepcopy(data)
    units, edits = figure_keys(), []
    for key, value in changes:
        if key not in units:
            table = key.partition(".")[0]
            near = [u for u in units if u.startswith(f"{table}.")] or [
                u for u in units if not u.startswith("achieved.")
            ]
            raise unknown("key", key, units, f"what can be changed of {file}: {_grouped(near)}")
        *tables, last = key.split(".")
        table = data
        for name in tables:
            table = table.setdefault(name, {})
        old = _old(table.get(last), units[key])
        new = _new(key, value, old, units[key])
        table[last] = {"value": new, "source": SOURCE, "status": "edited"}
        edits.append(f"{key} {pretty(old, units[key])} -> {pretty(new, units[key])}")
    data["sources"] = {
        **data.get("sources", {}),
        SOURCE: "changed by whoever asked for this forecast",
    }
    return data, tuple(edits)


def _grouped(dotted: Iterable[str]) -> str:
    """The keys, with those of one table together: "memory.bandwidth|capacity"."""
    tables: dict[str, list[str]] = {}
    for key in dotted:
        table, _, last = key.rpartition(".")
        tables.setdefault(table, []).append(last)
    return ", ".join(
        f"{table}.{'|'.join(last)}" if table else ", ".join(last) for table, last in tables.items()
    )


def _old(entry: Any, unit: str) -> float | None:
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return None if value is None else quantity(value, unit)


def _new(key: str, value: str | float, old: float | None, unit: str) -> float:
    """The value after the change: absolute, or relative to `old` ("x2", "*0.5", "+20%", "-10%")."""
    factor = _factor(value) if isinstance(value, str) else None
    if factor is not None and old is None:
        raise BadInput(
            f"{key}: {value!r} is relative, but the device does not say what it is now; give a"
            " value"
        )
    try:
        new = quantity(value, unit) if factor is None else old * factor
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from None
    if not 0 < new < math.inf:
        raise BadInput(f"{key}: {value!r} makes it {new:g}; it must be more than zero")
    return new


def _factor(text: str) -> float | None:
    try:
        if match := _FACTOR.fullmatch(text.strip()):
            return float(match[1] or match[2])
        if match := _PERCENT.fullmatch(text.strip()):
            return 1 + float(match[1].replace(" ", "")) / 100
    except ValueError:
        pass
    return None


def merge(
    base: dict[str, Any], over: dict[str, Any], file: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tables of `over` laid over those of `base`, and a sentence for each number that
    differs.
    """
    units, edits = figure_keys(), []

    def lay(under: dict[str, Any], top: dict[str, Any], path: str) -> dict[str, Any]:
        result = dict(under)
        for key, value in top.items():
            dotted = path + key
            if dotted in units:
                edits.append(_sentence(dotted, under.get(key), value, units[dotted], file))
            inner = under.get(key, {})
            both_tables = (
                isinstance(value, dict) and isinstance(inner, dict) and dotted not in units
            )
            result[key] = lay(inner, value, dotted + ".") if both_tables else value
        return result

    return lay(base, over, ""), tuple(filter(None, edits))


def _sentence(key: str, old: Any, new: Any, unit: str, file: str) -> str:
    try:
        before, after = _old(old, unit), _old(new, unit)
    except BadInput as error:
        raise BadInput(f"{file}: {key}: {error}") from None
    return "" if before == after else f"{key} {pretty(before, unit)} -> {pretty(after, unit)}"
