"""Public prices of devices: hwdb/prices/, by kind of contract and class of provider.

A device has no one price: an H100 rents from 1.74 to 12.29 USD per hour. A `Summary` gives lowest,
median and highest over providers, each provider with the median of its recent quotes.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.lookup import device as device_of
from roofcast.hwdb.names import is_path, names
from roofcast.hwdb.records import Device
from roofcast.hwdb.strict import checked, load
from roofcast.hwdb.tuples import NamedTuple

FOLDER = Path(__file__).parent / "prices"
KINDS = ("on-demand", "spot", "reserved-1y", "reserved-3y", "market", "server", "launch")
RENTS = KINDS[:4]
QUOTED = ("device", "kind", "usd", "date", "provider", "class", "region", "source")
CLASSES = ("specialised", "hyperscaler", "marketplace")
RECENT = 2  # years before the newest quote of the table; older ones count where there is no other
_HYPERSCALERS = ("AWS", "Azure", "GCP", "Oracle")
_MARKETPLACES = (
    "Vast.ai", "Salad", "Lium", "Spheron (broker)", "SF Compute", "dc_roan", "Prime Compute",
    "Excess Supply",
)  # fmt: skip
_SPECIALISED = (
    "CR8DL", "Civo", "CoreWeave", "Crusoe", "Cudo", "DataCrunch (now Verda)", "Denvr", "Exoscale",
    "FluidStack", "Hyperstack", "Jarvislabs", "Lambda", "Latitude.sh", "Massed Compute", "Nebius",
    "NovoNimbus", "OVHcloud", "Oblivus", "Paperspace", "RunPod", "Scaleway", "Seeweb",
    "TensorWave", "Together", "Vultr", "Yotta",
)  # fmt: skip
PROVIDER_CLASS = {
    **dict.fromkeys(_HYPERSCALERS, "hyperscaler"),
    **dict.fromkeys(_SPECIALISED, "specialised"),
    **dict.fromkeys(_MARKETPLACES, "marketplace"),
}
"""Class of each provider that rents machines by the hour."""


class Quote(NamedTuple):
    """One public price."""

    device: str
    kind: str  # one of KINDS
    usd: float  # per device-hour, or per device
    date: str  # "2026-08-21", "2025-12"; empty: not dated, of late 2025 to 2026
    provider: str
    of_class: str  # one of CLASSES; empty for a purchase
    region: str
    source: str  # a key of sources()


class Summary(NamedTuple):
    """Prices of one device, kind and class of provider [USD per device-hour, or per device]."""

    kind: str
    of_class: str  # "yours": given by the user; "listed": in the file of a device
    low: float
    median: float
    high: float
    providers: int  # of a purchase: quotes
    newest: str  # date of the newest quote; empty where none is dated
    recent: bool  # whether the quotes are of the table's last RECENT years
    source: str = ""  # where the newest quote was read


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What owning costs beside the devices; hwdb/prices/costs.toml says where each is from."""

    usd_per_kwh: float
    pue: float  # power of the building over that of its machines
    server_over_devices: float  # price of a server over that of its accelerators
    years_of_life: float
    server_power_over_devices: float  # power of a server over the printed power of its devices
    sources: dict[str, str] = {}


