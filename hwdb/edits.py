"""Hypothetical hardware: changes to the tables of a device file, before they are read."""

import copy
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from msgspec import Struct

from roofcast.hwdb.errors import LISTED, BadInput, UnknownName, listed, quoted, shortened, unknown
from roofcast.hwdb.figure import WAS_MEASURED
from roofcast.hwdb.names import ROOT, names
from roofcast.hwdb.reader import keys, load, members, unit_of
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device
from roofcast.hwdb.units import pretty, quantity

SOURCE = "edit"
"""Key in `sources` that a changed number cites."""

CAPACITY, USABLE = "memory.capacity", "memory.usable"

FAR = 1000.0
"""A plain number is refused that is this many times less than that of every shipped device."""
POSSIBLE = {"B/s": 1e9, "FLOP/s": 1e9, "Hz": 1e6, "B": 4e6, "W": 1.0}
"""Numbers from here on are not questioned; the shipped devices are not read for them."""
LONG = 1e-3  # the same for seconds, which are questioned where they are large

_FACTOR = re.compile(r"(?:[x*×]\s*([\d.eE+-]+)|([\d.eE+-]+)\s*[x×])")
_BITS = re.compile(r"(?:bps|b|bits?)\s*(?:/\s*s)?\s*$")
_PERCENT = re.compile(r"([+-]\s*[\d.]+)\s*%")


def figure_keys(cls: type[Struct] = Device, path: str = "") -> dict[str, str]:
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
    """`data` after the changes, and a line for each: "memory.bandwidth 3.35 TB/s -> 8 TB/s".

    changes: (dotted key, value), absolute or relative to the old value.  file: for messages.
    A change to the same value is no change.
    Raises UnknownName for a key that holds no number, BadInput for a value that is not valid.
    """
    changes = tuple(changes)
    if not changes:
        return data, ()
    data = copy.deepcopy(data)
    units, edits = figure_keys(), []
    for key, value in changes:
        if key not in units:
            raise _unknown_key(key, units, file)
        *tables, last = key.split(".")
        table = data
        for name in tables:
            table = table.setdefault(name, {})
        old = _old(table.get(last), units[key])
        new = _new(key, value, old, units[key])
        if new == old:
            continue
        table[last] = _edited(new, table.get(last))
        edits.append(f"{key} {pretty(old, units[key])} -> {pretty(new, units[key])}")
        if key == CAPACITY and old and USABLE not in dict(changes):
            _scale_usable(table, new / old)
    sources = {**data.get("sources", {}), SOURCE: "changed for this forecast"}
    return data | {"sources": sources}, tuple(edits)


def _scale_usable(memory: dict[str, Any], factor: float) -> None:
    """The same share of another capacity is what programs can allocate."""
    if (usable := _old(memory.get("usable"), "B")) is not None:
        memory["usable"] = _edited(usable * factor, memory["usable"])


def _edited(value: float, before: Any) -> dict[str, Any]:
    """The entry of a changed number. `where` keeps that it was measured: what a formula makes of a
    number depends on how it was found.
    """
    entry = {"value": value, "source": SOURCE, "status": "edited"}
    if isinstance(before, Mapping) and before.get("status") == "measured":
        entry["where"] = WAS_MEASURED
    return entry


def said(edits: Iterable[str]) -> tuple[str, ...]:
    """Assumptions of a forecast on a device with these edits: a line for each, which says where no
    formula reads the number.

    >>> said(["power.idle 70 W -> 35 W"])
    ('hypothetical: power.idle 70 W -> 35 W (shown only: no formula reads it)',)
    """
    lines = []
    for edit in edits:
        key = edit.partition(" ")[0]
        why = ""
        if key == "power.cap":  # a setting of real hardware
            lines.append(f"power limit of a board set to {edit.rpartition(' -> ')[2]}")
            continue
        if key in SHOWN_ONLY[Device]:
            why = " (shown only: no formula reads it)"
        elif key in CROSSCHECK_ONLY:
            why = " (read by roofcast crosscheck only: it changes no forecast)"
        lines.append(f"hypothetical: {edit}{why}")
    return tuple(lines)


