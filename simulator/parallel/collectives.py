"""Seconds of collectives, and of a send, over a group of devices.

`bytes` is the buffer of one rank as nccl-tests counts it: the whole tensor for an all-reduce and
the full side of a gather or scatter, what one rank sends to all ranks (itself included) for an
all-to-all. Everything broadcasts.

At each level of the network R members exchange their parts; below it, R_below members share the
tensor already:

    wire = bytes (1/R_below - 1/R)       over all levels a gather or scatter of D members moves
                                         (1 - 1/D) bytes per device
    T    = wire / (share (1 - spread R_below/R) x usable bandwidth)
    t    = start + sum over levels (steps x hop) + max over levels (T + sqrt(chunk T))

Levels work at the same time on successive chunks, so the slowest counts; the root is the cost of
filling that pipeline. Every NIC of a node works, each member for its own part. Between nodes a sum
takes a hierarchical ring, a tree over nodes or a reduction in the switch, whichever is cheapest; a
gather or scatter takes one ring through all members, whose D - 1 steps grow with the group, since
NCCL has no other algorithm for it. One-node constants reproduce nccl-tests on A100, H100 and B200
within 4.3 / 6.8 % (median / mean); networks between nodes have no fit (see collectives.toml).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.collective_constants import Collectives
from roofcast.simulator.parallel.fabric import Fabric, Group, Level


def _transfer(seconds: Any, chunk: float) -> Any:
    """A transfer in chunks: the time on the wire, and of filling the pipeline."""
    return seconds + np.sqrt(chunk * seconds)


def _slowest_level(
    bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives, factor: float, reduce: bool
) -> Any:
    """Seconds of the slowest level of `factor` gathers or scatters."""
    slowest: Any = 0.0
    below: Any = 1.0
    for level, within, usable in zip(fabric.levels, group.within, group.usable, strict=True):
        k = c.networks[level.constants]
        share = k.share * (k.all_reduce if reduce else 1.0)
        # (1/below - 1/within) / (1 - spread below/within)
        part = (within - below) / (below * (within - k.spread * below))
        wire = part * usable_seconds(bytes, factor, level, usable, share)
        slowest = np.maximum(slowest, _transfer(wire, k.chunk))
        below = within
    return slowest


def usable_seconds(
    bytes: ArrayLike, factor: float, level: Level, usable: ArrayLike, share: float
) -> np.ndarray:
    """Seconds that `factor` x `bytes` take at a level's achieved bandwidth.

    usable: fraction of a device's bandwidth that the group can use; share: achieved fraction of it.
    """
    seconds = np.asarray(bytes, dtype=float) * (factor / (share * level.bandwidth))
    return seconds / np.asarray(usable)


def _slowest_link(bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives) -> Any:
    """Seconds of the slowest level of one ring through all members. Every part passes every link:
    where two nodes could exchange halves, nearly all of the bytes cross the network. Less than two
    parts of a level are a mean over groups, of which some lie within one.
    """
    slowest: Any = 0.0
    below: Any = 1.0
    for level, within, usable in zip(fabric.levels, group.within, group.usable, strict=True):
        k = c.networks[level.constants]
        passing = (1.0 - 1.0 / group.size) * np.clip(within / below - 1.0, 0.0, 1.0)
        part = passing / (below * (1.0 - k.spread * below / within))
        wire = part * usable_seconds(bytes, 1.0, level, usable, k.share)
        slowest = np.maximum(slowest, _transfer(wire, k.chunk))
        below = within
    return slowest


def _start(group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """Launch and handshake."""
    return np.where(group.size > 1.0, c.networks[fabric.levels[0].constants].start, 0.0)


def _ring_latency(group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """Start and steps of one ring through all members: D - 1 steps, of which nodes - 1 cross the
    network. Compilers pass a torus axis by axis.
    """
    total = _start(group, fabric, c)
    levels = zip(fabric.levels, group.steps, group.within, strict=True)
    for level, steps, within in levels:
        times = 1.0 if level.topology == "torus" else group.size / within
        total = total + times * steps * c.networks[level.constants].hop
    return total


def _tree_latency(group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """Start and steps of a sum: a chain within a node, a tree over nodes, and back."""
    total = _start(group, fabric, c)
    for level, steps in zip(fabric.levels, group.steps, strict=True):
        k = c.networks[level.constants]
        hops = steps * (2.0 * k.hop)
        if level.topology == "network":
            hops = np.minimum(hops, np.log2(1.0 + steps) * (2.0 * k.tree))
        total = total + hops
    return total


def all_gather(bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """Every rank ends with the `bytes` of which each held 1/D. NCCL knows trees for sums only: a
    gather or scatter is a ring through all members (NVIDIA/nccl, src/graph/tuning.cc).
    """
    latency = _ring_latency(group, fabric, c)
    if any(level.topology == "torus" for level in fabric.levels):
        return latency + _slowest_level(bytes, group, fabric, c, 1.0, False)
    return latency + _slowest_link(bytes, group, fabric, c)


reduce_scatter = all_gather  # the same bytes over the same links, in the other direction


def all_reduce_ring(bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """Reduce-scatter inner to outer level, all-gather back: a ring within one domain, hierarchical
    over several.
    """
    return _tree_latency(group, fabric, c) + _slowest_level(bytes, group, fabric, c, 2.0, True)


def all_reduce_in_switch(
    bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives
) -> np.ndarray:
    """The innermost switch adds and multicasts (NVLink SHARP); the levels above work as in the
    ring. Infinite without such a switch.

        T of the innermost level = bytes / (in_switch x bandwidth), for any number of members
    """
    inner, rest = fabric.levels[0], fabric._replace(levels=fabric.levels[1:])
    if not inner.reduces:
        return np.asarray(np.inf)
    k = c.networks[inner.constants]
    near = _transfer(usable_seconds(bytes, 1.0, inner, 1.0, k.in_switch), k.chunk)
    members = group.within[0]
    outer = Group(
        group.nodes,
        tuple(w / members for w in group.within[1:]),
        group.usable[1:],
        group.steps[1:],
        group.stretch[1:],
    )
    far: Any = 0.0
    if rest.levels:
        far = _slowest_level(np.asarray(bytes) / members, outer, rest, c, 2.0, True)
    ring = _tree_latency(group, fabric, c)
    near_steps = group.steps[0] * (2.0 * k.hop)
    latency = ring - near_steps + np.minimum(near_steps, c.kinds.in_switch_start)
    return np.where(group.size > 1.0, latency + np.maximum(near, far), 0.0)


def all_reduce(bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """The sum of `bytes` on every rank, by the cheapest algorithm there is."""
    ring = all_reduce_ring(bytes, group, fabric, c)
    if not fabric.levels[0].reduces:
        return ring
    return np.minimum(ring, all_reduce_in_switch(bytes, group, fabric, c))


def dispatch_copies(topk: float, domains: ArrayLike, deduplicated: bool) -> np.ndarray:
    """Copies of a token that leave its domain for experts in n domains, on average with even
    routing.

        plain          topk (1 - 1/n)
        deduplicated   (n - 1) (1 - (1 - 1/n)^topk)   one copy per domain, multiplied there
                                                      (DeepEP, HybridEP)

    >>> float(dispatch_copies(8, 4, False)), round(float(dispatch_copies(8, 4, True)), 3)
    (6.0, 2.7)
    """
    n = np.asarray(domains)
    if deduplicated:
        return (n - 1.0) * (1.0 - (1.0 - 1.0 / n) ** topk)
    return topk * (1.0 - 1.0 / n)


def all_to_all(
    bytes: ArrayLike,
    group: Group,
    fabric: Fabric,
    c: Collectives,
    topk: float = 1.0,
    deduplicated: bool = False,
) -> np.ndarray:
    """Every rank sends 1/D of its `bytes` to each rank.

    At a level, 1 - R_below/R of the bytes change hands: what leaves a node first crosses to the
    device on the right rail. topk: copies of each token in `bytes`; deduplicated: only one copy per
    domain crosses the network.
    """
    slowest: Any = 0.0
    below: Any = 1.0
    total = np.where(
        group.size > 1.0,
        c.kinds.all_to_all_start * c.networks[fabric.levels[0].constants].start,
        0.0,
    )
    levels = zip(fabric.levels, group.within, group.usable, group.stretch, group.steps, strict=True)
    for level, within, usable, stretch, steps in levels:
        k = c.networks[level.constants]
        part = (within - below) / (within - k.spread * below)
        if deduplicated and level.topology == "network":
            domains = within / below
            plain = np.maximum(dispatch_copies(topk, domains, False), 1e-12)
            part = part * dispatch_copies(topk, domains, True) / plain
        wire = part * stretch * usable_seconds(bytes, 1.0, level, usable, k.share)
        slowest = np.maximum(slowest, _transfer(wire, k.chunk))
        total = total + steps * (c.kinds.all_to_all_hop * k.hop)
        below = within
    return total + slowest


def send_recv(bytes: ArrayLike, group: Group, fabric: Fabric, c: Collectives) -> np.ndarray:
    """One send between neighbours of the group, as between pipeline stages; the mean over its pairs
    where some pairs are in one node and others are not. A rank that sends over the network has its
    own part of the NICs.
    """
    inner, outer = fabric.levels[0], fabric.levels[-1]
    kind, near_constants = c.kinds, c.networks[inner.constants]
    share = kind.pair if inner.topology == "switch" else near_constants.share
    wire = usable_seconds(bytes, 1.0, inner, _pair_links(inner), share)
    near = near_constants.start + wire
    far = kind.pair_far_start + usable_seconds(bytes, 1.0, outer, 1.0, kind.pair_far)
    crossing = (group.nodes - 1.0) / np.maximum(group.size - 1.0, 1.0)
    return np.where(group.size > 1.0, near + crossing * (far - near), 0.0)


def _pair_links(level: Level) -> float:
    """Fraction of a device's bandwidth that leads to one neighbour."""
    if level.topology == "mesh":
        return 1.0 / max(level.size - 1.0, 1.0)
    if level.topology == "cube":
        return 1.0 / max(float(np.log2(level.size)), 1.0)
    if level.topology == "torus":
        return 0.5 / len(level.axes)
    return 1.0
