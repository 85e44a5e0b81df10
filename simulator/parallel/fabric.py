"""The network between devices, and where process groups lie on it.

A `Fabric` is a list of levels, innermost first: the NVLink domain, perhaps a second one, and the
network between nodes. Ranks are numbered so that neighbours in rank are neighbours in the network,
in Megatron's order: tensor parallel innermost, then context, data (expert), and pipeline parallel
outermost [narayanan2021]. A group is its size and the distance in rank between its members
(`stride`); everything here broadcasts over arrays of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.tuples import NamedTuple


class Level(NamedTuple):
    """`size` devices reach each other at `bandwidth` per device and direction [B/s]."""

    name: str
    size: float
    bandwidth: float
    topology: str  # switch | mesh | cube | torus | bus | network
    constants: str  # section of collectives.toml
    shared: bool = False  # a node's NICs are shared: `bandwidth` is one device's part of them
    reduces: bool = False  # the switch can add
    axes: tuple[tuple[int, bool], ...] = ()  # of a torus: length, and whether the ends are joined


class Fabric(NamedTuple):
    """The network between so many devices, level by level from the nearest neighbours outwards."""

    levels: tuple[Level, ...]
    devices: int
    assumptions: tuple[str, ...] = ()


def kind_of(fabric: Fabric) -> tuple[Level, ...]:
    """The levels of a fabric without what columns of layouts can differ in: the lengths of a torus,
    and the size of a switch or network that joins all devices, on which no cost depends.

    >>> level = Level("network", 64.0, 12.5e9, "network", "network")
    >>> kind_of(Fabric((level,), 64)) == kind_of(Fabric((level._replace(size=8.0),), 8))
    True
    """
    found = []
    for level in fabric.levels:
        if level.topology == "torus":
            level = level._replace(size=0.0, axes=((0, False),) * len(level.axes))
        elif level is fabric.levels[-1] and level.topology not in ("mesh", "cube"):
            level = level._replace(size=0.0)
        found.append(level)
    return tuple(found)


def is_torus(fabric: Fabric) -> bool:
    """Whether a level is a torus."""
    return any(level.topology == "torus" for level in fabric.levels)


def beside(fabrics: Sequence[Fabric]) -> Fabric:
    """Fabrics of one kind as one, of columns: one entry per fabric, along the first of two axes."""
    levels = []
    for same in zip(*(f.levels for f in fabrics), strict=True):
        level: Any = same[0]
        if level.topology == "torus":
            axes = [
                (np.array([[length] for length, _ in axis]), np.array([[e] for _, e in axis]))
                for axis in zip(*(each.axes for each in same), strict=True)
            ]
            level = level._replace(size=np.array([[each.size] for each in same]), axes=tuple(axes))
        levels.append(level)
    return fabrics[0]._replace(levels=tuple(levels))


class Group(NamedTuple):
    """A process group on a fabric; a tuple has one entry per level, innermost first. Floats or
    arrays.
    """

    size: np.ndarray
    within: tuple  # members that share this level, and so all levels below it
    usable: tuple  # fraction of a device's bandwidth that the group can use at this level
    steps: tuple  # steps of a ring at this level
    # links that a byte of an all-to-all crosses, relative to a ring between neighbours
    stretch: tuple

    @property
    def members(self) -> np.ndarray:
        """Members in one node or domain."""
        return self.within[0]

    @property
    def nodes(self) -> np.ndarray:
        """Nodes or domains spanned; fractional where a node is not filled."""
        return self.size / self.within[0]


def placed(size: ArrayLike, stride: ArrayLike, fabric: Fabric) -> Group:
    """The group of `size` ranks, `stride` apart.

        members of a level of D devices = min(size, max(D / stride, 1))

    Where D / stride is not whole this is the mean over the groups, so that cost is continuous in
    size and stride.
    """
    size, stride = np.asarray(size, dtype=float), np.asarray(stride, dtype=float)
    below = np.ones_like(size * stride)
    within, usable, steps, stretch = [], [], [], []
    for index, level in enumerate(fabric.levels):
        if index == len(fabric.levels) - 1:
            here = size + 0.0 * below
        else:
            here = np.minimum(size, np.maximum(level.size / stride, 1.0))
        part: Any
        if level.topology == "torus":
            part, ring, detour = _torus(level, here, stride)
        else:
            spread = here / below
            part, ring, detour = _links(level, spread), spread - 1.0, 1.0
        within.append(here)
        usable.append(part)
        steps.append(ring)
        stretch.append(detour)
        below = here
    return Group(size, tuple(within), tuple(usable), tuple(steps), tuple(stretch))


def _links(level: Level, members: np.ndarray) -> np.ndarray | float:
    """Fraction of a device's links that lead to one of the members: all through a switch, few in a
    mesh or a hypercube.
    """
    if level.topology == "mesh" and level.size > 1:
        return np.clip((members - 1.0) / (level.size - 1.0), 1.0 / (level.size - 1.0), 1.0)
    if level.topology == "cube" and level.size > 1:
        edges = np.log2(level.size)
        return np.clip(np.log2(members) / edges, 1.0 / edges, 1.0)
    return 1.0


def _torus(level: Level, size: np.ndarray, stride: np.ndarray) -> tuple[Any, Any, Any]:
    """Fraction of links used, steps and detours of a group on a torus whose ranks run along its
    first axis first.

    A group drives two links of every axis it spans. It has a part of an axis that it shares with
    interleaved groups, and half of an axis whose ends are not joined. More axes give more
    bandwidth: on a torus a larger group can cost less.
    """
    start: Any = 1.0
    share: Any = 0.0
    steps: Any = 0.0
    detour: Any = 0.0
    for length, joined in level.axes:
        reach = np.minimum(size * stride, start * length) / np.maximum(stride, start)
        members = np.clip(reach, 1.0, length)
        apart = np.clip(stride / start, 1.0, length)
        ring = (members * apart >= length) & joined
        used = np.minimum(members - 1.0, 1.0)
        share = share + used * np.where(ring, 1.0, 0.5) / apart
        steps = steps + (members - 1.0) * np.where(ring, 0.5, 1.0)
        detour = detour + used * members / 4.0
        start = start * length
    share = share / max(len(level.axes), 1)
    return np.where(share > 0.0, share, 1.0), steps, np.maximum(detour, 1.0)


class Groups(NamedTuple):
    """The process groups of a layout, in Megatron's order of ranks."""

    tensor: Group
    context: Group
    data: Group  # replicas, without context
    gradient: Group  # ranks that hold the same dense parameters: data x context
    pipeline: Group
    expert_tensor: Group
    expert: Group
    expert_gradient: Group  # ranks that hold the same experts
    shard: Group  # ranks of `gradient` that states are sharded over
    copies: Group  # ranks of `gradient` that hold the same shard
    expert_shard: Group
    expert_copies: Group


