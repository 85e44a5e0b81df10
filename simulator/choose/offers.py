"""What a device costs: to rent, to buy with its share of a server, to run."""

from __future__ import annotations

from roofcast import hwdb
from roofcast.hwdb.market import Own, Summary, costs, own_summary, rent, summary
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.parallel.networks import DESKTOP, REFERENCE

LARGEST_NODE = 16  # devices; racks and pods are taken in trays of TRAY
TRAY, SERVER, TOWER = 4, 8, 4  # devices per node of a rack; where no system is known
PORTABLE = ("-laptop", "jetson", "gb10", "strix-halo")  # machines of one device, as are Apple's
HOUR = 3600.0
JOULES = 3.6e6  # of a kWh
MONTH = 365.25 / 12 * 24  # hours


class Offer(NamedTuple):
    """A device as it can be had."""

    device: Device
    rent: Summary | None  # USD per device-hour
    purchase: Summary | None  # USD per device, with its share of a server
    power_w: float | None  # printed
    node: int  # devices of a node
    most: int  # devices there are, or that may be taken
    owned: bool

    @property
    def electricity_usd_per_hour(self) -> float:
        """Electricity of one device with its share of the server and the building; 0 where its
        power is unknown.
        """
        c = costs()
        watts = (self.power_w or 0.0) * c.server_power_over_devices * c.pue
        return watts / 1000 * c.usd_per_kwh

    def cost(
        self, devices: int, seconds: float, buy: bool, site_j: float | None = None
    ) -> float | None:
        """USD of a run: its rent; of bought devices their purchase and the run's electricity at the
        printed power, of owned ones the electricity; None where the price is unknown.

        site_j: joules of the run at the site, for owned devices; None: at the printed power.
        """
        hours = devices * seconds / HOUR
        if self.owned and site_j is not None:
            return site_j / JOULES * costs().usd_per_kwh
        if self.owned:
            return self.electricity_usd_per_hour * hours
        if buy:
            if self.purchase is None:
                return None
            return devices * self.purchase.median + self.electricity_usd_per_hour * hours
        return None if self.rent is None else self.rent.median * hours

    @property
    def break_even_months(self) -> float | None:
        """Months of use without pause after which the rent saved has paid for the purchase; None
        where a price is unknown, or where rent is below the electricity.
        """
        if self.rent is None or self.purchase is None:
            return None
        saved = self.rent.median - self.electricity_usd_per_hour
        return self.purchase.median / saved / MONTH if saved > 0 else None


def offer(device: Device, wanted: Wanted) -> Offer:
    """The device with its prices, the user's first."""
    own = wanted.prices.get(device.id)
    node = _node(device)
    most = wanted.owned.get(device.typed, wanted.devices)
    if device.typed not in wanted.owned and is_desktop(device) and not wanted.joined:
        most = min(most, node)  # no network joins such machines
    return Offer(
        device,
        _rent(device, own, wanted),
        _purchase(device, own),
        float(device.power.tdp) if device.power.tdp else None,
        node,
        min(most, wanted.devices),
        device.typed in wanted.owned,
    )


def _rent(device: Device, own: Own | None, wanted: Wanted) -> Summary | None:
    if own is not None and (mine := own_summary(own, wanted.contract)):
        return mine
    return rent(device, wanted.contract, wanted.provider)


def _purchase(device: Device, own: Own | None) -> Summary | None:
    """With its share of a server: as quoted, or by the usual ratio."""
    if own is not None:
        for kind in ("server", "market"):
            if mine := own_summary(own, kind):
                return mine if kind == "server" else _with_server(mine)
    if (server := summary(device.id, "server")) is not None:
        return server
    piece = summary(device.id, "market") or summary(device.id, "launch")
    if piece is None and device.price.launch_usd is not None:
        usd = float(device.price.launch_usd)
        piece = Summary("launch", "", usd, usd, usd, 1, str(device.year or ""), False)
    return _with_server(piece) if piece is not None else None


def _with_server(piece: Summary) -> Summary:
    ratio = costs().server_over_devices
    return piece._replace(
        low=ratio * piece.low, median=ratio * piece.median, high=ratio * piece.high
    )


def is_portable(device: Device) -> bool:
    """Is it a machine of one device: a notebook, a board, a desktop computer of its maker?"""
    return device.vendor == "Apple" or any(word in device.id for word in PORTABLE)


def is_desktop(device: Device) -> bool:
    """Is it built into desktop machines, which are not joined to a cluster?"""
    return is_portable(device) or device.id.startswith(DESKTOP)


def _node(device: Device) -> int:
    """Devices of a node of the usual system of a device."""
    name = REFERENCE.get(device.id) or REFERENCE.get(device.base)
    if name is not None:
        count = int(hwdb.system(name).count)
        return count if count <= LARGEST_NODE else TRAY
    if device.kind == "cpu" or is_portable(device):
        return 1
    return TOWER if device.id.startswith(DESKTOP) else SERVER


def counts(offer: Offer, batch: int) -> list[int]:
    """Numbers of devices that are considered: parts of a node, then whole nodes, by powers of two
    and three times these, as far as there are devices and the batch can be divided; and the most
    there may be.
    """
    found = set(divisors(offer.node))
    n = offer.node
    while n <= offer.most:
        found |= {n, 3 * n}
        n *= 2
    usual = [d for d in found if d <= offer.most and (d % 3 or batch % 3 == 0)]
    return sorted({*usual, offer.most})
