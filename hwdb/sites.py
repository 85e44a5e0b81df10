"""Where machines stand: hwdb/power/. What a node draws beside its accelerators, PUE of sites,
carbon intensity of grids. Each number's source stands beside it.
"""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path

import msgspec

from roofcast.hwdb.errors import UnknownName, quoted
from roofcast.hwdb.strict import checked, load
from roofcast.hwdb.tuples import NamedTuple

FOLDER = Path(__file__).parent / "power"
NEAREST = 3  # names that an unknown region is answered with


class Nodes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parts of a node beside its accelerators [W], and shares [1]."""

    host_load: float  # power of host processors over their TDP
    watts_per_gib: float  # of host memory
    nic_w: float
    switch_w_per_device: float  # chips that join the accelerators of a node
    drives_w_per_device: float
    fans: float  # share of a node's power behind its supplies that fans take, cooled by air
    fans_liquid: float
    conversion: float  # power behind the supplies over that at the plug
    conversion_desktop: float
    watts_per_vcpu: float
    lowest_cap: float  # lowest limit of a board over its TDP
    liquid: tuple[str, ...]  # beginnings of names of systems that are cooled by liquid
    sources: dict[str, str]
    cpus: dict[str, float]  # TDP of a socket by words of a system's `host`
    default_host: dict[str, tuple[float, float]]  # sockets per device, TDP of each
    memory_gib: dict[str, float]  # of the host, per device


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of site."""

    pue: float
    systems: tuple[str, ...]  # beginnings of names of systems
    source: str


class Embodied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Emissions of making the hardware [kg CO2e]."""

    accelerator_kg: float
    server_kg: float  # without its accelerators
    server_devices: int
    life_h: float  # hours of use
    source: str

    def per_device_hour(self) -> float:
        """Of one accelerator with its share of the server [kg CO2e per hour of use].

        >>> round(1e6 * 1.08 * sites().embodied.per_device_hour() / 1000, 1)  # BLOOM: 11.2 t
        11.2
        """
        device = self.accelerator_kg + self.server_kg / self.server_devices
        return device / self.life_h


class Unmodelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean power over TDP of devices whose joules per FLOP are unknown."""

    tpu: float
    npu: float
    gpu: float
    cpu: float
    sources: dict[str, str]


class Sites(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table of sites."""

    sites: dict[str, Site]
    embodied: Embodied
    unmodelled: Unmodelled


class Region(NamedTuple):
    """A grid, a country or a provider's region."""

    id: str  # FRA, US-CA, europe-west9
    name: str
    g_per_kwh: float  # CO2e per kWh of electricity
    year: str
    source: str


@functools.cache
def nodes() -> Nodes:
    """What nodes draw beside their accelerators."""
    path = FOLDER / "nodes.toml"
    return checked(Nodes, load(path, "power of nodes"), str(path))


@functools.cache
def sites() -> Sites:
    """PUE of sites, embodied emissions, power of devices that are not modelled."""
    path = FOLDER / "sites.toml"
    return checked(Sites, load(path, "sites"), str(path))


def site_of(system: str) -> tuple[str, Site]:
    """The site of a system by its name, else the average of data centres.

    >>> site_of("gcp-a3-megagpu-8g")[0], site_of("dgx-h100")[1].pue
    ('google', 1.54)
    """
    for name, site in sites().sites.items():
        if system.startswith(tuple(site.systems)):
            return name, site
    return "average", sites().sites["average"]


def host_watts(host: str) -> float | None:
    """TDP of the processors that a system's `host` names [W]; None where it names none.

    >>> host_watts("2x Xeon Platinum 8480C"), host_watts("208 vCPU SPR"), host_watts("host server")
    (700.0, 644.8..., None)
    """
    table = nodes()
    vcpus = re.match(r"(\d+) vCPU", host)
    if vcpus:
        return float(vcpus[1]) * table.watts_per_vcpu
    for words, watts in table.cpus.items():
        if words in host:
            sockets = re.match(r"(\d+)x ", host)
            return watts * (float(sockets[1]) if sockets else 1.0)
    return None


@functools.cache
def regions() -> dict[str, Region]:
    """Carbon intensity by the id of a region."""
    path = FOLDER / "regions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        found = (
            Region(r["region"], r["name"], float(r["g_per_kwh"]), r["year"], r["source"])
            for r in rows
        )
        return {r.id: r for r in found}


def region(name: str) -> Region:
    """A region by its id or its name, in any case. Raises UnknownName with the nearest names.

    >>> region("france").id, region("FRA").year
    ('FRA', '2023')
    """
    table, wanted = regions(), name.strip().lower()
    by_word = {r.name.lower(): r for r in table.values()} | {
        r.id.lower(): r for r in table.values()
    }
    if wanted in by_word:
        return by_word[wanted]
    from difflib import get_close_matches

    close = get_close_matches(wanted, by_word, n=NEAREST, cutoff=0.4)
    near = [f"{by_word[c].id} ({by_word[c].name})" for c in close]
    hint = f"nearest: {', '.join(near)}" if near else "give a country (FRA, DEU, USA), or a state"
    raise UnknownName(f"no region {quoted(name)}; {hint}; or give --carbon in g/kWh")
