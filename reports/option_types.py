"""What the values of options are: converted, and refused in one line that says what would do."""

from __future__ import annotations

import math

import click

from roofcast.hwdb.errors import BadInput


class Count(click.ParamType):
    """A number of things, with or without a suffix: 15T, 1.28M, 90; kept as it was written where a
    scenario file should say it so.
    """

    name = "number"

    def __init__(self, as_written: bool):
        self.as_written = as_written

    def convert(self, value, param, ctx):
        """What was typed, as a value; or one line that says what would do."""
        from roofcast.hwdb.units import count

        number = count(value, param.name)
        if not (math.isfinite(number) and number > 0):
            raise BadInput(
                f"{param.opts[0]} {value}: not a length; give more than zero, for example 15T or"
                " 1.28M"
            )
        return value if self.as_written else number


MOST = 10**15


class Whole(click.ParamType):
    """A whole number of at least one."""

    name = "integer"

    def convert(self, value, param, ctx):
        """What was typed, as a value; or one line that says what would do."""
        try:
            number = int(value)
        except ValueError:
            raise BadInput(f"{param.opts[0]} {value}: not a whole number; give 1 or more") from None
        if number < 1:
            raise BadInput(f"{param.opts[0]} {value}: too small; give 1 or more")
        if number > MOST:
            raise BadInput(f"{param.opts[0]} {value}: too large; give {MOST:,} or less")
        return number


class Layers(click.ParamType):
    """Whole numbers with commas between them."""

    name = "integers"

    def convert(self, value, param, ctx):
        """What was typed, as a value; or one line that says what would do."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            wanted = "give one a stage with commas between, for example 7,8,8,7"
            raise BadInput(f"{param.opts[0]} {value}: not whole numbers; {wanted}") from None


class Stage(click.ParamType):
    """A ZeRO stage."""

    name = "0|1|2|3"

    def convert(self, value, param, ctx):
        """What was typed, as a value; or one line that says what would do."""
        if str(value) not in ("0", "1", "2", "3"):
            raise BadInput(f"{param.opts[0]} {value}: no ZeRO stage; give 0, 1, 2 or 3")
        return int(value)


def setting(values: tuple[str, ...]) -> dict[str, str]:
    """What --set KEY=VALUE, as often as given, changes."""
    changes: dict[str, str] = {}
    for text in values:
        key, sign, value = text.partition("=")
        if not (sign and key.strip() and value.strip()):
            raise BadInput(
                f'--set {text}: no KEY=VALUE; write for example --set memory.bandwidth="8 TB/s"'
            )
        if key.strip() in changes:
            raise BadInput(f"--set {key.strip()}: given twice; keep one")
        changes[key.strip()] = value.strip()
    return changes


class Priced(click.ParamType):
    """Dollars an hour: 2.5, or with its unit."""

    name = "number"

    def convert(self, value, param, ctx):
        """What was typed, as a value; or one line that says what would do."""
        from roofcast.hwdb.units import quantity

        try:
            price = value if isinstance(value, float) else quantity(value, "USD/h")
        except BadInput:
            price = -1.0
        if not (math.isfinite(price) and price >= 0):
            raise BadInput(
                f"{param.opts[0]} {value}: not a price; give dollars a device and hour, for"
                " example 2.5"
            )
        return price
