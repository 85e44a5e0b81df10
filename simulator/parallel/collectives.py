"""Seconds of collectives, and of a send, over a group of devices.

`bytes` is the buffer of one rank as nccl-tests counts it: the whole tensor for an all-reduce, a
broadcast and the full side of a gather or scatter, what one rank sends to all (itself included) for
an all-to-all. Everything broadcasts.

At each level the group's members m hand on what is theirs; below, R members have already shared the
tensor out:

    wire_l = bytes (1/R_below - 1/R)          a gather or scatter of D members moves (1 - 1/D) bytes
                                              a device over all levels
    T_l    = wire_l / (share (1 - spread/m) x bandwidth usable)
    t      = start + sum_l steps_l hop_l + max_l (T_l + sqrt(chunk T_l))

Levels work at once on successive chunks, so the slowest counts; the root is what filling that
pipeline costs. Every NIC of a node works, each member for its own part: the hierarchical algorithm.
Rings, trees over nodes and reduction in the switch are siblings, and the cheapest is taken, as NCCL
does. One-node constants reproduce nccl-tests on A100, H100 and B200 to 4.3 / 6.8 % (median / mean);
networks between nodes have no fit (see collectives.toml).
"""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.collective_constants import Collectives
from roofcast.simulator.parallel.fabric import Fabric, Group


def _transfer(seconds, chunk):
    """A transfer in chunks: the wire's time and the filling of the pipeline."""
    return seconds + np.sqrt(chunk * seconds)


def _half(bytes, group: Group, fabric: Fabric, c: Collectives, factor: float, reduce: bool):
    """Seconds on the wire of the slowest level, of `factor` gathers or scatters."""
    slowest, below = 0.0, 1.0
    for level, within, usable in zip(fabric.levels, group.within, group.usable, strict=True):
        k = c.networks[level.constants]
        gain = k.all_reduce if reduce else 1.0
        # (1/below - 1/within) / (1 - spread below/within)
        part = (within - below) / (below * (within - k.spread * below))
        slowest = np.maximum(
            slowest,
            _transfer(part * usable_seconds(bytes, factor, level, usable, k.share * gain), k.chunk),
        )
        below = within
    return slowest


def usable_seconds(bytes, factor, level, usable, share):
    """Seconds that `factor` x `bytes` take at a level's achieved bandwidth."""
    return np.asarray(bytes, dtype=float) * (factor / (share * level.bandwidth)) / usable


def _latency(group: Group, fabric: Fabric, c: Collectives, factor: float):
    """Start and steps of a ring at each level, or of a tree over a network's nodes where that is
    shorter.
    """
    total = np.where(group.size > 1.0, c.networks[fabric.levels[0].constants].start, 0.0)
    for level, steps in zip(fabric.levels, group.steps, strict=True):
        k = c.networks[level.constants]
        ring = steps * (factor * k.hop)
        total = total + (
            np.minimum(ring, np.log2(1.0 + steps) * (factor * k.tree))
            if level.topology == "network"
            else ring
        )
    return total


def all_gather(bytes, group: Group, fabric: Fabric, c: Collectives):
    """Every rank ends with the `bytes` of which each held 1/D."""
    return _latency(group, fabric, c, 1.0) + _half(bytes, group, fabric, c, 1.0, False)


reduce_scatter = all_gather  # the same bytes over the same links, the other way


def all_reduce_ring(bytes, group: Group, fabric: Fabric, c: Collectives):
    """Reduce-scatter inward to outward, all-gather back: a ring in one domain, hierarchical over
    several.
    """
    return _latency(group, fabric, c, 2.0) + _half(bytes, group, fabric, c, 2.0, True)


def all_reduce_in_switch(bytes, group: Group, fabric: Fabric, c: Collectives):
    """The innermost switch adds and multicasts (NVLink SHARP); the levels above do as in the ring.
    Infinite without such a switch.

    T_0 = bytes / (in_switch bandwidth)       whatever the number of members
    """
    inner, rest = fabric.levels[0], fabric._replace(levels=fabric.levels[1:])
    if not inner.reduces:
        return np.inf
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
    far = 0.0
    if rest.levels:
        far = _half(np.asarray(bytes) / members, outer, rest, c, 2.0, True)
    ring = _latency(group, fabric, c, 2.0)
    near_steps = group.steps[0] * (2.0 * k.hop)
    latency = ring - near_steps + np.minimum(near_steps, c.kinds.in_switch_start)
    return np.where(group.size > 1.0, latency + np.maximum(near, far), 0.0)


