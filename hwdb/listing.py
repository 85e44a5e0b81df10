"""What the listings show: every figure of one device with its origin, and one light line for each
of them all.
"""

from msgspec import Struct

from roofcast.hwdb.edits import figure_keys
from roofcast.hwdb.figure import Figure
from roofcast.hwdb.lookup import device
from roofcast.hwdb.records import Device


class Summary(Struct, frozen=True, kw_only=True):
    """One line of the list of devices; rates in SI, None where unknown."""

    id: str
    name: str
    vendor: str
    kind: str
    family: str
    year: int | None
    peak_flops: float  # bf16, else fp16, else the widest of what there is
    format: str  # which of them it is
    bandwidth: float
    capacity: float | None
    launch_usd: float | None
    cloud_usd_per_hour: float | None


def figures(device: Device) -> list[tuple[str, Figure, str]]:
    """Every number of the device: (dotted key, figure, unit), in the order of the file."""
    found = [(key, _at(device, key), unit) for key, unit in figure_keys().items()]
    return [(key, figure, unit) for key, figure, unit in found if figure is not None]


def _at(record: object, key: str) -> Figure | None:
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
    best = next(
        key for key in ("bf16", "fp16", "fp8", "fp32", *chip.peak_flops) if key in chip.peak_flops
    )
    return Summary(
        id=chip.id,
        name=chip.name,
        vendor=chip.vendor,
        kind=chip.kind,
        family=chip.family,
        year=chip.year,
        peak_flops=chip.peak_flops[best],
        format=best,
        bandwidth=chip.memory.bandwidth,
        capacity=chip.memory.capacity,
        launch_usd=chip.price.launch_usd,
        cloud_usd_per_hour=chip.price.cloud_usd_per_hour,
    )
