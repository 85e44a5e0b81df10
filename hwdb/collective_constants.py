"""Constants of the collective formulas: collectives.toml.

`collectives()` gives the bare numbers that the formulas compute with; `constants()` gives the same
with unit, meaning and source, for listings.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import msgspec

from roofcast.hwdb.constants import HERE, Constant, converted, table
from roofcast.hwdb.errors import BadInput


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latencies [s] and bandwidth fractions [1] of one kind of network."""

    start: float
    hop: float
    tree: float
    share: float
    spread: float
    all_reduce: float
    chunk: float
    in_switch: float
    contention: float


class Kinds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What distinguishes one collective from another, on any network."""

    all_to_all_start: float
    all_to_all_hop: float
    in_switch_start: float
    pair: float
    pair_far: float
    pair_far_start: float
    straggling: float


class Collectives(msgspec.Struct, frozen=True):
    """The bare numbers of collectives.toml; the file states their units and meanings."""

    networks: dict[str, Network]
    kinds: Kinds


def read_collectives(path: Path) -> tuple[Collectives, dict[str, Constant]]:
    """The bare numbers, and each constant that the file states by its dotted name.

    A section with `like` takes from the section named there what it does not state.
    """
    stated = table(path, dict[str, dict[str, str | Constant]])
    named = {
        f"{section}.{name}": c
        for section, entries in stated.items()
        for name, c in entries.items()
        if isinstance(c, Constant)
    }
    bare = {
        section: {name: c.value for name, c in entries.items() if isinstance(c, Constant)}
        for section, entries in stated.items()
    }
    kinds = converted(bare.pop("kinds", {}), Kinds, path)
    for section, values in bare.items():
        like = stated[section].get("like")
        if like is None:
            continue
        if not isinstance(like, str) or like not in bare:
            raise BadInput(
                f"{path.name}: [{section}] like = {like!r}; wanted one of {', '.join(bare)}"
            )
        bare[section] = {**bare[like], **values}
    return Collectives(converted(bare, dict[str, Network], path), kinds), named


def collectives() -> Collectives:
    """The shipped constants, bare; with other latencies inside `with slower(..)`."""
    return _changed.get() or _shipped()


@functools.cache
def _shipped() -> Collectives:
    return read_collectives(HERE / "collectives.toml")[0]


_changed: ContextVar[Collectives | None] = ContextVar("collectives", default=None)


@contextmanager
def slower(factor: float) -> Iterator[None]:
    """All latencies of collectives (constants in seconds) times a factor, for what is computed
    inside.
    """
    now = collectives()
    seconds = {name.rpartition(".")[2] for name, c in constants().items() if c.unit == "s"}

    def times(part: Network | Kinds) -> dict[str, float]:
        return {k: factor * getattr(part, k) for k in seconds & set(part.__struct_fields__)}

    networks = {
        name: msgspec.structs.replace(part, **times(part)) for name, part in now.networks.items()
    }
    kinds = msgspec.structs.replace(now.kinds, **times(now.kinds))
    token = _changed.set(Collectives(networks, kinds))
    try:
        yield
    finally:
        _changed.reset(token)


@functools.cache
def constants() -> dict[str, Constant]:
    """The shipped constants with unit, meaning and source, by dotted name ("switch.chunk")."""
    return read_collectives(HERE / "collectives.toml")[1]