def _unknown_key(key: str, units: Mapping[str, str], file: str) -> UnknownName:
    """The error for a key that holds no number, with the keys of its table, else of all tables."""
    near = [each for each in units if each.startswith(f"{key.partition('.')[0]}.")]
    near = near or [each for each in units if not each.startswith("achieved.")]
    listing = listed(_grouped(near), 2 * LISTED)
    return unknown("key", key, units, f"numbers of {file} that can be changed: {listing}")


def _grouped(dotted: Iterable[str]) -> list[str]:
    """The keys, grouped by table: "memory.bandwidth|capacity"; those of no table at the end."""
    tables: dict[str, list[str]] = {}
    for key in dotted:
        table, _, last = key.rpartition(".")
        tables.setdefault(table, []).append(last)
    alone = tables.pop("", [])
    groups = (f"{table}.{'|'.join(last)}" for table, last in tables.items())
    return [*(shortened(group, LISTED) for group in groups), *alone]


def _old(entry: Any, unit: str) -> float | None:
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return None if value is None else quantity(value, unit)


def _new(key: str, value: str | float, old: float | None, unit: str) -> float:
    """The value after the change: absolute, or relative to `old` ("x2", "*0.5", "+20%", "-10%")."""
    factor = _factor(value) if isinstance(value, str) else None
    try:
        if factor is None:
            new = quantity(value, unit)
        elif old is None:
            raise BadInput(
                f"{quoted(value)} is relative, and the device has no value for it; give an absolute"
                " value"
            )
        else:
            new = old * factor
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from None
    if not 0 < new < math.inf:
        raise BadInput(
            f"{key}: {quoted(value)} makes it {new:g}; it must be more than zero and finite"
        )
    if factor is None:
        check_unit(key, value, new, unit, old)
    return new


def check_unit(key: str, typed: Any, value: float, unit: str, old: float | None = None) -> None:
    """Refuse a plain number that lacks its unit, by the figures of the shipped devices.

    key: of the figure; typed: as it was given; value: the same in `unit`; old: the device's figure.
    Raises BadInput with the unit that was probably meant.
    """
    if not _plain(typed) or value <= 0 or unit == "1" or unit.startswith("USD"):
        return
    seconds = unit == "s"
    if value <= LONG if seconds else value >= POSSIBLE.get(unit, 0.0):
        return
    known = _shipped(key, unit)
    if not known:
        return
    if value <= FAR * max(known) if seconds else value >= min(known) / FAR:
        return
    usual = old or math.exp(sum(map(math.log, known)) / len(known))
    powers = (-9, -6, -3) if seconds else (3, 6, 9, 12, 15)
    power = min(powers, key=lambda p: abs(math.log(value) + math.log(10.0**p / usual)))
    meant, spelled = pretty(value * 10.0**power, unit), _spelled(value, unit)
    given = shortened(typed) if isinstance(typed, str) else quoted(typed)
    raise BadInput(f'{key}: {given} is {spelled}; did you mean {meant}? write "{meant}"')


def _plain(typed: Any) -> bool:
    """Is it a number without a unit?"""
    if isinstance(typed, str):
        return re.fullmatch(r"[\d.,_eE+-]+", typed.strip()) is not None
    return isinstance(typed, int | float) and not isinstance(typed, bool)


def _spelled(value: float, unit: str) -> str:
    """The number with its unit in words: 2 bytes per second."""
    words = {"B": "bytes", "FLOP": "FLOP", "Hz": "Hz", "W": "W", "s": "seconds", "J": "J"}
    first, _, per = unit.partition("/")
    return f"{value:g} {words.get(first, first)}{' per second' if per == 's' else ''}"


