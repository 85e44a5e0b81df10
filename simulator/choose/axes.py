"""What a sweep varies: options of a scenario and numbers of the hardware, and the values of each.

batch=8..64              8, 16, 32, 64: doubled
seq=1024..4096:1024      in steps of 1024
memory.bandwidth=x1,x2,"8 TB/s"    memory.capacity=64GB..512GB
on=h100-sxm5,b200-sxm    precision=bf16,fp8    zero=0..3:1
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec

from roofcast.hwdb.edits import figure_keys
from roofcast.hwdb.errors import BadInput, UnknownName, listed, quoted
from roofcast.hwdb.units import count
from roofcast.simulator.forecast.scenario import WHOLE, Scenario

MOST_POINTS = 1_000_000
MOST_VALUES = 100_000  # of one axis
FIELDS = {  # options as they are typed -> fields of the scenario
    "on": "device", "seq": "sequence", "price": "price_per_hour",
    **{
        name.replace("_", "-"): name
        for name in (
            "batch", "image", "mode", "precision", "optimizer", "recompute", "attention", "stack",
            "memory_format", "devices", "system", "tp", "sp", "pp", "vpp", "dp", "cp", "cp_kind",
            "ep", "etp", "zero", "shard", "reshard", "schedule", "micro_batch", "tokens", "samples",
            "epochs", "model", "weights", "sparsity", "prune", "teacher",
        )
    },
}  # fmt: skip
SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
_NUMBER, _UNIT = r"([\d.]+(?:[eE]\+?\d+)?)", r"\s*([A-Za-z][A-Za-z/]*)?"
_RANGE = re.compile(
    rf"[\"']?(x?){_NUMBER}{_UNIT}\.\.x?{_NUMBER}{_UNIT}(?::{_NUMBER}{_UNIT})?[\"']?"
)


class Axis(NamedTuple):
    """One varied option or number, and its values as typed or counted."""

    name: str  # as typed: batch, on, memory.bandwidth
    values: tuple[Any, ...]

    @property
    def hardware(self) -> bool:
        """Whether it is a number of the device, not an option."""
        return self.name not in FIELDS


def axis(text: str) -> Axis:
    """The axis that NAME=VALUES describes. Raises BadInput or UnknownName."""
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("_", "-" if "." not in name else "_")
    if not equals or not values.strip():
        raise BadInput(
            f"--vary {quoted(text)}: give a name and its values, for example batch=8..64 or"
            " memory.bandwidth=x1,x2"
        )
    if name not in FIELDS and name not in figure_keys():
        known = [*FIELDS, *figure_keys()]
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"options: {listed(FIELDS)}"
        raise UnknownName(f"--vary {quoted(name)}: no such option or number of a device; {hint}")
    found = [v for part in values.split(",") for v in _values(name, part.strip(), text)]
    if len(found) > MOST_VALUES:
        raise BadInput(f"--vary {name}: {len(found):,} values; at most {MOST_VALUES:,} are taken")
    return Axis(name, tuple(found))


def _values(name: str, part: str, text: str) -> Iterator[Any]:
    """The values of one part between commas."""
    if not part:
        raise BadInput(f"--vary {quoted(text)}: a value is empty; leave one comma out")
    match = _RANGE.fullmatch(part)
    if match is None:
        yield _value(name, part)
        return
    factor, first, of_first, last, unit, step, of_step = match.groups()
    if not {of_first, of_step} <= {unit, None}:
        raise BadInput(
            f"--vary {name}: {quoted(part)} has two units; write all in one: 2TB/s..8TB/s"
        )
    try:
        low, high, by = float(first), float(last), float(step) if step else 0.0
    except ValueError:
        raise BadInput(
            f"--vary {name}: {quoted(part)} is no range; write 8..64 or 8..64:8"
        ) from None
    if not 0 <= low <= high < math.inf or (step and by <= 0) or (not step and low == 0):
        raise BadInput(
            f"--vary {name}: {quoted(part)} runs nowhere; write it upwards, doubled (8..64) or in"
            " steps (0..3:1)"
        )
    many = (
        math.floor((high - low) / by + 1e-9) + 1 if step else math.floor(math.log2(high / low)) + 1
    )
    if many > MOST_VALUES:
        raise BadInput(f"--vary {name}: {many:,} values; at most {MOST_VALUES:,} are taken")
    after = f"{'' if name in FIELDS else ' '}{unit}" if unit else ""
    for i in range(many):
        number = low + i * by if step else low * 2**i
        yield _value(name, f"{factor}{number:.12g}{after}")


def _value(name: str, text: str) -> Any:
    """One value in the type of the option; a number of the hardware as --set takes it."""
    field = FIELDS.get(name)
    text = text.strip("\"'")
    if field in WHOLE:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if number != math.floor(number) if math.isfinite(number) else True:
            raise BadInput(f"--vary {name}: {quoted(text)} is not a whole number")
        return int(number)
    if field in ("sp", "reshard"):
        if text.lower() not in SWITCHES:
            raise BadInput(f"--vary {name}: {quoted(text)}; give on or off")
        return SWITCHES[text.lower()]
    if field in ("tokens", "samples", "epochs", "price_per_hour"):
        return count(text, name)
    return text


def changed(scenario: Scenario, point: Sequence[tuple[Axis, Any]]) -> Scenario:
    """The scenario with a value of each axis."""
    fields = {FIELDS[axis.name]: value for axis, value in point if not axis.hardware}
    edits = {axis.name: value for axis, value in point if axis.hardware}
    return msgspec.structs.replace(scenario, **fields, set={**scenario.set, **edits})


def grid(axes: Sequence[Axis], zipped: bool = False) -> list[tuple[Any, ...]]:
    """A tuple of values per point: every combination, the last axis fastest; or, zipped, the first
    values of all axes, then the second ones, and so on.

    Raises BadInput for an axis named twice, for more than a million points, and for zipped axes of
    unlike lengths.
    """
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"--vary {name}: given twice; put all its values into one")
    lengths = [len(axis.values) for axis in axes]
    if zipped:
        if len(set(lengths)) > 1:
            each = ", ".join(f"{n} of {name}" for name, n in zip(names, lengths, strict=True))
            raise BadInput(f"--zip pairs values one to one; given are {each}")
        return list(zip(*(axis.values for axis in axes), strict=True))
    points = math.prod(lengths)
    if points > MOST_POINTS:
        times = " x ".join(f"{n:,}" for n in lengths)
        raise BadInput(
            f"{times} = {points:,} points; at most {MOST_POINTS:,} are forecast: vary fewer values,"
            " or pair them with --zip"
        )
    return list(itertools.product(*(axis.values for axis in axes)))
