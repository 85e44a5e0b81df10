"""device(), link(), system(): a name or a path in, a frozen record out."""

from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

import roofcast.hwdb.names as names
from roofcast.hwdb.edits import apply, check_units, in_bits, is_relative, merge
from roofcast.hwdb.errors import BadInput, UnknownName, quoted
from roofcast.hwdb.reader import load, read
from roofcast.hwdb.records import KINDS, Device, Link, System
from roofcast.hwdb.topologies import check_topology
from roofcast.hwdb.units import pretty

BANDWIDTH = "memory.bandwidth"
MOST_FLOP_PER_BYTE = 1e4
"""From this ratio of the highest peak to the memory bandwidth on the bandwidth is questioned; 3,800
at most among the shipped devices (Jetson Thor in 4 bits)."""
MAX_DEVICES = 1e9
"""Most devices that a user's system may have."""

Record = TypeVar("Record", bound=Struct)


def devices() -> tuple[str, ...]:
    """Names of the shipped devices."""
    return names.names("devices")


def links() -> tuple[str, ...]:
    """Names of the shipped links."""
    return names.names("links")


def systems() -> tuple[str, ...]:
    """Names of the shipped systems."""
    return names.names("systems")


def device(name: str | Path, changes: Mapping[str, str | float] | None = None) -> Device:
    """The device called `name`, or described by the file at that path, with `changes` made to it.

    `changes` maps dotted keys to values: {"memory.bandwidth": "8 TB/s", "peak_flops.bf16": "+20%"}.
    Only the named figures change; `Device.edits` lists them. Raises UnknownName for an unknown
    name or key, BadInput for a file or value that is not valid.

    >>> device("h100-sxm5", {"memory.bandwidth": "8 TB/s"}).edits
    ('memory.bandwidth 3.35 TB/s -> 8 TB/s',)
    """
    given = tuple((changes or {}).items())
    text = names.text(name, "devices")
    if names.is_path(text):
        return _own(Path(text), given, text)
    if text in (*names.THIS_MACHINE, names.THIS_GPU):
        return _own(_calibrated(text), given, text)
    return _shipped(names.resolve(text, "devices"), given)


def as_set(name: str | Path, changes: Mapping[str, str | float]) -> Device:
    """The same as `device`; raises BadInput also where a power cap is above the board's TDP, and
    where a user's memory bandwidth is far below what any device has beside such a peak.
    """
    found = device(name, changes)
    stated = changes.get(BANDWIDTH)
    if found.given if stated is None else not is_relative(stated):
        _check_bandwidth(found)
    cap, tdp = found.power.cap, found.power.tdp
    if cap and tdp and cap > tdp:
        watts = pretty(cap, "W")
        raise BadInput(
            f"a power cap of {watts} is above the TDP of {found.typed}, {pretty(tdp, 'W')}; give"
            f" less, or for a board that is built for more: --set power.tdp='{watts}'"
        )
    return found


def _check_bandwidth(device: Device) -> None:
    """Ask back where a device has so many FLOP per byte of its memory that a prefix must be lost.

    Raises BadInput with the bandwidth that was probably meant.
    """
    bandwidth = float(device.memory.bandwidth)
    flop = max(map(float, device.peak_flops.values())) / bandwidth
    if flop < MOST_FLOP_PER_BYTE:
        return
    meant = pretty(1000 * bandwidth, "B/s")
    raise BadInput(
        f"{device.typed}: {BANDWIDTH} {pretty(bandwidth, 'B/s')} is a byte per {flop:,.0f} FLOP of"
        f" its peak, and devices have one per 4,000 or fewer; did you mean {meant}? (a factor is"
        f" taken as it is: --set {BANDWIDTH}=x0.001)"
    )


@lru_cache(maxsize=1024)
def _shipped(name: str, changes: tuple[tuple[str, str | float], ...]) -> Device:
    data, edits = apply(_tables(name), changes, name)
    return _device(data, f"devices/{name}.toml", name, edits)


@cache
def _tables(name: str) -> dict[str, Any]:
    """The tables of a shipped device's file, which nobody changes."""
    return load(_file("devices", name))


def _calibrated(name: str) -> Path:
    """The device file of this machine; BadInput where it was not measured yet."""
    path = names.this_machine(name)
    if not path.exists():
        how = " --gpu" if name == names.THIS_GPU else ""
        raise BadInput(
            f"{name}: not calibrated yet ({path} does not exist); run: roofcast calibrate{how}"
        )
    return path


def _own(path: Path, changes: tuple[tuple[str, str | float], ...], given: str) -> Device:
    """The device that a user's file describes. given: how the user called it."""
    data, before = _with_base(path, ())
    bits = tuple(f"{path.stem}: {line}" for line in in_bits(data))
    device = _device(data, str(path), path.stem, before, given, bits)
    if changes:
        data, edits = apply(data, changes, str(path))
        device = _device(data, str(path), path.stem, before + edits, given, bits)
    if not device.scale_up.link:
        return device
    named = _own_link(device.scale_up.link, "scale_up.link", path)
    return replace(device, scale_up=replace(device.scale_up, link=named))


