"""Joules and US dollars of tokens."""

from __future__ import annotations

from roofcast.hwdb.market import rent as rent_of
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple

HOUR = 3600.0
MILLION = 1e6


class Price(NamedTuple):
    """What a device costs per hour [USD], and where that is from."""

    usd_per_hour: float | None
    said: tuple[str, ...]


def price_of(device: Device, given: float | None) -> Price:
    """The price that is given, or the median of public quotes, as `roofcast choose` takes it."""
    if given is not None:
        return Price(given, ())
    rent = rent_of(device)
    if rent is None:
        return Price(None, (f"no public price of {device.id}; --price gives one",))
    kind = f"{rent.kind}{f', {rent.of_class}' if rent.of_class else ''}"
    of = "one public quote" if rent.providers == 1 else f"median of {rent.providers} public quotes"
    return Price(rent.median, (f"{_usd(rent.median)} USD per device-hour: {of} ({kind})",))


def _usd(amount: float) -> str:
    """All digits that count, to a hundredth of a cent, as other pages print a rent.

    >>> _usd(3.195), _usd(2.0), _usd(0.665)
    ('3.195', '2.00', '0.665')
    """
    text = f"{amount:,.4f}"
    return text.rstrip("0").ljust(len(text) - 2, "0")


class Dollars(NamedTuple):
    """USD per million tokens."""

    input: float | None
    output: float | None
    output_all: float | None  # where output tokens carry all cost


def dollars(
    usd_per_hour: float | None,
    devices: int,
    requests_per_s: float,
    tokens: tuple[int, int],
    prompt_share: float,
) -> Dollars:
    """The cost of the devices, split over input and output tokens by the time that they take.

    tokens: of a request, input and output. prompt_share: of the time of the engine that prompts
    take; waiting is split alike.
    """
    if usd_per_hour is None or requests_per_s <= 0:
        return Dollars(None, None, None)
    of_request = usd_per_hour * devices / HOUR / requests_per_s
    return Dollars(
        MILLION * of_request * prompt_share / tokens[0],
        MILLION * of_request * (1.0 - prompt_share) / tokens[1],
        MILLION * of_request / tokens[1],
    )
