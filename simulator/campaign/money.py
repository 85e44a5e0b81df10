"""The invoice of a run, by line."""

from __future__ import annotations

import math

from roofcast.hwdb.market import costs, summary
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.campaign.result import InvoiceLine

LOSS_A_YEAR = 0.33  # continuous rate: a device is worth 0.72 of its price a year later (Epoch AI)
YEAR = 365.25 * 24.0  # hours
JOULES = 3.6e9  # of a megawatt-hour
RATE_DIGITS = 4  # decimals of a rate on an invoice: a hundredth of a cent


class Priced(NamedTuple):
    """What a device-hour costs: rented, or by what owning it costs."""

    rent: float | None  # USD per device-hour
    purchase: float | None = None  # USD of a device with its share of a server
    watts: float | None = None  # of a device with its share of a host and a building


def owned(device: Device) -> Priced:
    """A device that is owned: its price on the market or at launch, with its share of a server, and
    the power that it is fed at most.
    """
    c = costs()
    server = summary(device.id, "server")
    piece = summary(device.id, "market") or summary(device.id, "launch")
    usd = server.median if server else None
    if usd is None and piece is not None:
        usd = c.server_over_devices * piece.median
    if usd is None and device.price.launch_usd is not None:
        usd = c.server_over_devices * float(device.price.launch_usd)
    tdp = device.power.cap or device.power.tdp
    watts = float(tdp) * c.server_power_over_devices * c.pue if tdp else None
    return Priced(None, usd, watts)


def line(what: str, quantity: float, unit: str, rate: float) -> InvoiceLine:
    """A line of an invoice: quantity and rate are rounded as they are shown, so that their product
    is the sum, to the cent.

    >>> line("8 devices", 38257.2164, "device-hours", 3.195).usd
    122231.82
    """
    quantity, rate = round(quantity, decimals(quantity)), round(rate, RATE_DIGITS)
    usd = round(quantity * rate, 2)
    return InvoiceLine(what=what, quantity=quantity, unit=unit, rate_usd=rate, usd=usd)


def decimals(quantity: float) -> int:
    """Decimals of a quantity of an invoice: two, or as many as five digits take.

    >>> decimals(38257.2), decimals(0.0123)
    (2, 6)
    """
    return max(2, 4 - math.floor(math.log10(quantity))) if quantity > 0 else 2


def invoice(
    device: str, devices: int, spares: int, hours: float, p: Priced, joules: float | None = None
) -> list[InvoiceLine]:
    """The lines of a run of so many hours; empty where no price is known.

    joules: electricity at the site; where it is unknown, that of all devices at their printed
    power with host and building.

    >>> [x.usd for x in invoice("h100-sxm5", 8, 1, 100.0, Priced(2.5))]
    [2000.0, 250.0]
    """
    if p.rent is not None:
        lines = [line(f"{devices:,} {device}", devices * hours, "device-hours", p.rent)]
        if spares:
            lines.append(line(f"{spares:,} idle spares", spares * hours, "device-hours", p.rent))
        return lines
    if p.purchase is None:
        return []
    everything = devices + spares
    loss = p.purchase * LOSS_A_YEAR / YEAR
    lines = [line(f"loss of value of {everything:,} {device}", everything * hours,
                  "device-hours", loss)]  # fmt: skip
    if joules is not None or p.watts is not None:
        mwh = joules / JOULES if joules is not None else everything * hours * (p.watts or 0.0) / 1e6
        lines.append(line("electricity, hosts and cooling included", mwh, "MWh",
                          1000.0 * costs().usd_per_kwh))  # fmt: skip
    return lines


def total(lines: list[InvoiceLine] | tuple[InvoiceLine, ...]) -> float | None:
    """The sum of an invoice, to the cent [USD]; None of an empty one."""
    return round(sum(each.usd for each in lines), 2) if lines else None
