"""A price in words: what it is the price of, its spread, date and source."""

from __future__ import annotations

from roofcast.hwdb.market import Summary, costs
from roofcast.reports.format import hourly, money
from roofcast.simulator.forecast.result import Price

PURCHASES = ("market", "server", "launch")
CLASSES = {
    "specialised": "specialised clouds", "hyperscaler": "hyperscalers",
    "marketplace": "marketplaces", "yours": "your price", "listed": "the file of the device",
}  # fmt: skip


def price_words(p: Summary) -> str:
    """A price with its class of provider, its spread, its date and its source."""
    per = "per device" if p.kind in PURCHASES else "per device-hour"
    shown = money(p.median) if p.kind in PURCHASES else hourly(p.median)
    text = f"{shown} {per}, {p.kind}"
    if p.of_class in ("yours", "listed"):
        return f"{text}, {'your price' if p.of_class == 'yours' else 'of the file of the device'}"
    if p.kind in ("market", "launch"):
        text += (
            f" price and its share of a server ({costs().server_over_devices:g} times the device)"
        )
    if p.providers == 1:
        text += f", one of the {CLASSES[p.of_class]}" if p.of_class else ", one quote"
    else:
        text += f", median of {p.providers} {CLASSES[p.of_class] if p.of_class else 'quotes'}"
    if p.providers > 1:
        text += f" ({money(p.low)} to {money(p.high)})"
    dated = f", newest {p.newest}" if p.newest else ", lists of late 2025 to 2026"
    return text + dated + ("" if p.recent else " (no newer quote)")


def rent_words(p: Price) -> str:
    """The rent of a forecast, shorter: class of provider, date and source."""
    if p.of_class in ("yours", "listed"):
        return CLASSES[p.of_class]
    one = "one of the" if p.providers == 1 else f"median of {p.providers}"
    dated = p.newest or "lists of late 2025 to 2026"
    return f"{p.contract}, {one} {CLASSES[p.of_class]}, {dated}; source: hwdb/prices"