@cache
def _shipped(key: str, unit: str) -> tuple[float, ...]:
    """This figure of every shipped device that has it."""
    found = []
    for name in names("devices"):
        table: Any = load(ROOT / "devices" / f"{name}.toml")
        for part in key.split("."):
            table = table.get(part) if isinstance(table, Mapping) else None
        if isinstance(table, Mapping) and "value" in table:
            found.append(quantity(table["value"], unit))
    return tuple(found)


def _factor(text: str) -> float | None:
    try:
        if match := _FACTOR.fullmatch(text.strip()):
            return float(match[1] or match[2])
        if match := _PERCENT.fullmatch(text.strip()):
            return 1 + float(match[1].replace(" ", "")) / 100
    except ValueError:
        pass
    return None


def is_relative(value: str | float) -> bool:
    """Whether a change is a factor or a percentage of the old value.

    >>> is_relative("x2"), is_relative("+20%"), is_relative("8 TB/s"), is_relative(8e12)
    (True, True, False, False)
    """
    return isinstance(value, str) and _factor(value) is not None


def check_units(data: Mapping[str, Any], file: str) -> None:
    """Refuse plain numbers in a user's file that lack their unit; see check_unit."""
    for key, unit in figure_keys().items():
        entry: Any = data
        for part in key.split("."):
            entry = entry.get(part) if isinstance(entry, Mapping) else None
        typed = entry.get("value") if isinstance(entry, Mapping) else entry
        if typed is not None and _plain(typed):
            try:
                check_unit(key, typed, quantity(typed, unit), unit)
            except BadInput as error:
                raise BadInput(f"{file}: {error}") from None


def in_bits(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Figures of a file whose unit is of bits, with what they are in bytes, a line for each."""
    found = []
    for key, unit in figure_keys().items():
        if unit not in ("B/s", "B"):
            continue
        entry: Any = data
        for part in key.split("."):
            entry = entry.get(part) if isinstance(entry, Mapping) else None
        typed = entry.get("value") if isinstance(entry, Mapping) else entry
        if isinstance(typed, str) and _BITS.search(typed):
            found.append(f"{key} {shortened(typed)} is in bits: {pretty(_old(typed, unit), unit)}")
    return tuple(found)


def merge(
    base: dict[str, Any], over: dict[str, Any], file: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tables of `base` overlaid with those of `over`, and a line for each number that differs.

    file: the file that `over` was read from, for messages.
    """
    units = figure_keys()
    edits: list[str] = []

    def lay(under: dict[str, Any], top: dict[str, Any], path: str) -> dict[str, Any]:
        result = dict(under)
        for key, value in top.items():
            dotted = path + key
            inner = under.get(key, {})
            if dotted in units:
                edits.append(_line(dotted, under.get(key), value, units[dotted], file))
                result[key] = value
            elif isinstance(value, dict) and isinstance(inner, dict):
                result[key] = lay(inner, value, f"{dotted}.")
            else:
                result[key] = value
        return result

    merged = lay(base, over, "")
    mine, under = over.get("memory", {}), base.get("memory", {})
    if isinstance(mine, dict) and isinstance(under, dict) and "usable" not in mine:
        old, new = (_old(each.get("capacity"), "B") for each in (under, mine))
        if old and new:
            merged["memory"] = copy.deepcopy(merged["memory"])
            _scale_usable(merged["memory"], new / old)
            merged["sources"] = {SOURCE: "of a changed capacity", **merged.get("sources", {})}
    return merged, tuple(filter(None, edits))


def _line(key: str, old: Any, new: Any, unit: str, file: str) -> str:
    """The change of one number in words; empty where it is the same."""
    try:
        before, after = _old(old, unit), _old(new, unit)
    except BadInput as error:
        raise BadInput(f"{file}: {key}: {error}") from None
    return "" if before == after else f"{key} {pretty(before, unit)} -> {pretty(after, unit)}"
