"""Values of the options of roofcast serving: loads, rates, service levels."""

from __future__ import annotations

import math

import click

from roofcast.hwdb.errors import BadInput

PER = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
MOST_POINTS = 64  # of one option


class Several(click.ParamType):
    """Whole numbers of at least 1, separated by commas."""

    name = "N[,N..]"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: object
    ) -> tuple[int, ...]:
        """The numbers; raises BadInput where one is none."""
        if isinstance(value, tuple):
            return value
        option = param.opts[0] if param is not None else "value"
        found = []
        for part in value.split(","):
            try:
                number = int(part)
            except ValueError:
                number = 0
            if not 1 <= number <= 10**7:
                raise BadInput(
                    f"{option} {value}: give whole numbers from 1 to 10,000,000, for example 64 or"
                    " 1,8,64"
                )
            found.append(number)
        if len(found) > MOST_POINTS:
            raise BadInput(f"{option}: at most {MOST_POINTS} numbers")
        return tuple(dict.fromkeys(found))


class Rate(click.ParamType):
    """Requests per second: 3, 3/s, 180/min, 5000/h."""

    name = "RATE"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: object) -> float:
        """Requests per second; raises BadInput where it is none, or not above zero."""
        if isinstance(value, float):
            return value
        number, _, per = value.partition("/")
        try:
            found = float(number) / PER[per.strip() or "s"]
        except (KeyError, ValueError):
            found = math.nan
        if not 0 < found < 1e9:
            option = param.opts[0] if param is not None else "rate"
            raise BadInput(
                f"{option} {value}: not a rate above zero; give requests per second or minute, for"
                " example 3/s or 180/min"
            )
        return found


class Part(click.ParamType):
    """A share from 0 to below 1, or a percentage."""

    name = "SHARE"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: object) -> float:
        """The share; raises BadInput where it is none."""
        if isinstance(value, float):
            return value
        text = value.strip()
        try:
            found = float(text.rstrip("% ")) / (100.0 if text.endswith("%") else 1.0)
        except ValueError:
            found = math.nan
        if not 0 <= found < 1:
            option = param.opts[0] if param is not None else "share"
            raise BadInput(f"{option} {value}: give 0 to below 1, for example 0.5 or 50%")
        return found
