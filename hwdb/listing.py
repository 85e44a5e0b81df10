"""For listings: every figure of one device with its origin, and a summary line per device."""

from typing import Any

from msgspec import Struct

from roofcast.hwdb.edits import figure_keys
from roofcast.hwdb.figure import Figure
from roofcast.hwdb.lookup import device
from roofcast.hwdb.records import Device


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


def figures(device: Device) -> list[tuple[str, Figure, str]]:
    """Every known number of the device: (dotted key, figure, unit), in the order of the records."""
    found = [(key, _at(device, key), unit) for key, unit in figure_keys().items()]
    return [(key, figure, unit) for key, figure, unit in found if figure is not None]


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
