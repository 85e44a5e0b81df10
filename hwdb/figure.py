"""A number that remembers where it comes from, and an immutable table of such numbers."""

from collections.abc import Iterable

STATUSES = ("read", "measured", "derived", "estimate", "recalled", "given", "edited")
"""How sure a figure is.

read: seen in the source it names.  measured: from a public measurement log.  derived: computed from
other figures. estimate: nobody has published it.  recalled: from memory of the source it names, not
read again. given: from a user's own file.  edited: changed on the command line.
"""


class Figure(float):
    """A float in SI units with its origin, so that a formula uses it bare and a listing can cite
    it.

    >>> bandwidth = Figure(3.35e12, "datasheet", "read", "p. 3")
    >>> bandwidth / 2, bandwidth.source
    (1675000000000.0, 'datasheet')
    """

    __slots__ = ("source", "status", "where")

    def __new__(cls, value: float, source: str = "", status: str = "given", where: str = ""):
        self = super().__new__(cls, value)
        self.source, self.status, self.where = source, status, where
        return self

    def __reduce__(self):
        return Figure, (float(self), self.source, self.status, self.where)


class Table(dict):
    """A dict that cannot change and can be hashed, so that the records that hold it are values."""

    __slots__ = ()

    def __hash__(self):
        return hash(tuple(self.items()))

    def __reduce__(self):
        return Table, (dict(self),)

    def _refuse(self, *_, **__):
        raise TypeError(
            "a hardware record cannot be changed in place; ask for device(name, changes)"
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def table(pairs: Iterable[tuple[str, object]]) -> Table:
    """A Table of the pairs, in their order."""
    return Table(dict(pairs))
