"""For listings: every figure of a device, link or system with its origin, and a summary line per
device.
"""

from typing import Any

from msgspec import Struct

from roofcast.hwdb.edits import figure_keys
from roofcast.hwdb.figure import Figure
from roofcast.hwdb.lookup import device
from roofcast.hwdb.records import Device, Link, System, Tier


class Summary(Struct, frozen=True, kw_only=True):
    """One line of the list of devices; None where unknown."""

    id: str
    name: str
    vendor: str
    kind: str
    family: str
    year: int | None
    peak_flops: float  # of bf16, else fp16, fp8, fp32, else the first format listed [FLOP/s]
    format: str  # of `peak_flops`
    bandwidth: float  # of memory [B/s]
    capacity: float | None  # of memory [B]
    launch_usd: float | None
    cloud_usd_per_hour: float | None


Hardware = Device | Link | System


def figures(record: Hardware) -> list[tuple[str, Figure, str]]:
    """Every known number of the record: (dotted key, figure, unit), in the order of the records.

    The levels of a system's network follow its own numbers: levels.0.bandwidth.
    """
    found = [(key, _at(record, key), unit) for key, unit in figure_keys(type(record)).items()]
    for i, tier in enumerate(record.levels if isinstance(record, System) else ()):
        inner = figure_keys(Tier).items()
        found += [(f"levels.{i}.{key}", _at(tier, key), unit) for key, unit in inner]
    return [(key, figure, unit) for key, figure, unit in found if figure is not None]


def texts(record: Link | System) -> dict[str, str]:
    """What a link or a system says of itself besides numbers, in words."""
    if isinstance(record, Link):
        return {"topology": record.topology} if record.topology else {}
    found = {"device": record.device, "host": record.host}
    for i, tier in enumerate(record.levels):
        over = f", {tier.topology}" if tier.topology else ""
        found[f"levels.{i}"] = f"{tier.name}: {tier.link}{over}"
    if record.nics is not None:
        found["nics"] = record.nics.link
    return {key: text for key, text in found.items() if text}


def _at(record: Any, key: str) -> Figure | None:
    for name in key.split("."):
        record = record.get(name) if isinstance(record, dict) else getattr(record, name)
        if record is None:
            return None
    return record


def summary(name: str) -> Summary:
    """The line for one device.

    >>> line = summary("h100-sxm5")
    >>> line.vendor, line.format, line.peak_flops
    ('NVIDIA', 'bf16', 989400000000000.0)
    """
    chip = device(name)
    rates = chip.peak_flops
    best = next(key for key in ("bf16", "fp16", "fp8", "fp32", *rates) if key in rates)
    return Summary(
        id=chip.id,
        name=chip.name,
        vendor=chip.vendor,
        kind=chip.kind,
        family=chip.family,
        year=chip.year,
        peak_flops=rates[best],
        format=best,
        bandwidth=chip.memory.bandwidth,
        capacity=chip.memory.capacity,
        launch_usd=chip.price.launch_usd,
        cloud_usd_per_hour=chip.price.cloud_usd_per_hour,
    )
