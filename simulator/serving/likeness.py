"""How near a server is to those that were measured, which the width of its intervals depends on.

hwdb/serving.toml, written by scenarios/fits/serving_intervals.py, has the bounds of ln(measured /
forecast) by software (servers of datacenters, and software for one's own machine) and by device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import msgspec

from roofcast import hwdb
from roofcast.hwdb.records import Device
from roofcast.hwdb.strict import checked, load
from roofcast.hwdb.tuples import NamedTuple

FILE = Path(hwdb.__file__).parent / "serving.toml"
MEASURED, RELATIVE, OTHER, IMAGINED = "measured", "relative", "other", "imagined"
ORDER = (MEASURED, RELATIVE, OTHER, IMAGINED)
# how edits of a device begin that leave the time of its steps, or are settings of a built one
SAME_TIME = ("memory.capacity ", "memory.usable ", "price.", "power.cap ")
LOCAL = (
    "llama.cpp",
    "exllama",
    "transformers",
    "mlx",
    "mlc",
    "openvino",
)  # how the names of such profiles begin


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


def basis(of: Likeness, *devices: str) -> str:
    """What the intervals of alike devices are as wide as, in words."""
    device = ", ".join(devices)
    maker, are = ("its maker", "is") if len(devices) == 1 else ("their makers", "are")
    what = "servers" if of.software == "server" else "programs for one's own machine"
    return {
        MEASURED: f"{what} on {device} were measured: as wide as errors for sources left out",
        RELATIVE: f"no {what} on {device} were measured, others of {maker} were: as wide as"
        " errors for devices whose family was left out",
        OTHER: f"no {what} on {device} were measured, nor on others of {maker}: the widest of all"
        " intervals",
        IMAGINED: f"{device} {are} hypothetical: the widest of all intervals",
    }[of.device]


def bases(every: Sequence[tuple[Likeness, str]]) -> list[str]:
    """The same for several servers and their devices, a line for each likeness."""
    devices: dict[Likeness, dict[str, None]] = {}
    for of, device in every:
        devices.setdefault(of, {})[device] = None
    return [f"80 % intervals: {basis(of, *names)}" for of, names in devices.items()]
