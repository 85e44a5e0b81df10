"""Watts and joules by scope: board, accelerator with its share of the host, node, site.

    accelerator = (board + (hosts + memory + NICs + switches + drives) / devices) / (1 - fans)
    node        = accelerator / conversion      at the plug, per device
    site        = node x PUE                    with cooling and distribution of the building

All are watts of one device [W]; a node's are those of its devices together. The share of the host
that is told of an accelerator is that of Patterson et al. 2021, Table 4: processors, memory,
network interfaces and fans [patterson2021].
"""

from __future__ import annotations

from typing import Any

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, number_of
from roofcast.hwdb.records import Device, System
from roofcast.hwdb.sites import host_watts, nodes, site_of, sites
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.campaign.carbon import Grid
from roofcast.simulator.parallel.networks import CHIPS_PER_HOST, DESKTOP, REFERENCE

SCOPES = ("board", "accelerator", "node", "site")
GIB = 2**30
MOST_PUE = 5.0
TYPICAL_NODE = 8  # devices of a server that no system describes


class Place(NamedTuple):
    """Where a device runs: what its node and its site add."""

    node: str  # name of the system; "" where none is known
    devices: int  # of a node
    parts: dict[str, float]  # watts of the node beside its accelerators, without fans, by part [W]
    fans: float  # share of the power behind the supplies
    conversion: float  # behind the supplies over at the plug
    pue: float
    site: str  # name of the kind of site; "given" where the PUE was given
    grid: Grid | None = None
    embodied: bool = False

    @property
    def overhead_w(self) -> float:
        """The node's parts beside its accelerators and fans, per device [W]."""
        return sum(self.parts.values()) / self.devices

    def watts(self, board_w: float) -> dict[str, float]:
        """Watts of one device by scope, from those of its board."""
        accelerator = (board_w + self.overhead_w) / (1.0 - self.fans)
        node = accelerator / self.conversion
        values = (board_w, accelerator, node, node * self.pue)
        return dict(zip(SCOPES, values, strict=True))


def place_of(
    device: Device,
    system: System | None,
    pue: float | None = None,
    grid: Grid | None = None,
    embodied: bool = False,
) -> Place:
    """Where a device runs: the system that was asked for, else its usual one. Raises BadInput for
    a PUE that cannot be.
    """
    if pue is not None and not 1.0 <= pue <= MOST_PUE:
        raise BadInput(
            f"pue {pue:g}: the power of a site over that of its machines is wanted, from 1 to"
            f" {MOST_PUE:g}, for example 1.2"
        )
    if system is None:
        name = REFERENCE.get(device.id) or REFERENCE.get(device.base)
        system = hwdb.system(name) if name else None
    place = _in_system(system, device) if system is not None else _alone(device)
    name, site = site_of(system.id if system is not None else "")
    if system is None and _is_desktop(device):
        name, site = "office", sites().sites["office"]
    found = place._replace(pue=site.pue, site=name, grid=grid, embodied=embodied)
    return found if pue is None else found._replace(pue=float(pue), site="given")


def _in_system(system: System, device: Device) -> Place:
    """The parts of a system's node, or of a host of a pod."""
    table, kind = nodes(), _kind(device)
    count, host = int(system.count), host_watts(system.host)
    devices = int(CHIPS_PER_HOST) if kind == "tpu" else count
    sockets, tdp = table.default_host[kind]
    known = host is not None and kind != "tpu"
    hosts = float(host or 0.0) if known else sockets * tdp * devices
    memory = float(system.memory) / GIB if system.memory else table.memory_gib[kind] * devices
    nics = float(system.nics.count) if system.nics else (0.0 if kind == "desktop" else 1.0)
    switched = any("witch" in level.topology for level in system.levels)
    liquid = system.id.startswith(tuple(table.liquid))
    parts = {
        "host processors": table.host_load * hosts,
        "host memory": table.watts_per_gib * memory,
        "NICs": table.nic_w * nics,
        "switches": table.switch_w_per_device * devices if switched else 0.0,
        "drives": table.drives_w_per_device * (1 if kind == "desktop" else devices),
    }
    fans = table.fans_liquid if liquid or kind == "desktop" else table.fans
    conversion = table.conversion_desktop if kind == "desktop" else table.conversion
    return Place(system.name, devices, parts, fans, conversion, 1.0, "")


