"""The network between devices, and where a process group lies on it.

A `Fabric` is a list of levels, innermost first: the NVLink domain, perhaps a second one, and what
joins the nodes. Ranks are numbered so that neighbours in rank are neighbours in the network, in
Megatron's order: tensor parallel innermost, then context, data (expert), and pipeline parallel
outermost [narayanan2021]. A group is its size and the distance in rank between its members
(`stride`); everything here broadcasts over arrays of both.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.hwdb.records import Device, System, Tier

REFERENCE = {  # whose nodes and NICs stand for a device that is named without a system
    "a100-sxm4-40gb": "dgx-a100-320gb", "a100-sxm4-80gb": "dgx-a100-640gb",
    "a800-sxm4-80gb": "dgx-a100-640gb", "h100-sxm5": "dgx-h100", "h100-sxm5-96gb": "dgx-h100",
    "h800-sxm5": "dgx-h100", "h200-sxm": "dgx-h200", "h20": "hgx-h20", "b200-sxm": "dgx-b200",
    "b100-sxm": "dgx-b200", "b300-sxm": "dgx-b300", "gb200": "gb200-nvl72", "gb300": "gb300-nvl72",
    "rubin": "vera-rubin-nvl72", "v100-sxm2-16gb": "dgx-1-v100", "v100-sxm2-32gb": "dgx-1-v100",
    "p100-sxm2": "dgx-1-p100", "mi250x": "frontier-node", "mi300x": "mi300x-platform",
    "mi325x": "mi300x-platform", "mi350x": "mi355x-platform", "mi355x": "mi355x-platform",
    "mi455x": "helios-mi455x", "gaudi2": "gaudi2-server", "gaudi3": "gaudi3-server",
    "max-1550": "aurora-node", "trainium1": "aws-trn1", "trainium2": "aws-trn2",
    "trainium3": "aws-trn3-ultraserver", "ascend-910b": "atlas-800t-a2",
    "ascend-910c": "cloudmatrix384", "tpu-v2": "tpu-v2-pod", "tpu-v3": "tpu-v3-pod",
    "tpu-v4": "tpu-v4-pod", "tpu-v5e": "tpu-v5e-pod", "tpu-v5p": "tpu-v5p-pod",
    "tpu-v6e": "tpu-v6e-pod", "tpu-v7": "tpu-v7-pod",
}  # fmt: skip
DESKTOP = ("rtx-", "gtx-", "titan", "quadro", "rx-", "radeon", "arc-")
REDUCING = ("nvlink4", "nvlink5", "nvlink6")  # generations whose NVSwitch adds (SHARP)
CHIPS_PER_HOST = 4.0  # of a TPU slice, for its share of the datacenter network
DEFAULT_NIC = 12.5e9  # one NIC a node, 100 Gb/s, where nothing is known


class Level(NamedTuple):
    """`size` devices reach each other at `bandwidth` per device and direction [B/s]."""

    name: str
    size: float
    bandwidth: float
    topology: str  # switch | mesh | cube | torus | bus | network
    constants: str  # section of collectives.toml
    shared: bool = False  # the node's NICs are shared: `bandwidth` is a device's part of them
    reduces: bool = False  # the switch can add
    axes: tuple[tuple[int, bool], ...] = ()  # of a torus: length, and whether the ends are joined


class Fabric(NamedTuple):
    """The network between so many devices, level by level from the nearest neighbours outwards."""

    levels: tuple[Level, ...]
    devices: int
    assumptions: tuple[str, ...] = ()  # what was not known, in words


class Group(NamedTuple):
    """A process group laid on a fabric; a tuple holds one entry a level, innermost first. Floats or
    arrays.
    """

    size: np.ndarray
    within: tuple  # members that share this level, and so all that lie below it
    usable: tuple  # part of a device's bandwidth that the group can use at this level
    steps: tuple  # steps of a ring at this level
    # links that a byte of an all-to-all crosses, over those of a ring that stays at home
    stretch: tuple

    @property
    def members(self):
        """r: members in one node or domain."""
        return self.within[0]

    @property
    def nodes(self):
        """n: nodes or domains spanned; fractional where a node is not filled."""
        return self.size / self.within[0]


def placed(size, stride, fabric: Fabric) -> Group:
    """The group of `size` ranks, `stride` apart.

        members of a level of D devices = min(size, max(D / stride, 1))

    Where D / stride is not whole this is the mean over the groups, so that cost is continuous in
    size and stride.
    """
    size, stride = np.asarray(size, dtype=float), np.asarray(stride, dtype=float)
    below = np.ones_like(size * stride)
    within, usable, steps, stretch = [], [], [], []
    for index, level in enumerate(fabric.levels):
        last = index == len(fabric.levels) - 1
        here = (
            size + 0.0 * below if last else np.minimum(size, np.maximum(level.size / stride, 1.0))
        )
        spread = here / below
        if level.topology == "torus":
            part, ring, detour = _torus(level, here, stride)
        else:
            part, ring, detour = _links(level, spread), spread - 1.0, 1.0
        within.append(here)
        usable.append(part)
        steps.append(ring)
        stretch.append(detour)
        below = here
    return Group(size, tuple(within), tuple(usable), tuple(steps), tuple(stretch))


def _links(level: Level, members):
    """Part of a device's links that lead to one of the members: all through a switch, few in a mesh
    or a hypercube.
    """
    if level.topology == "mesh" and level.size > 1:
        return np.clip((members - 1.0) / (level.size - 1.0), 1.0 / (level.size - 1.0), 1.0)
    if level.topology == "cube" and level.size > 1:
        edges = np.log2(level.size)
        return np.clip(np.log2(members) / edges, 1.0 / edges, 1.0)
    return 1.0


def _torus(level: Level, size, stride):
    """Links used, steps and detours of a group on a torus whose ranks run along its first axis
    first.

    A group drives two links of every axis it spans; one that it shares with interleaved groups it
    has in part, and an axis whose ends are not joined gives half. More axes are more bandwidth: on
    a torus a larger group can cost less.
    """
    start, share, steps, detour = 1.0, 0.0, 0.0, 0.0
    for length, joined in level.axes:
        members = np.clip(
            np.minimum(size * stride, start * length) / np.maximum(stride, start), 1.0, length
        )
        apart = np.clip(stride / start, 1.0, length)
        ring = (members * apart >= length) & joined
        used = np.minimum(members - 1.0, 1.0)
        share = share + used * np.where(ring, 1.0, 0.5) / apart
        steps = steps + (members - 1.0) * np.where(ring, 0.5, 1.0)
        detour = detour + used * members / 4.0
        start *= length
    share = share / max(len(level.axes), 1)
    return np.where(share > 0.0, share, 1.0), steps, np.maximum(detour, 1.0)


def fabric_of(system: System | None, device: Device, devices: int) -> Fabric:
    """The network between `devices` devices: of a system, or of what a device of its kind is
    usually built into.
    """
    said: list[str] = []
    if system is None:
        name = REFERENCE.get(device.id) or REFERENCE.get(device.base)
        if name is None:
            return _alone(device, devices)
        system = hwdb.system(name)
        if devices > 1:
            said.append(
                f"{device.id} named without a system: nodes, links and NICs of {system.name}"
            )
    levels, said_levels = _levels(system, device, devices)
    return Fabric(tuple(levels), devices, (*said, *said_levels))


def _levels(system: System, device: Device, devices: int) -> tuple[list[Level], list[str]]:
    """The levels that `devices` devices span, and what was assumed of them."""
    said: list[str] = []
    tiers = [
        t
        for t in system.levels
        if not (system.nics and t.link == system.nics.link and t is not system.levels[0])
    ]
    levels: list[Level] = []
    for tier in tiers:
        own = (
            bool(device.edits)
            and device.scale_up.bandwidth
            and device.scale_up.link == tier.link
            and tier is tiers[0]
        )
        bandwidth = float(device.scale_up.bandwidth) if own else float(tier.bandwidth)
        level, words = _level(tier, bandwidth, device, devices)
        levels.append(level)
        said += words
        if level.size >= devices:
            return levels, said
    inner = levels[-1].size if levels else 1.0
    size = float(system.count) if system.nics else inner
    if system.nics:
        nic = float(system.nics.count * system.nics.bandwidth) / size
    elif levels and levels[-1].topology == "torus":
        nic = float(hwdb.link("tpu-dcn").bandwidth) / CHIPS_PER_HOST
        said.append(
            f"slices of {inner:.0f} chips are joined by the datacenter network at {nic / 1e9:.4g}"
            " GB/s a chip"
        )
    else:
        nic = DEFAULT_NIC / max(inner, 1.0)
        said.append(f"{system.name} names no NIC: one of 100 Gb/s a node assumed")
    return [*levels, Level("network", float(devices), nic, "network", "network", shared=True)], said


def _level(tier: Tier, bandwidth: float, device: Device, devices: int) -> tuple[Level, list[str]]:
    """One level of a system, as far as `devices` devices fill it."""
    text, full, said = tier.topology.lower(), int(tier.size), []
    size = min(full, devices)
    if "torus" in text:
        axes = slice_of(size, tier.topology)
        if devices > 1 and size < full:
            said.append(f"slice of {'x'.join(str(length) for length, _ in axes)} chips assumed")
        return Level(tier.name, float(size), bandwidth, "torus", "torus", axes=axes), said
    if size == full and devices > full and devices % full and full & (full - 1):
        whole = 2 ** int(np.log2(full))
        if devices % whole == 0:
            size = whole
            said.append(
                f"{whole} of the {full} devices of a {tier.name} are used, as {devices} is not a"
                f" multiple of {full}"
            )
    topology = (
        "bus"
        if tier.link.startswith("pcie")
        else "cube"
        if "cube" in text
        else "mesh"
        if "mesh" in text
        else "switch"
    )
    reduces = tier.link in REDUCING and "nvswitch" in text
    if topology in ("mesh", "cube"):
        bandwidth *= 1.0 if size == full else _part(topology, size, full)
    return (
        Level(
            tier.name, float(size), bandwidth, topology, _section(device, topology), reduces=reduces
        ),
        said,
    )


def _part(topology: str, size: int, full: int) -> float:
    """Links that stay in use when only `size` of `full` devices of a mesh or hypercube are
    there.
    """
    return (
        max(size - 1, 1) / (full - 1)
        if topology == "mesh"
        else max(np.log2(size), 1.0) / np.log2(full)
    )


def _section(device: Device, topology: str) -> str:
    """The constants that hold for a network between such devices."""
    if topology == "bus":
        return "bus"
    return (
        device.family
        if device.family in collectives().networks and topology == "switch"
        else "switch"
    )


def slice_of(devices: int, topology: str) -> tuple[tuple[int, bool], ...]:
    """Axes of the squarest torus of so many chips, short ones first, each with whether its ends are
    joined.

    Ends are joined where an axis has the pod's full length, and in three dimensions wherever it is
    a multiple of four (optical switches join cubes of 4x4x4) (Jouppi et al. 2023).

    >>> slice_of(64, "3D torus 16x16x16"), slice_of(32, "2D torus 16x16")
    (((4, True), (4, True), (4, True)), ((4, False), (8, False)))
    """
    found = re.search(r"\d+(?:x\d+)+", topology)
    full = [int(part) for part in found.group().split("x")] if found else [0, 0, 0]
    axes, left = [], devices
    for dimension in range(len(full), 0, -1):
        ideal = left ** (1.0 / dimension)
        length = min(
            (d for d in range(1, left + 1) if left % d == 0),
            key=lambda d, i=ideal: abs(np.log(d / i)),
        )
        axes.append(length)
        left //= length
    switched = len(full) == 3 and devices >= 64
    return tuple(
        (length, length > 2 and (length in full or (switched and length % 4 == 0)))
        for length in sorted(axes)
    )


def _alone(device: Device, devices: int) -> Fabric:
    """What is assumed of a device that no known system holds: its bridge if it has one, PCIe, one
    NIC a node.
    """
    node = (
        1
        if device.kind == "cpu"
        else 4
        if device.id.startswith(DESKTOP) or device.base.startswith(DESKTOP)
        else 8
    )
    levels: list[Level] = []
    domain = re.search(r"\d+", device.scale_up.domain)
    near = int(domain.group()) if domain and device.scale_up.bandwidth else 1
    if near > 1:
        size = float(min(near, devices))
        levels.append(
            Level(
                "links",
                size,
                float(device.scale_up.bandwidth),
                "switch",
                _section(device, "switch"),
            )
        )
        said = [f"{near} {device.id} joined by {device.scale_up.link or 'their links'}"]
    else:
        said = []
    if near < node:
        generation = re.search(r"PCIe(\d)", device.host_interface)
        link = hwdb.link(f"pcie{generation.group(1) if generation else 4}-x16")
        levels.append(Level("node", float(min(node, devices)), float(link.bandwidth), "bus", "bus"))
        said.append(f"{node} {device.id} a node on {link.name}")
    size = levels[-1].size if levels else 1.0
    if devices > size or not levels:
        levels.append(
            Level("network", float(devices), DEFAULT_NIC / size, "network", "network", shared=True)
        )
        said.append("one NIC of 100 Gb/s a node")
    words = (
        (f"{device.id} named without a system: assumed " + ", ".join(said),) if devices > 1 else ()
    )
    return Fabric(tuple(levels), devices, words)


class Groups(NamedTuple):
    """The process groups of a layout, in Megatron's order of ranks."""

    tensor: Group
    context: Group
    data: Group  # replicas of one shard, without context
    gradient: Group  # all that hold the same dense parameters: data x context
    pipeline: Group
    expert_tensor: Group
    expert: Group
    expert_gradient: Group  # all that hold the same experts
    shard: Group  # of `gradient`, those that states are sharded over
    copies: Group  # of `gradient`, those that hold the same shard
    expert_shard: Group
    expert_copies: Group


def groups(fabric: Fabric, tp, cp, dp, pp, ep=1, etp=None, shard=None) -> Groups:
    """Every process group of a layout: tp innermost, then cp, dp, pp; experts divide the same tp x
    cp x dp ranks.

    etp: tensor degree of the experts, as dense if not given. shard: ranks that states are sharded
    over, all if not given; neighbours, so that hybrid sharding stays within a node where it can.
    Arguments broadcast.
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
