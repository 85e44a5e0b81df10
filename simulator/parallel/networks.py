"""The network of a system, or of what a device is usually built into: System, Device -> Fabric."""

from __future__ import annotations

import re

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.hwdb.records import Device, System, Tier
from roofcast.hwdb.topologies import axes as axes_of
from roofcast.simulator.parallel.fabric import Fabric, Level
from roofcast.simulator.parallel.layout import divisors

REFERENCE = {  # the system assumed for a device that is named without one
    "a100-sxm4-40gb": "dgx-a100-320gb", "a100-sxm4-80gb": "dgx-a100-640gb",
    "a800-sxm4-80gb": "dgx-a100-640gb", "h100-sxm5": "dgx-h100", "h100-sxm5-96gb": "dgx-h100",
    "h800-sxm5": "dgx-h100", "h200-sxm": "dgx-h200", "h20": "hgx-h20", "b200-sxm": "dgx-b200",
    "b100-sxm": "dgx-b200", "b300-sxm": "dgx-b300", "gb200": "gb200-nvl72", "gb300": "gb300-nvl72",
    "rubin": "vera-rubin-nvl72", "v100-sxm2-16gb": "dgx-1-v100", "v100-sxm2-32gb": "dgx-1-v100",
    "p100-sxm2": "dgx-1-p100", "mi250x": "frontier-node", "mi300x": "mi300x-platform",
    "mi308x": "mi300x-platform", "mi325x": "mi300x-platform",
    "mi350x": "mi355x-platform", "mi355x": "mi355x-platform",
    "mi455x": "helios-mi455x", "gaudi2": "gaudi2-server", "gaudi3": "gaudi3-server",
    "max-1550": "aurora-node", "trainium1": "aws-trn1", "trainium2": "aws-trn2",
    "trainium3": "aws-trn3-ultraserver", "inferentia2": "aws-inf2",
    "ascend-910b": "atlas-800t-a2",
    "ascend-910c": "cloudmatrix384", "tpu-v2": "tpu-v2-pod", "tpu-v3": "tpu-v3-pod",
    "tpu-v4": "tpu-v4-pod", "tpu-v5e": "tpu-v5e-pod", "tpu-v5p": "tpu-v5p-pod",
    "tpu-v6e": "tpu-v6e-pod", "tpu-v7": "tpu-v7-pod",
}  # fmt: skip
DESKTOP = ("rtx-", "gtx-", "titan", "quadro", "rx-", "radeon", "arc-")
REDUCING = ("nvlink4", "nvlink5", "nvlink6")  # generations whose NVSwitch can add (SHARP)
CHIPS_PER_HOST = 4.0  # of a TPU slice, which share its datacenter network
DEFAULT_NIC = 12.5e9  # one NIC of 100 Gb/s per node where none is known [B/s]


def fabric_of(system: System | None, device: Device, devices: int) -> Fabric:
    """The network between so many devices: of a system, or of the system a device of its kind is
    usually built into.
    """
    assumptions: list[str] = []
    if system is None:
        system = usual_system(device)
        if system is None:
            return _unknown_system(device, devices)
        if devices > 1:
            assumptions.append(f"system {system.name} (not given): its nodes, links and NICs")
    levels, more = _levels(system, device, devices)
    return Fabric(tuple(levels), devices, (*assumptions, *more, *_unused(system, device, devices)))


def usual_system(device: Device) -> System | None:
    """The system that a device of its kind is usually built into; None where none is known."""
    name = REFERENCE.get(device.id) or REFERENCE.get(device.base)
    return hwdb.system(name) if name is not None else None


def host_memory(system: System | None, device: Device, devices: int) -> tuple[str, float] | None:
    """The name of the system and the memory of its hosts for each of so many devices [B]; None
    where it is not known. system: None is the usual one.
    """
    found = system or usual_system(device)
    if found is None or found.memory is None:
        return None
    return found.name, float(found.memory) / min(devices, int(found.count))


def _unused(system: System, device: Device, devices: int) -> list[str]:
    """A line where the links of the device itself, edited, are not those that the system uses."""
    edited = any(edit.startswith("scale_up.bandwidth ") for edit in device.edits)
    if not edited or devices == 1 or not system.levels:
        return []
    inner = system.levels[0]
    if inner.link == device.scale_up.link:
        return []
    own = device.scale_up.link or "links of its own"
    return [
        f"scale_up.bandwidth is that of {own}; the devices of a {inner.name} of {system.name} are"
        f" joined by {inner.link}, so it changes nothing"
    ]