def _alone(device: Device) -> Place:
    """A device that no system describes: in a desktop computer, or in a server of eight."""
    table, kind = nodes(), _kind(device)
    devices = 1 if kind == "desktop" or device.kind == "cpu" else TYPICAL_NODE
    sockets, tdp = table.default_host[kind]
    processors = 0.0 if device.kind == "cpu" else sockets * tdp * devices
    parts = {
        "host processors": table.host_load * processors,
        "host memory": table.watts_per_gib * table.memory_gib[kind] * devices,
        "NICs": 0.0 if kind == "desktop" else table.nic_w,
        "drives": table.drives_w_per_device,
    }
    fans = table.fans_liquid if kind == "desktop" else table.fans
    conversion = table.conversion_desktop if kind == "desktop" else table.conversion
    return Place("", devices, parts, fans, conversion, 1.0, "")


def _is_desktop(device: Device) -> bool:
    name = device.base or device.id
    portable = device.vendor == "Apple" or any(w in name for w in ("-laptop", "jetson"))
    return portable or name.startswith(DESKTOP)


def _kind(device: Device) -> str:
    """A row of the tables of hosts: server, desktop or tpu."""
    if device.kind == "tpu":
        return "tpu"
    return "desktop" if _is_desktop(device) else "server"


def unmodelled(device: Device) -> tuple[float | None, str]:
    """Mean watts of a device whose joules per FLOP are unknown, and in words why; None without a
    TDP.
    """
    tdp, cap = device.power.tdp, device.power.cap
    if not tdp:
        return (float(cap), "the cap") if cap else (None, "")
    table = sites().unmodelled
    share = float(getattr(table, device.kind))
    watts = min(share * float(tdp), float(cap or tdp))
    return watts, f"{share:g} of its TDP of {float(tdp):g} W"


def fields(
    place: Place, board_w: float | None, step_s: float, steps: float | None, devices: int
) -> dict[str, Any]:
    """Fields of a Forecast: watts of a device, joules of a step and of the run by scope, carbon."""
    if board_w is None:
        return {}
    watts = place.watts(board_w)
    joules = {scope: w * step_s * devices for scope, w in watts.items()}
    run = {scope: j * steps for scope, j in joules.items()} if steps else {}
    found: dict[str, Any] = {
        "power_by_scope_w": watts,
        "node_devices": place.devices,
        "node_power_w": watts["node"] * place.devices,
        "step_energy_by_scope_j": joules,
        "energy_by_scope_j": run,
        "pue": place.pue,
        "site": place.site,
    }
    if place.grid is not None:
        found |= {
            "carbon_g_per_kwh": place.grid.g_per_kwh,
            "region": place.grid.region,
            "carbon_kg": place.grid.kg(run["site"]) if run else None,
        }
    if place.embodied and steps:
        hours = devices * steps * step_s / 3600
        found["embodied_kg"] = hours * sites().embodied.per_device_hour()
    return found


def said(place: Place) -> tuple[str, ...]:
    """What node and site are assumed to draw, as assumptions."""
    name = place.node or "a node that no system describes"
    parts = ", ".join(f"{part} {watts:.0f} W" for part, watts in place.parts.items() if watts)
    lines = [
        f"node: {name}, {number_of(place.devices, 'device')}: {parts}, fans"
        f" {100 * place.fans:.0f} % of the power behind the supplies, conversion"
        f" {100 * place.conversion:.0f} %"
    ]
    if place.site != "given":
        lines.append(f"site: PUE {place.pue:g} ({sites().sites[place.site].source})")
    if place.grid is not None:
        lines.append(f"carbon: {place.grid.said()}")
    if place.embodied:
        lines.append(f"embodied carbon: {sites().embodied.source}")
    return tuple(lines)
