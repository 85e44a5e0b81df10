"""A choice of `roofcast choose` as it is shown: a point with its forecast."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from roofcast.hwdb.market import Summary
from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.points import Point
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.parallel.layout import Layout

DAY = 86400.0
SCOPED = ("energy_by_scope_j", "node_power_w", "pue", "carbon_kg", "embodied_kg")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind, in their best layout, for the run. SI units and USD; None where unknown
    or not asked.
    """

    device: str
    devices: int
    node: int  # devices of a node
    options: dict[str, Any]  # layout, as predict takes it
    layout: Layout | None = None
    step_time_s: float
    time_s: float  # of the whole run; of a step where the run has no length
    time_low_s: float | None = None  # the 80 % interval
    time_high_s: float | None = None
    steps_s: float | None = None  # of its steps alone; None where the run has no length
    goodput: float | None = None  # steps / whole run
    within_probability: float | None = None  # that the deadline holds
    under_probability: float | None = None  # that the budget holds, at this price
    cost_usd: float | None = None
    cost_low_usd: float | None = None  # at the lowest price of these providers
    cost_high_usd: float | None = None
    price: Summary | None = None  # USD per device-hour, or of a purchase per device
    purchase_usd: float | None = None  # of all devices with their servers
    break_even_months: float | None = None  # of use without pause, renting against buying
    power_w: float | None = None
    energy_j: float | None = None  # of the boards
    energy_by_scope_j: dict[str, float] = {}  # board, accelerator, node, site
    node_power_w: float | None = None  # of a whole node at the plug
    pue: float | None = None
    carbon_kg: float | None = None  # of the site's electricity [CO2e]
    embodied_kg: float | None = None  # of making the hardware, the run's share [CO2e]
    peak_bytes: float
    capacity_bytes: float | None = None
    fits: bool = True  # surely; else it may fit
    rate: float | None = None  # tokens, or samples where there are none, per second
    mfu: float | None = None
    limited_by: str = ""
    interval_class: str = ""
    assumptions: tuple[str, ...] = ()  # about its device and the links, as predict lists them


def choice_of(chooser: Chooser, point: Point) -> Choice:
    """A point as it is shown: the whole run as `predict` forecasts it, how sure that is, and what
    limits its step.
    """
    of, n, length = point.offer, point.devices, chooser.length
    found = _forecast(chooser, point)
    steps = chooser.kinds[of.device.id].floor.steps
    low, high = found.low_s, found.high_s
    fields: dict[str, Any] = {
        "time_s": point.time_s,
        "cost_usd": point.cost_usd,
        "time_low_s": low * steps if low else None,
        "time_high_s": high * steps if high else None,
    }
    if (c := found.campaign) is not None:
        fields = {
            "time_s": c.time_s,
            "cost_usd": c.cost_usd if _is_rented(chooser, point) else point.cost_usd,
            "time_low_s": c.days_low * DAY,
            "time_high_s": c.days_high * DAY,
            "goodput": c.goodput,
        }
    fields |= _prices(chooser, point, fields["cost_usd"])
    energy_j = found.energy_j if found.energy_j is not None else point.energy_j
    return Choice(
        device=of.device.typed,
        devices=n,
        node=of.node,
        options=point.options,
        layout=found.layout,
        step_time_s=point.step_s,
        steps_s=found.step_time_s * steps if length.given else None,
        within_probability=_chance(chooser, point, found, chooser.wanted.within_s),
        under_probability=_chance(chooser, point, found, chooser.affordable_s(point)),
        power_w=point.power_w,
        energy_j=energy_j if length.given else None,
        peak_bytes=point.peak_bytes,
        capacity_bytes=float(of.device.memory.limit or 0) or None,
        fits=point.surely,
        rate=found.tokens_per_s or found.samples_per_s,
        mfu=found.mfu,
        limited_by=found.diagnosis,
        interval_class=found.interval_class,
        assumptions=_of_device(found, of.device.id),
        **{name: getattr(found, name) for name in SCOPED},
        **fields,
    )


def _of_device(found: Forecast, device: str) -> tuple[str, ...]:
    """The assumptions of a forecast that are about its device and the links between devices."""
    named = re.compile(rf"(?<![\w-]){re.escape(device)}(?![\w-])|^system |^hypothetical: ")
    return tuple(line for line in found.assumptions if named.search(line))


def _forecast(chooser: Chooser, point: Point) -> Forecast:
    s = chooser.kinds[point.offer.device.id].scenario
    rented = _is_rented(chooser, point) and not s.campaign.get("owned")
    if rented and point.offer.rent is not None:
        s = msgspec.structs.replace(s, price_per_hour=point.offer.rent.median)
    return forecast(msgspec.structs.replace(s, **point.options))


def _is_rented(chooser: Chooser, point: Point) -> bool:
    return not (chooser.wanted.buy or point.offer.owned) and point.offer.rent is not None


def _prices(chooser: Chooser, point: Point, usd: float | None) -> dict[str, Any]:
    """The price of a point, what it costs at the lowest and the highest, and buying beside it."""
    of = point.offer
    bought = point.devices * of.purchase.median if of.purchase and not of.owned else None
    price = of.purchase if chooser.wanted.buy else of.rent
    low = high = None
    if _is_rented(chooser, point) and price is not None and usd is not None and price.median:
        low, high = (usd * side / price.median for side in (price.low, price.high))
    return {
        "cost_low_usd": low,
        "cost_high_usd": high,
        "price": None if of.owned else price,
        "purchase_usd": bought,
        "break_even_months": None if of.owned else of.break_even_months,
    }


def _chance(chooser: Chooser, point: Point, found: Forecast, limit_s: float | None) -> float | None:
    """The probability that a run takes no longer than a limit."""
    if limit_s is None or not chooser.length.given:
        return None
    kind = chooser.kinds[point.offer.device.id]
    return chooser.length.sure(
        kind.floor, kind.names.device, point.devices, found.step_time_s, found.interval_s, limit_s
    )
