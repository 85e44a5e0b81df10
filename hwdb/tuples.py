"""NamedTuple, made in a third of the time.

`typing.NamedTuple` compiles the annotation of every field when a class is made: 0.2 ms a class,
and a forecast imports a hundred of them. Here annotations stay the strings that they are; type
checkers see `typing.NamedTuple` itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 14):  # where annotations are not evaluated
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    # what `namedtuple` has made, or a tuple does not have
    _OWN = {"__annotations__", "__module__", "__qualname__", "__classcell__"}

    class _Made(type):
        """Makes a tuple with named fields of the body of a class."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            fields = body.get("__annotations__", {})
            with_default = [field in body for field in fields]
            if with_default != sorted(with_default):
                raise TypeError(f"{name}: a field without a default follows one that has one")
            defaults = [body[field] for field in fields if field in body]
            module = body["__module__"]
            made = namedtuple(name, fields, defaults=defaults, module=module)  # noqa: PYI024
            made.__annotations__ = dict(fields)
            made.__qualname__ = body["__qualname__"]
            for key, value in body.items():
                if key not in fields and key not in _OWN:
                    setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Made, "NamedTuple", (), {"__doc__": __doc__})