def _share_of_links(system: System, device: Device) -> float:
    """Bandwidth of the device's links as a multiple of those of the device that the system is made
    of: H800 boards stand in the nodes of H100 boards, with 8 of their 18 links.

    The level of a system states what of a device's links it uses (21 of 24 ports in a node of
    Gaudi 2), and the same share is used of the links of another device, or of edited ones.
    """
    bandwidth, tier = device.scale_up.bandwidth, system.levels[0]
    if not bandwidth or device.scale_up.link != tier.link:
        return 1.0
    if device.id == system.device and not device.edits:
        return 1.0
    built = hwdb.device(system.device).scale_up
    known = built.bandwidth if built.link == tier.link else None
    return float(bandwidth) / float(known or tier.bandwidth)


def _levels(system: System, device: Device, devices: int) -> tuple[list[Level], list[str]]:
    """The levels that so many devices span, and assumptions about them."""
    assumptions: list[str] = []
    inner = system.levels[0] if system.levels else None
    tiers = [
        t for t in system.levels if t is inner or not (system.nics and t.link == system.nics.link)
    ]
    levels: list[Level] = []
    for tier in tiers:
        bandwidth = float(tier.bandwidth)
        if tier is inner:
            bandwidth *= _share_of_links(system, device)
        level, more = _level(tier, bandwidth, device, devices)
        levels.append(level)
        assumptions += more
        if level.size >= devices:
            return levels, assumptions
    node = 1 if device.kind == "cpu" else int(system.count)
    if not levels and node > 1:
        levels, more = _inside(device, devices, node, node)
        if devices > 1:
            assumptions.append(f"{system.name} names no [[levels]]: {', '.join(more)} assumed")
        if levels[-1].size >= devices:
            return levels, assumptions
    size = levels[-1].size if levels else 1.0
    if system.nics:
        nic = float(system.nics.count * system.nics.bandwidth) / float(system.count)
    elif levels and levels[-1].topology == "torus":
        nic = float(hwdb.link("tpu-dcn").bandwidth) / CHIPS_PER_HOST
        assumptions.append(
            f"slices of {size:.0f} chips are joined by the datacenter network at {nic / 1e9:.4g}"
            " GB/s per chip"
        )
    else:
        nic = DEFAULT_NIC / max(size, 1.0)
        assumptions.append(f"{system.name} names no NIC: one of 100 Gb/s per node assumed")
    link = system.nics.link if system.nics else ""
    return [*levels, _network(devices, nic, link)], assumptions


def _network(devices: int, nic: float, link: str = "") -> Level:
    """The network between nodes, at `nic` bytes per second and device. link: of its NICs; some have
    constants of their own.
    """
    section = link if link in collectives().networks else "network"
    return Level("network", float(devices), nic, "network", section, shared=True)


def _level(tier: Tier, bandwidth: float, device: Device, devices: int) -> tuple[Level, list[str]]:
    """One level of a system, as far as so many devices fill it."""
    text, full = tier.topology.lower(), int(tier.size)
    assumptions: list[str] = []
    size = min(full, devices)
    if "torus" in text:
        axes = slice_of(size, tier.topology)
        if devices > 1 and size < full:
            shape = "x".join(str(length) for length, _ in axes)
            assumptions.append(f"slice of {shape} chips assumed")
        section = tier.link if tier.link in collectives().networks else "torus"
        return Level(tier.name, float(size), bandwidth, "torus", section, axes=axes), assumptions
    if size == full and devices > full and devices % full and full & (full - 1):
        whole = 2 ** int(np.log2(full))
        if devices % whole == 0:
            size = whole
            assumptions.append(
                f"{whole} of the {full} devices of a {tier.name} are used, as {devices} is not a"
                f" multiple of {full}"
            )
    topology = _topology(tier)
    if devices > 1 and topology == "switch" and (not text or re.search(r"\bring\b", text)):
        what = f"its {text}" if text else "the topology, which is not stated,"
        assumptions.append(f"{tier.name} on {tier.link}: {what} taken as a switch")
    if topology in ("mesh", "cube") and size != full:
        bandwidth *= _links_in_use(topology, size, full)
    reduces = tier.link in REDUCING and "nvswitch" in text
    section = _section(tier.link, device, topology)
    level = Level(tier.name, float(size), bandwidth, topology, section, reduces=reduces)
    return level, assumptions


