"""How sure a forecast of serving is: 80 % intervals from the errors of measured servers.

ln(measured / forecast) of a quantity lies between two bounds that hold 80 % of measured runs, every
group of them with the same weight: hwdb/serving.toml, written by
scenarios/fits/serving_intervals.py. Servers of datacenters and software for one's own machine are
two classes; each has bounds by how near the device is to those that were measured (`Likeness`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from roofcast import hwdb
from roofcast.hwdb.records import Device
from roofcast.hwdb.strict import checked, load
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.protocol import Numbers
from roofcast.simulator.serving.result import Spread

FILE = Path(hwdb.__file__).parent / "serving.toml"
QUANTITIES = ("ttft", "tpot", "output", "prefill")
MEASURED, RELATIVE, OTHER, IMAGINED = "measured", "relative", "other", "imagined"
ORDER = (MEASURED, RELATIVE, OTHER, IMAGINED)
# how edits of a device begin that leave the time of its steps, or are settings of a built one
SAME_TIME = ("memory.capacity ", "memory.usable ", "price.", "power.cap ")
LOCAL = ("llama.cpp", "exllama", "transformers")  # how the names of such profiles begin


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where ln(measured / forecast) lies, and what tells it."""

    low: float
    high: float
    rows: int
    sources: int


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of each quantity, by software and by likeness of the device."""

    source: str
    devices: dict[str, list[str]]  # that were measured, by software
    makers: dict[str, list[str]]  # of these: "NVIDIA gpu"
    server: dict[str, dict[str, Bounds]]
    local: dict[str, dict[str, Bounds]]


class Likeness(NamedTuple):
    """How far a server is from those that were measured."""

    software: str = "server"  # server | local
    device: str = MEASURED

    @property
    def bounds(self) -> dict[str, Bounds]:
        """The bounds of each quantity."""
        table: dict[str, dict[str, Bounds]] = getattr(errors(), self.software)
        return table[OTHER if self.device == IMAGINED else self.device]

    @property
    def rank(self) -> int:
        """0: measured; the more, the farther from it."""
        return ORDER.index(self.device)


class Ranges(NamedTuple):
    """Times with their intervals, and the intervals of the rates."""

    times: dict[str, Spread]
    output: tuple[float, float]
    prefill: tuple[float, float]


@functools.cache
def errors() -> Errors:
    """The shipped errors."""
    return checked(Errors, load(FILE, "the errors of serving forecasts"), str(FILE))


def class_of(stack: str) -> str:
    """Class of a serving profile: server or local.

    >>> class_of("vllm-2025"), class_of("llama.cpp-metal")
    ('server', 'local')
    """
    return "local" if stack.startswith(LOCAL) else "server"


def likeness(stack: str, device: Device) -> Likeness:
    """The likeness of a server with that software on that device.

    >>> likeness("vllm", hwdb.device("h100-sxm5")), likeness("vllm", hwdb.device("l40s")).device
    (Likeness(software='server', device='measured'), 'relative')
    >>> likeness("vllm", hwdb.device("h100-sxm5", {"memory.bandwidth": "x4"})).device
    'imagined'
    """
    software = class_of(stack)
    if _imagined(device):
        return Likeness(software, IMAGINED)
    if (device.base or device.id) in errors().devices[software]:
        return Likeness(software, MEASURED)
    known = f"{device.vendor} {device.kind}" in errors().makers[software]
    return Likeness(software, RELATIVE if known else OTHER)


def _imagined(device: Device) -> bool:
    """Whether steps take another time than on any device that was built."""
    if not all(edit.startswith(SAME_TIME) for edit in device.edits):
        return True
    shipped = (device.base or device.id) in hwdb.devices()
    return not shipped and not device.achieved  # not measured on this machine either


def basis(of: Likeness, device: str) -> str:
    """What the intervals are as wide as, in words."""
    what = "servers" if of.software == "server" else "programs for one's own machine"
    return {
        MEASURED: f"{what} on {device} were measured: as wide as errors for sources left out",
        RELATIVE: f"no {what} on {device} were measured, others of its maker were: as wide as"
        " errors for devices whose family was left out",
        OTHER: f"no {what} on {device} were measured, nor on others of its maker: the widest of all"
        " intervals",
        IMAGINED: f"{device} is hypothetical: the widest of all intervals",
    }[of.device]


def bases(every: Sequence[tuple[Likeness, str]]) -> list[str]:
    """The same for several servers and their devices, a line for each likeness."""
    devices: dict[Likeness, dict[str, None]] = {}
    for of, device in every:
        devices.setdefault(of, {})[device] = None
    return [f"80 % intervals: {basis(of, ', '.join(names))}" for of, names in devices.items()]


def around(value: Numbers, quantity: str, of: Likeness) -> tuple[Numbers, Numbers]:
    """The 80 % interval of a value; the value itself is always inside.

    The time from end to end has the interval of the throughput, turned over.
    """
    bounds = of.bounds["output" if quantity == "e2e" else quantity]
    ends = (-bounds.high, -bounds.low) if quantity == "e2e" else (bounds.low, bounds.high)
    return value * math.exp(min(ends[0], 0.0)), value * math.exp(max(ends[1], 0.0))


def error_at(quantity: str, of: Likeness, share: float) -> float:
    """ln(measured / forecast) that this share of measured runs stays below: normal, through both
    ends of the 80 % interval.

    >>> bounds = Likeness().bounds["tpot"]
    >>> [error_at("tpot", Likeness(), share) for share in (0.1, 0.9)] == [bounds.low, bounds.high]
    True
    """
    from statistics import NormalDist

    bounds, one = of.bounds[quantity], NormalDist()
    middle, sigma = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    z = one.inv_cdf(min(max(share, 1e-6), 1.0 - 1e-6)) / one.inv_cdf(0.9)
    return middle + sigma * z


def ranges(of: Likeness, times: dict[str, Spread], output: float, prefill: float) -> Ranges:
    """The intervals of a forecast."""
    with_bounds = {}
    for name, spread in times.items():
        low, high = around(spread.mean, name, of)
        with_bounds[name] = msgspec.structs.replace(spread, low=low, high=high)
    return Ranges(with_bounds, around(output, "output", of), around(prefill, "prefill", of))
