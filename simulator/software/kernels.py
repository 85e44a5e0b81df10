"""Kernels by age: the generation of matrix instructions that a kernel is written for.

kernels.toml lists them; a stack names its own in `kernels`, by KINDS. The rate of a kernel on a
device of a later generation follows from the instructions that it has: simulator/times/ages.py.
"""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from roofcast.hwdb.errors import unknown
from roofcast.hwdb.strict import checked, load

FILE = Path(__file__).with_name("kernels.toml")
KINDS = ("attention",)  # of kernels that a stack names


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A generation of matrix instructions."""

    flop_per_clock: float  # 16-bit products, per core and clock [FLOP]
    families: tuple[str, ...]  # device families whose newest instructions these are
    source: str


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel as some release has it."""

    about: str
    year: int
    # by generation for which it has code of its own: speed, as a fraction of the family's formula
    rates: dict[str, float]
    source: str
    # families whose formula was fitted to this kernel
    fitted_with: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sections of kernels.toml. Generations stand from the oldest to the newest."""

    generations: dict[str, Generation]
    attention: dict[str, Kernel]
    products: dict[str, Kernel]


@functools.cache
def table() -> Table:
    """Everything in kernels.toml."""
    return checked(Table, load(FILE, "a table of kernels"), str(FILE))


def attention_kernel(name: str) -> Kernel:
    """The attention kernel of that name. Raises UnknownName."""
    known = table().attention
    if name not in known:
        raise unknown("attention kernel", name, known, f"known: {', '.join(known)}")
    return known[name]


def generation_of(family: str) -> str | None:
    """The generation of a device family's instructions; None where no generation lists it."""
    return next((name for name, g in table().generations.items() if family in g.families), None)


def written_for(kernel: Kernel, family: str) -> str | None:
    """The generation whose instructions a kernel uses on a device of that family: the family's own
    or the newest older one that the kernel has; None where it has neither, or none is known.
    """
    own = generation_of(family)
    order = list(table().generations)
    if own is None:
        return None
    older = [name for name in order[: order.index(own) + 1] if name in kernel.rates]
    return older[-1] if older else None