def groups(
    fabric: Fabric,
    tp: ArrayLike,
    cp: ArrayLike,
    dp: ArrayLike,
    pp: ArrayLike,
    ep: ArrayLike = 1,
    etp: ArrayLike | None = None,
    shard: ArrayLike | None = None,
) -> Groups:
    """Every process group of a layout: tp innermost, then cp, dp, pp; experts divide the same tp x
    cp x dp ranks. Arguments broadcast.

    etp: tensor-parallel degree of an expert (default: tp). shard: size of a sharding group
    (default: all ranks that hold the same weights); its ranks are neighbours, so that hybrid
    sharding stays within a node where it can.
    """
    tp, cp, dp, pp, ep = (np.asarray(x, dtype=float) for x in (tp, cp, dp, pp, ep))
    etp = tp if etp is None else np.asarray(etp, dtype=float)
    stage, alike = tp * cp * dp, np.maximum(tp * cp * dp / (etp * ep), 1.0)
    shard = cp * dp if shard is None else np.asarray(shard, dtype=float)
    expert_shard = np.minimum(shard, alike)
    return Groups(
        placed(tp, 1.0, fabric),
        placed(cp, tp, fabric),
        placed(dp, tp * cp, fabric),
        placed(cp * dp, tp, fabric),
        placed(pp, stage, fabric),
        placed(etp, 1.0, fabric),
        placed(ep, etp, fabric),
        placed(alike, etp * ep, fabric),
        placed(shard, tp, fabric),
        placed(cp * dp / shard, tp * shard, fabric),
        placed(expert_shard, etp * ep, fabric),
        placed(alike / expert_shard, etp * ep * expert_shard, fabric),
    )
