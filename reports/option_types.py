"""Types of option values: each converts what was typed, or raises one line that says what to do."""

from __future__ import annotations

import math

import click

from roofcast.hwdb.errors import BadInput

MOST = 10**15  # largest integer accepted
DEAREST = 1e9  # USD per device-hour


# commands that compare the devices of a question that another command answers for one
_SEVERAL = {"serving": "roofcast choose MODEL --serving", "search": "roofcast choose"}


class Once(click.Command):
    """A command that refuses an option of one value that is given twice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; raises UsageError for one of one value that is repeated."""
        if ctx.resilient_parsing:  # of a line that is being completed
            return super().parse_args(ctx, args)
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for param in given:
            single = isinstance(param, click.Option) and not (param.multiple or param.count)
            times = given.count(param) if single and not _plain_flag(param) else 1
            if times > 1:
                several = _SEVERAL.get(ctx.info_name or "", "roofcast predict")
                also = f"; to compare devices: {several}" if param.name == "on" else ""
                raise click.UsageError(
                    f"{param.opts[0]} is given {times} times and takes one value; keep one{also}",
                    ctx,
                )
        return super().parse_args(ctx, args)


class OnceGroup(Once, click.Group):
    """The same for a command with subcommands."""


def _plain_flag(param: click.Parameter) -> bool:
    """Whether an option is a flag that can only be set, so that a second one changes nothing."""
    return isinstance(param, click.Option) and param.is_flag and not param.secondary_opts


def _label(param: click.Parameter | None) -> str:
    """The option as it is typed."""
    return param.opts[0] if param is not None else "value"


class Count(click.ParamType):
    """A positive number with or without a suffix: 15T, 1.28M, 90.

    as_written: keep the text, for scenario files; else convert it to a float.
    """

    name = "number"

    def __init__(self, as_written: bool):
        self.as_written = as_written

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | float:
        """The number, as text or float; raises BadInput if it is not positive and finite."""
        from roofcast.hwdb.units import count

        number = count(value, str(param.name) if param is not None else "value")
        if not (math.isfinite(number) and number > 0):
            raise BadInput(
                f"{_label(param)} {value}: give a number greater than zero, for example 15T or"
                " 1.28M"
            )
        return value if self.as_written else number


class Whole(click.ParamType):
    """An integer of at least 1."""

    name = "integer"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The integer; raises BadInput if it is none, below 1 or above 1e15."""
        try:
            number = int(value)
        except ValueError:
            raise BadInput(f"{_label(param)} {value}: not a whole number; give 1 or more") from None
        if number < 1:
            raise BadInput(f"{_label(param)} {value}: too small; give 1 or more")
        if number > MOST:
            raise BadInput(f"{_label(param)} {value}: too large; give {MOST:,} or less")
        return number


class Share(click.ParamType):
    """A probability from 0 to below 1."""

    name = "number"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The probability; raises BadInput if it is none."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0.0 <= number < 1.0:
            raise BadInput(
                f"{_label(param)} {value}: not a probability; give 0 to below 1, for example 0.05"
            )
        return number


class Layers(click.ParamType):
    """Integers separated by commas."""

    name = "integers"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The integers; raises BadInput if any part is none."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            wanted = "give the layers of each stage, separated by commas, for example 7,8,8,7"
            raise BadInput(f"{_label(param)} {value}: not whole numbers; {wanted}") from None


class Stage(click.ParamType):
    """A ZeRO stage."""

    name = "0|1|2|3"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The stage; raises BadInput if it is not 0, 1, 2 or 3."""
        if str(value) not in ("0", "1", "2", "3"):
            raise BadInput(f"{_label(param)} {value}: not a ZeRO stage; give 0, 1, 2 or 3")
        return int(value)


class Priced(click.ParamType):
    """US dollars per hour: 2.5, or with a unit."""

    name = "number"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """USD per hour; raises BadInput if it is negative or not a price."""
        from roofcast.hwdb.units import quantity

        try:
            price = value if isinstance(value, float) else quantity(value, "USD/h")
        except BadInput:
            price = -1.0
        if not 0 <= price <= DEAREST:
            raise BadInput(
                f"{_label(param)} {value}: not a price; give USD per device-hour, for example 2.5"
            )
        return price


def setting(values: tuple[str, ...]) -> dict[str, str | float | int]:
    """Changes to the device, from the values of --set KEY=VALUE.

    >>> setting(("memory.bandwidth=8 TB/s", "clock_hz=+20%"))
    {'memory.bandwidth': '8 TB/s', 'clock_hz': '+20%'}
    """
    changes: dict[str, str | float | int] = {}
    for text in values:
        key, sign, value = text.partition("=")
        if not (sign and key.strip() and value.strip()):
            raise BadInput(
                f'--set {text}: not KEY=VALUE; write for example --set memory.bandwidth="8 TB/s"'
            )
        if key.strip() in changes:
            raise BadInput(f"--set {key.strip()}: given twice; keep one")
        changes[key.strip()] = value.strip()
    return changes
