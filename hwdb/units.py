"""Unit strings in files and options: "8 TB/s" -> 8e12. Inside the project all numbers are bare SI.

`pint` is imported only for a string that is more than a number, one SI prefix and the wanted unit.
"""

import math
import re
from functools import cache
from typing import Any

from roofcast.hwdb.errors import BadInput, quoted

PREFIXES = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9,
    "T": 1e12, "P": 1e15, "E": 1e18, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
COUNT_SUFFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
WANTED = {
    "B/s": ("a bandwidth", "3.35 TB/s"),
    "B": ("a size in bytes", "80 GB"),
    "FLOP/s": ("a compute rate", "989 TFLOP/s"),
    "FLOP": ("an amount of work", "3e24 FLOP"),
    "Hz": ("a frequency", "1.98 GHz"),
    "s": ("a duration", "5 us"),
    "W": ("a power", "700 W"),
    "J": ("an energy", "1 kWh"),
    "USD": ("a price in dollars", "30000 USD"),
    "USD/h": ("a price per hour", "2.95 USD/h"),
    "1": ("a bare number", "0.85"),
}
"""Unit: its name and an example, for messages."""

_NUMBER = r"[+-]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TEXT = re.compile(rf"\s*({_NUMBER})\s*(.*?)\s*")
_PLAIN = re.compile(rf"\s*(?:USD|\$)?\s*{_NUMBER}\s*(?:[A-Za-zµ$/][A-Za-zµ$/\s]*)?")
"""A number and a unit, without powers and products, which pint would compute."""

_DEFINITIONS = """
milli- = 1e-3 = m-
micro- = 1e-6 = u- = µ-
nano- = 1e-9 = n-
kilo- = 1e3 = k- = K-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
exa- = 1e18 = E-
zetta- = 1e21 = Z-
yotta- = 1e24 = Y-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
second = [time] = s = sec
minute = 60 s = min
hour = 3600 s = h = hr
day = 86400 s = d
week = 604800 s = wk
year = 31557600 s = yr
byte = [data] = B
bit = 0.125 byte = b
flop = [work] = FLOP = op = OP
turn = [turn]
hertz = turn / second = Hz
joule = [energy] = J
watt = joule / s = W
watt_hour = 3600 joule = Wh
dollar = [money] = USD
"""


@cache
def _registry() -> Any:
    """A small pint registry in which bytes, operations and cycles are dimensions of their own.

    So GHz does not convert to a bandwidth.
    """
    import pint

    registry: Any = pint.UnitRegistry(None)
    registry.load_definitions(_DEFINITIONS.strip().splitlines())
    return registry


def _pint(text: str, unit: str) -> float:
    """The value of `text` in `unit`, by pint; ValueError where that fails."""
    if not _PLAIN.fullmatch(text):
        raise ValueError("not a number and a unit")
    registry = _registry()
    text = text.replace(",", "").replace("$", "USD ")
    if unit == "FLOP/s":
        text = re.sub(r"\b([kKMGTPE]?)(FLOPS|FLOPs|OPS|flops)(?!/)\b", r"\1FLOP/s", text)
    text = re.sub(r"([kMGT]?)(bps)\b", r"\1b/s", text).replace("FLOPs", "FLOP").replace("OPs", "OP")
    text = re.sub(rf"^USD\s*({_NUMBER})", r"\1 USD", text)
    try:
        return float(registry.Quantity(text).to(unit).magnitude)
    except Exception as error:  # of pint, of its tokenizer, or of Python's
        raise ValueError(str(error)) from error


def count(text: str, what: str) -> float:
    """A number of things: "15T", "300B tokens", "1.28 M". BadInput where `text` is something else.

    >>> count("15T", "tokens"), count("1.28M samples", "samples")
    (15000000000000.0, 1280000.0)
    """
    match = _TEXT.fullmatch(text)
    words = match[2].split() if match else []
    if words and words[-1].rstrip("s") == what.rstrip("s"):
        words.pop()
    suffix = words[0] if len(words) == 1 else ""
    if match is None or len(words) > 1 or suffix not in COUNT_SUFFIXES:
        raise BadInput(
            f'{quoted(text)} is not a number of {what}; write for example "15T", "300B" or 1.5e12'
        )
    return _float(match[1]) * COUNT_SUFFIXES[suffix]