def all_reduce(bytes, group: Group, fabric: Fabric, c: Collectives):
    """The sum of `bytes` on every rank, by the cheapest algorithm there is."""
    ring = all_reduce_ring(bytes, group, fabric, c)
    return (
        np.minimum(ring, all_reduce_in_switch(bytes, group, fabric, c))
        if fabric.levels[0].reduces
        else ring
    )


def dispatch_copies(topk, domains, deduplicated: bool):
    """Copies of a token that leave its domain for the experts of the others, on average with even
    routing.

        plain          topk (1 - 1/n)
        deduplicated   (n - 1) (1 - (1 - 1/n)^topk)      one copy a domain, multiplied there
                       (DeepEP, HybridEP)

    >>> dispatch_copies(8, 4, False), float(round(dispatch_copies(8, 4, True), 3))
    (6.0, 2.7)
    """
    if deduplicated:
        return (domains - 1.0) * (1.0 - (1.0 - 1.0 / domains) ** topk)
    return topk * (1.0 - 1.0 / domains)


def all_to_all(
    bytes, group: Group, fabric: Fabric, c: Collectives, topk=1.0, deduplicated: bool = False
):
    """Every rank sends 1/D of its `bytes` to each rank.

    At a level, 1 - R_below/R of the bytes change hands: what leaves a node first crosses to the
    device of the right rail. deduplicated: `bytes` holds topk copies of each token, and only one a
    domain crosses the network.
    """
    k0 = c.networks[fabric.levels[0].constants]
    slowest, below = 0.0, 1.0
    for level, within, usable, stretch in zip(
        fabric.levels, group.within, group.usable, group.stretch, strict=True
    ):
        k = c.networks[level.constants]
        part = (within - below) / (within - k.spread * below)
        if deduplicated and level.topology == "network":
            domains = within / below
            part = (
                part
                * dispatch_copies(topk, domains, True)
                / np.maximum(dispatch_copies(topk, domains, False), 1e-12)
            )
        slowest = np.maximum(
            slowest,
            _transfer(part * stretch * usable_seconds(bytes, 1.0, level, usable, k.share), k.chunk),
        )
        below = within
    total = np.where(group.size > 1.0, c.kinds.all_to_all_start * k0.start, 0.0)
    for level, steps in zip(fabric.levels, group.steps, strict=True):
        total = total + steps * (c.kinds.all_to_all_hop * c.networks[level.constants].hop)
    return total + slowest


def send_recv(bytes, group: Group, fabric: Fabric, c: Collectives):
    """One send between neighbours of the group, as between pipeline stages; the mean over its pairs
    where some pairs lie in one node and others do not. A rank that sends over the network has its
    own part of the NICs.
    """
    inner, outer = fabric.levels[0], fabric.levels[-1]
    kind = c.kinds
    near_share = kind.pair if inner.topology == "switch" else c.networks[inner.constants].share
    usable = _pair_links(inner)
    near = c.networks[inner.constants].start + usable_seconds(bytes, 1.0, inner, usable, near_share)
    far = kind.pair_far_start + usable_seconds(bytes, 1.0, outer, 1.0, kind.pair_far)
    crossing = (group.nodes - 1.0) / np.maximum(group.size - 1.0, 1.0)
    return np.where(group.size > 1.0, near + crossing * (far - near), 0.0)


def _pair_links(level) -> float:
    """Part of a device's bandwidth that leads to one neighbour."""
    if level.topology == "mesh":
        return 1.0 / max(level.size - 1.0, 1.0)
    if level.topology == "cube":
        return 1.0 / max(float(np.log2(level.size)), 1.0)
    if level.topology == "torus":
        return 0.5 / len(level.axes)
    return 1.0