def _topology(tier: Tier) -> str:
    """switch | mesh | cube | bus"""
    if tier.link.startswith("pcie"):
        return "bus"
    text = tier.topology.lower()
    return "cube" if "cube" in text else "mesh" if "mesh" in text else "switch"


def _links_in_use(topology: str, size: int, full: int) -> float:
    """Fraction of links in use where only `size` of `full` devices of a mesh or hypercube are."""
    if topology == "mesh":
        return max(size - 1, 1) / (full - 1)
    return float(max(np.log2(size), 1.0) / np.log2(full))


def _section(link: str, device: Device, topology: str) -> str:
    """Section of collectives.toml whose constants hold between such devices: that of the link,
    where collectives over it were measured, else of the device's family.
    """
    if link in collectives().networks:
        return link
    if topology == "bus":
        return "bus"
    fitted = topology == "switch" and device.family in collectives().networks
    return device.family if fitted else "switch"


def slice_of(devices: int, topology: str) -> tuple[tuple[int, bool], ...]:
    """Axes of the squarest torus of so many chips, short ones first, each with whether its ends are
    joined.

    Ends are joined where an axis has the pod's full length, and in three dimensions wherever it is
    a multiple of four (optical switches join cubes of 4x4x4) (Jouppi et al. 2023).

    >>> slice_of(64, "3D torus 16x16x16"), slice_of(32, "2D torus 16x16")
    (((4, True), (4, True), (4, True)), ((4, False), (8, False)))
    """
    full = axes_of(topology) or (0, 0, 0)
    axes, left = [], devices
    for dimension in range(len(full), 0, -1):
        ideal = left ** (1.0 / dimension)
        lengths = divisors(left)
        axes.append(lengths[int(np.argmin([abs(np.log(d / ideal)) for d in lengths]))])
        left //= axes[-1]
    switched = len(full) == 3 and devices >= 64
    return tuple(
        (length, length > 2 and (length in full or (switched and length % 4 == 0)))
        for length in sorted(axes)
    )


def _unknown_system(device: Device, devices: int) -> Fabric:
    """What is assumed for a device that no known system contains: its bridge if it has one, PCIe,
    and one NIC per node.
    """
    desktop = device.id.startswith(DESKTOP) or device.base.startswith(DESKTOP)
    node = 1 if device.kind == "cpu" else 4 if desktop else 8
    levels, assumptions = _inside(device, devices, node)
    inner = levels[-1].size if levels else 1.0
    if devices > inner or not levels:
        levels.append(_network(devices, DEFAULT_NIC / inner))
        assumptions.append("one NIC of 100 Gb/s per node")
    text = f"no known system of {device.id}: {', '.join(assumptions)}{_unstated(device)}"
    return Fabric(tuple(levels), devices, (text,) if devices > 1 else ())


def _unstated(device: Device) -> str:
    """What a device's file would have to say for its own links to be used; empty where it does."""
    if re.search(r"\d", device.scale_up.domain):
        return ""
    if device.scale_up.bandwidth:
        return "; scale_up.bandwidth is not used, as no scale_up.domain says how many it joins"
    if device.given:
        return (
            "; scale_up.bandwidth and scale_up.domain of its file, or predict --system, give others"
        )
    return ""


def _inside(
    device: Device, devices: int, node: int, reach: int | None = None
) -> tuple[list[Level], list[str]]:
    """The levels inside a node of `node` devices that no file describes, and what is assumed: the
    device's own links as far as they reach, else PCIe.

    reach: devices that the links join at most; None: as many as the device's file says.
    """
    levels: list[Level] = []
    assumptions: list[str] = []
    domain = re.search(r"\d+", device.scale_up.domain)
    near = int(domain.group()) if domain and device.scale_up.bandwidth else 1
    near = min(near, reach or near)
    if near > 1 and device.scale_up.bandwidth:
        bandwidth = float(device.scale_up.bandwidth)
        section = _section(device.scale_up.link or "", device, "switch")
        levels.append(Level("links", float(min(near, devices)), bandwidth, "switch", section))
        assumptions.append(f"{near} {device.id} joined by {device.scale_up.link or 'their links'}")
    if near < node:
        generation = re.search(r"PCIe(\d)", device.host_interface)
        link = hwdb.link(f"pcie{generation.group(1) if generation else 4}-x16")
        size = float(min(node, devices))
        levels.append(Level("node", size, float(link.bandwidth), "bus", "bus"))
        assumptions.append(f"{node} {device.id} per node on {link.name}")
    return levels, assumptions