def quantity(value: str | float, unit: str) -> float:
    """`value` in the SI `unit`: a string with a unit, or a plain number that is in `unit` already.

    A `unit` that is not one of WANTED names things to count. Raises BadInput where the value has
    another unit or is not a finite number.

    >>> quantity("8 TB/s", "B/s"), quantity(8e12, "B/s")
    (8000000000000.0, 8000000000000.0)
    >>> quantity("2 h", "s"), quantity("15T", "tokens")
    (7200.0, 15000000000000.0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadInput(f"{quoted(value)} is {_kind(value)}; {_wanted(unit)}")
    if not isinstance(value, str):
        number = _float(value)
    elif unit not in WANTED:
        number = count(value, unit)
    else:
        number = _parse(value, unit)
    if not math.isfinite(number):
        raise BadInput(f"{quoted(value)} is not a finite number; {_wanted(unit)}")
    return number


def check_has_unit(value: object, unit: str, meant: str, least: float = 0.0) -> None:
    """Refuse a bare number where a unit is typed: a text, and a number below `least`; 0 needs none.

    meant: the unit that was probably meant. Raises BadInput with a question.
    """
    text = isinstance(value, str) and re.fullmatch(rf"\s*{_NUMBER}\s*", value)
    number = isinstance(value, int | float) and not isinstance(value, bool) and value < least
    if not text and not number:
        return
    bare = _float(str(value))
    if bare <= 0:  # no unit helps a number below zero
        return
    words = {"s": "seconds", "J": "joules"}.get(unit, unit)
    words = words.removesuffix("s") if bare == 1 and words in ("seconds", "joules") else words
    raise BadInput(f"{bare:g} is {bare:g} {words}; did you mean {bare:g}{meant}? give the unit")


def _parse(text: str, unit: str) -> float:
    match = _TEXT.fullmatch(text)
    if match:
        rest = match[2]
        if rest == "":
            return _float(match[1])
        if rest == "%" and unit == "1":
            return _float(match[1]) / 100
        if unit != "1" and rest.endswith(unit) and rest.removesuffix(unit) in PREFIXES:
            return _float(match[1]) * PREFIXES[rest.removesuffix(unit)]
    try:
        return _pint(text, unit)
    except ValueError:
        what, example = WANTED[unit]
        raise BadInput(
            f"{quoted(text)} is not {what}; write for example {quoted(example)}"
        ) from None


def _float(value: str | float) -> float:
    """float() that accepts thousands separators and returns infinity on overflow."""
    try:
        return float(value.replace(",", "").replace("_", "") if isinstance(value, str) else value)
    except OverflowError:
        return math.inf


def _wanted(unit: str) -> str:
    what, example = WANTED.get(unit, (f"a number of {unit}", "15T"))
    return f"wanted {what}, for example {quoted(example)}"


def written(unit: str) -> str:
    """An example of a value in `unit`, as a TOML file has it.

    >>> written("B/s"), written("1")
    ('"3.35 TB/s"', '0.85')
    """
    example = WANTED[unit][1]
    return example if unit == "1" else f'"{example}"'


def _kind(value: object) -> str:
    names = {bool: "a boolean", list: "a list", dict: "a table", type(None): "no value"}
    return names.get(type(value), f"a {type(value).__name__}")


def pretty(value: float | None, unit: str) -> str:
    """The number with its unit, to five digits, with an SI prefix where the unit takes one.

    >>> pretty(3.35e12, "B/s"), pretty(132, "1"), pretty(2.95, "USD/h"), pretty(None, "B")
    ('3.35 TB/s', '132', '2.95 USD/h', 'unknown')
    """
    if value is None:
        return "unknown"
    if unit == "1":
        return f"{value:.6g}"
    if unit.startswith("USD") or value == 0:
        return f"{value:.10g} {unit}"
    names = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
    power = min(max(3 * math.floor(math.log10(abs(value) * (1 + 1e-9)) / 3), -9), 18)
    if power < 0 and unit != "s":
        power = 0
    return f"{value / 10.0**power:.5g} {names[power]}{unit}"