def _device(
    data: dict[str, Any],
    file: str,
    identity: str,
    edits: tuple[str, ...],
    given: str = "",
    read_as: tuple[str, ...] = (),
) -> Device:
    device = read(Device, data, file, identity, edits=edits, given=given, read_as=read_as)
    if not device.peak_flops:
        raise BadInput(
            f'{file}: [peak_flops] is empty; give at least one rate, for example bf16 = "400'
            ' TFLOP/s"'
        )
    memory = device.memory
    if memory.usable is not None and memory.usable > (memory.capacity or 0.0):
        raise BadInput(
            f"{file}: memory.usable is more than memory.capacity; it is the part of the capacity"
            " that programs can allocate"
        )
    if device.kind not in KINDS:
        raise BadInput(f"{file}: kind is {quoted(device.kind)}; wanted one of {', '.join(KINDS)}")
    return device


def _with_base(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's tables laid over those of its base, if it names one, and the numbers they change.

    above: files that led here as bases of one another.
    """
    data = load(path, "device")
    check_units(data, str(path))
    base = data.get("base")
    if base is None:
        return data, ()
    if not isinstance(base, str):
        raise BadInput(
            f'{path}: base is {quoted(base)}; wanted the name of a device, for example "h100-sxm5"'
        )
    if path.resolve() in above:
        raise BadInput(f"{path}: is its own base; name a shipped device instead")
    if names.is_path(base):
        under, edits = _with_base(path.parent / base, (*above, path.resolve()))
    else:
        try:
            under, edits = _tables(names.resolve(base, "devices")), ()
        except UnknownName as error:
            raise UnknownName(f"{path}: base: {error}") from None
    merged, changed = merge(under, data, str(path))
    return merged, edits + changed


def link(name: str | Path) -> Link:
    """The link called `name`, or described by the file at that path; errors as `device`."""
    return _find(Link, "links", names.text(name, "links"))


def system(name: str | Path | System) -> System:
    """The system called `name`, or described by the file at that path; errors as `device`.

    A System is returned as it is.
    """
    if isinstance(name, System):
        return name
    text = names.text(name, "systems")
    found = _find(System, "systems", text)
    return _own_system(found, Path(text)) if names.is_path(text) else found


def _own_link(name: str, key: str, file: Path) -> str:
    """The shipped name of a link in a user's file, or the link's own file relative to that file.

    key: for messages. Raises UnknownName where there is no such link, and as `link` does.
    """
    try:
        if names.is_path(name):
            link(file.parent / name)
            return name
        return names.resolve(name, "links")
    except BadInput as error:
        raise BadInput(f"{file}: {key}: {error}") from None
    except UnknownName as error:
        raise UnknownName(
            f"{file}: {key}: {error}, or give the path of a link's own file"
        ) from None


def _own_system(system: System, path: Path) -> System:
    """A user's system, with checked sizes and the device's path relative to the system's file.

    Every level must have more devices than the one inside it, a link that is known, and a topology
    that is understood.
    """
    sizes = [("count", system.count)]
    sizes += [(f"levels[{i}].size", tier.size) for i, tier in enumerate(system.levels)]
    for key, size in sizes:
        if size % 1 or size > MAX_DEVICES:
            raise BadInput(
                f"{path}: {key} is {float(size):g}; wanted a whole number of devices, at most"
                f" {MAX_DEVICES:g}"
            )
    for (_, inner), (key, outer) in pairwise(sizes[1:]):
        if outer <= inner:
            raise BadInput(
                f"{path}: {key} is {outer:g}, but the level inside it has {inner:g}; give the"
                " number of all devices that the level joins"
            )
    if sizes[1:] and sizes[-1][1] < system.count:
        raise BadInput(
            f"{path}: {sizes[-1][0]} is {sizes[-1][1]:g}, but count is {system.count:g}; the last"
            " level joins all devices of the system"
        )
    tiers = tuple(
        replace(tier, link=_own_link(tier.link, f"levels[{i}].link", path))
        for i, tier in enumerate(system.levels)
    )
    for i, tier in enumerate(tiers):
        check_topology(tier, f"{path}: levels[{i}].topology")
    nics = system.nics and replace(system.nics, link=_own_link(system.nics.link, "nics.link", path))
    device = system.device
    if names.is_path(device):
        device = str(path.parent / device)
    return replace(system, device=device, levels=tiers, nics=nics)


def _find(cls: type[Record], folder: str, name: str) -> Record:
    if names.is_path(name):
        return read(cls, load(Path(name), folder.removesuffix("s")), name, Path(name).stem)
    return _named(cls, folder, names.resolve(name, folder))


@lru_cache(maxsize=256)
def _named(cls: type[Record], folder: str, name: str) -> Record:
    return read(cls, load(_file(folder, name)), f"{folder}/{name}.toml", name)


def _file(folder: str, name: str) -> Path:
    return names.ROOT / folder / f"{name}.toml"
