"""What a kind of layer is, and the table that the kinds register in.

A value between layers has one of four forms, batch first:

    ids       [B, S]          token ids
    features  [B, F]          one row per sample
    tokens    [B, S, W]       a sequence of vectors
    space     [B, C, ...]     channels, then one to three spatial dimensions
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from roofcast.simulator.models.toml.keys import Keys
from roofcast.simulator.work.tape import Tape, Value

Run = Callable[[Tape, Value, Any], Value]


class Kind(NamedTuple):
    """One kind of layer: its keys, the forms it takes and gives, and the ops it runs."""

    keys: type[Keys]
    about: str  # what the layer does, in one sentence
    takes: tuple[str, ...]  # forms of its input
    gives: str = ""  # form of its output; empty: that of its input
    op: str = ""  # kind of op in a forecast; empty: several ops under a scope, or only a view
    run: Run | None = None  # None: a kind that holds other layers


KINDS: dict[str, Kind] = {}


def register(
    names: str, keys: type[Keys], about: str, takes: str, gives: str = "", op: str = ""
) -> Callable[[Run], Run]:
    """A decorator that enters a function as the kinds `names` (separated by spaces).

    `op` is the kind of op it counts as: by default the kind's own name; "-" for a kind that opens
    ops itself or launches nothing.
    """

    def enter(run: Run) -> Run:
        for name in names.split():
            shown = "" if op == "-" else op or name
            KINDS[name] = Kind(keys, about, tuple(takes.split()), gives, shown, run)
        return run

    return enter


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape without its batch.

    >>> shape_text((2, 64, 8, 8)), shape_text((2,))
    ('64x8x8', '1')
    """
    return "x".join(map(str, shape[1:])) or "1"