class Own(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """A user's prices of one device [USD per device-hour; market, server: USD per device]."""

    on_demand: float | None = None
    spot: float | None = None
    reserved_1y: float | None = None
    reserved_3y: float | None = None
    market: float | None = None
    server: float | None = None


def _table(name: str, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Cells of these columns of the rows of a shipped table, without the comments at its head."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(line for line in file if not line.startswith("#"))
        head = next(rows)
        places = [head.index(column) for column in columns]
        for row in rows:
            yield [row[place] for place in places]


@functools.cache
def _rows() -> dict[str, list[list[str]]]:
    """The rows of the shipped quotes by device."""
    found: dict[str, list[list[str]]] = {}
    for row in _table("quotes.csv", QUOTED):
        found.setdefault(row[0], []).append(row)
    return found


@functools.cache
def quotes_of(device: str) -> tuple[Quote, ...]:
    """The shipped quotes of a device; empty where there is none."""
    rows = _rows().get(device, ())
    return tuple(Quote(name, kind, float(usd), *rest) for name, kind, usd, *rest in rows)


def quotes() -> dict[str, tuple[Quote, ...]]:
    """The shipped quotes by device."""
    return {device: quotes_of(device) for device in _rows()}


@functools.cache
def sources() -> dict[str, str]:
    """Key of a source: where it was read."""
    return dict(_table("sources.csv", ("source", "where")))


@functools.cache
def costs() -> Costs:
    """The shipped costs of owning."""
    path = FOLDER / "costs.toml"
    return checked(Costs, load(path, "the costs of owning"), str(path))


@functools.cache
def newest() -> str:
    """Date of the newest quote of the table."""
    return max(row[QUOTED.index("date")] for rows in _rows().values() for row in rows)


def _is_recent(quote: Quote) -> bool:
    """Whether a quote is of the table's last years, or of a list without a date."""
    return not quote.date or int(quote.date[:4]) + RECENT >= int(newest()[:4])


@functools.cache
def summary(device: str, kind: str, of_class: str = "") -> Summary | None:
    """Prices of a device of one kind and class of provider (empty: all); None where there is none.

    >>> rent = summary("h100-sxm5", "on-demand", "specialised")
    >>> rent.low < rent.median < rent.high
    True
    """
    fitting = [q for q in quotes_of(device) if q.kind == kind and of_class in ("", q.of_class)]
    if not fitting:
        return None
    now = [q for q in fitting if _is_recent(q)]
    used = now or fitting
    # a shop is no provider: each purchase counts
    each = [_median(p) for p in _by_provider(used)] if kind in RENTS else [q.usd for q in used]
    last = max(used, key=lambda q: q.date)
    spread = min(each), _median(each), max(each)
    where = sources()[last.source]
    return Summary(kind, of_class, *spread, len(each), last.date, bool(now), where)


def rent(device: Device, contract: str = RENTS[0], provider: str | None = None) -> Summary | None:
    """What a device costs to rent [USD per device-hour]: the median over the first class of
    providers, or over `provider`, with recent quotes, else with older ones. Where a user's file or
    a change of the device states a price on demand, that; None where there is no price.
    """
    known = device.id if device.id in names("devices") else device.base
    listed = device.price.cloud_usd_per_hour
    on_demand = (contract, provider) == (RENTS[0], None)
    shipped = device_of(known).price.cloud_usd_per_hour if known in names("devices") else None
    if listed is not None and listed != shipped and on_demand:
        return _listed(float(listed))
    classes = (provider,) if provider else CLASSES
    found = [summary(known, contract, each) for each in classes]
    quoted = [each for each in found if each is not None]
    if not quoted:
        return _listed(float(listed)) if listed is not None and on_demand else None
    return next((each for each in quoted if each.recent), quoted[0])


def _listed(usd: float) -> Summary:
    """A price on demand that stands in the file of a device."""
    return Summary(RENTS[0], "listed", usd, usd, usd, 1, "", True, "the file of the device")


def _median(values: Iterable[float]) -> float:
    each = sorted(values)
    middle = len(each) // 2
    return each[middle] if len(each) % 2 else (each[middle - 1] + each[middle]) / 2


def _by_provider(used: Iterable[Quote]) -> list[list[float]]:
    found: dict[str, list[float]] = {}
    for q in used:
        found.setdefault(q.provider, []).append(q.usd)
    return list(found.values())


def priced(name: str, among: Sequence[str] = ()) -> str:
    """The `id` of the device that a price is of: a name, a device's file, or the name of such a
    file of `among` without its ending. Raises UnknownName.
    """
    own = {Path(each).stem for each in among if is_path(each)}
    return name if name in own else device_of(name).id


def own_prices(path: str | Path, among: Sequence[str] = ()) -> dict[str, Own]:
    """A user's file of prices: a table per device. Raises BadInput or UnknownName.

    among: the devices to choose from, whose files may be named without their ending.

    [h100-sxm5]
    on-demand = 2.10    # USD per device-hour; spot, reserved-1y, reserved-3y too
    market = 25000      # USD per device; or server, with its share of a server
    """
    tree = load(Path(path), "prices: a table per device")
    found: dict[str, Own] = {}
    for name, table in tree.items():
        device = priced(name, among)
        if not isinstance(table, dict) or not table:
            raise BadInput(f"{path}: {quoted(name)}: wanted a table, for example on-demand = 2.10")
        own = checked(Own, table, f"{path}: {name}")
        for field in own.__struct_fields__:
            value = getattr(own, field)
            if value is not None and not 0 <= value < 1e9:
                raise BadInput(f"{path}: {name}.{field.replace('_', '-')} {value:g}: not a price")
        found[device] = own
    return found


def own_summary(own: Own, kind: str) -> Summary | None:
    """A user's price in the form of a Summary; None where the file has none of the kind."""
    usd = getattr(own, kind.replace("-", "_"), None)
    return None if usd is None else Summary(kind, "yours", usd, usd, usd, 1, "", True)
