"""A number that remembers where it comes from, and an immutable table of such numbers."""

from collections.abc import Iterable
from typing import Any, NoReturn, Self, TypeVar

STATUSES = ("read", "measured", "derived", "estimate", "recalled", "given", "edited")
"""How well a figure is documented.

read: seen in the source that it names.  measured: from a public measurement log.
derived: computed from other figures.  estimate: no source publishes it.
recalled: from memory of the source that it names, not checked again.
given: from a user's own file.  edited: changed with --set or `changes`.
"""

WAS_MEASURED = "measured before the change"
"""`where` of an edited figure that was measured."""

V = TypeVar("V")


class Figure(float):
    """A float in SI units with its origin: formulas use it as a float, a listing can cite it.

    >>> bandwidth = Figure(3.35e12, "datasheet", "read", "p. 3")
    >>> bandwidth / 2, bandwidth.source
    (1675000000000.0, 'datasheet')
    """

    __slots__ = ("source", "status", "where")
    source: str  # key of the record's `sources`
    status: str  # one of STATUSES
    where: str  # place in the source, or how the figure was derived from it

    def __new__(
        cls, value: float, source: str = "", status: str = "given", where: str = ""
    ) -> Self:
        self = super().__new__(cls, value)
        self.source, self.status, self.where = source, status, where
        return self

    @property
    def measured(self) -> bool:
        """Was it measured, or is it a change of what was measured?"""
        return self.status == "measured" or self.where == WAS_MEASURED

    def __reduce__(self) -> tuple[Any, ...]:
        return Figure, (float(self), self.source, self.status, self.where)


class Table(dict[str, V]):
    """An immutable, hashable dict: records that hold one can be compared, hashed and cached."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]  # dict sets __hash__ to None
        return hash(tuple(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a hardware record cannot be changed; make a changed copy with device(name, changes)"
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def table(pairs: Iterable[tuple[str, V]]) -> Table[V]:
    """A Table of the pairs, in their order."""
    return Table(dict(pairs))
