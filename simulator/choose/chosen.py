"""The answer of `roofcast choose`: choices with their forecasts, the front, and where nothing meets
the constraints, what would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from roofcast import hwdb
from roofcast.hwdb.market import Summary
from roofcast.simulator.choose.choosing import Chooser, Point, meets
from roofcast.simulator.choose.offers import HOUR, is_portable
from roofcast.simulator.choose.wanted import GOAL_OF, LIMITS, Wanted, probability
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.interval import residuals
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import Layout

ASSUMED = (  # of every choice
    "layouts: a coarse grid (powers of two, no or full recomputation), and for the choices shown"
    " schedules, virtual stages, sharding groups, selective recomputation and offload;"
    " roofcast search tries more",
    "time: steps only, without failures, checkpoints, evaluation, or waiting for a machine",
    "energy: of the boards by the watts that the forecast gives; of accelerators with their share"
    " of the host, of nodes at the plug and of the site where it is said; limits and ranks on power"
    " and energy take the printed power (TDP) of the boards",
    "every device is given the same global batch, so that all of them take the same steps",
)
SCOPED = ("energy_by_scope_j", "node_power_w", "pue", "carbon_kg", "embodied_kg")
BOUGHT = (
    "purchase: devices with their share of a server, without network, space and staff; and the"
    " electricity of the run"
)


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
    time_s: float  # of the run
    time_low_s: float | None = None  # the 80 % interval
    time_high_s: float | None = None
    # steps / the whole training with checkpoints, failures and restarts (campaign of predict); no
    # rank and no limit reads it
    goodput: float | None = None
    whole_time_s: float | None = None
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
    mfu: float | None = None
    limited_by: str = ""
    interval_class: str = ""


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """What one constraint would have to be, the others kept."""

    limit: str  # a field of Wanted
    given: float
    needed: float | None  # None: no value of it would do, the others kept
    choice: Choice | None = None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What roofcast choose found."""

    scenario: dict[str, Any]  # with its batch
    objective: str
    limits: dict[str, float]
    choices: tuple[Choice, ...]  # the best first, one per kind of device
    front: tuple[Choice, ...]  # no other beats in time, cost, energy and memory
    misses: tuple[Miss, ...]  # where nothing meets the constraints
    smallest: Choice | None  # the fewest devices on which it fits
    binding: dict[str, float]  # constraint: part of it that the best choice uses
    without_price: tuple[str, ...]
    without_power: tuple[str, ...]
    unable: dict[str, str]  # device: why it cannot run this
    unmeasured: tuple[str, ...] = ()  # left out: devices of makers on which no run was measured
    considered: int  # kinds of devices
    searched: int  # kinds and counts of devices whose layouts were forecast
    layouts: int  # forecast
    assumptions: tuple[str, ...]


def measured(devices: Sequence[str]) -> list[str]:
    """Those of the devices whose maker has made a device of the kind on which runs were measured:
    of others nothing tells how far a forecast may be off.
    """
    makers = set(residuals().traits["maker"].tolist())
    records = ((name, hwdb.device(name)) for name in devices)
    return [name for name, d in records if f"{d.vendor} {d.kind}" in makers]


def choose(
    scenario: Scenario, devices: Sequence[str] | None, wanted: Wanted, top: int = 5
) -> Chosen:
    """Which of these devices, how many, and in which layout, for the run of a scenario.

    scenario: its device is not read; devices: None for all that are `measured`. Raises BadInput
    where no device can run it, or where the run has no length.
    """
    unmeasured: tuple[str, ...] = ()
    if devices is None:
        devices = measured(hwdb.devices())
        unmeasured = tuple(name for name in hwdb.devices() if name not in devices)
    chooser = Chooser(scenario, devices, wanted)
    best = [chooser.refine(p) for p in chooser.ranked(wanted, top)]
    goal = wanted.objective
    best.sort(key=lambda p: p.value(goal) or 0.0)
    choices = tuple(_choice(chooser, p, _forecast(chooser, p)) for p in best)
    misses = () if best else _misses(chooser, wanted)
    front = chooser.front(wanted) if best else []
    smallest = chooser.smallest()
    kind = next(iter(chooser.kinds.values()))
    asked = msgspec.to_builtins(kind.scenario)
    del asked["device"]
    said = [*chooser.assumptions, *ASSUMED, *([BOUGHT] if wanted.buy else [])]
    return Chosen(
        scenario=asked,
        objective=goal,
        limits=wanted.limits,
        choices=choices,
        front=tuple(_choice(chooser, p, _forecast(chooser, p)) for p in front),
        misses=misses,
        smallest=_choice(chooser, smallest, _forecast(chooser, smallest)) if smallest else None,
        binding=_binding(choices[0], wanted) if choices else {},
        without_price=_without(chooser, wanted, "price"),
        without_power=_without(chooser, wanted, "power"),
        unable=chooser.unable,
        unmeasured=unmeasured,
        considered=len(devices),
        searched=len(chooser.searched),
        layouts=chooser.layouts,
        assumptions=tuple(said),
    )


def _forecast(chooser: Chooser, point: Point) -> Forecast:
    kind = chooser.kinds[point.offer.device.id]
    return forecast(msgspec.structs.replace(kind.scenario, **point.options))


def _choice(chooser: Chooser, point: Point, found: Forecast | None = None) -> Choice:
    """A point as it is shown; with its forecast also how sure it is, and what limits it."""
    wanted, of, n = chooser.wanted, point.offer, point.devices
    price = of.purchase if wanted.buy else of.rent
    rented = not (wanted.buy or of.owned)
    low = high = None
    if rented and price is not None and point.cost_usd is not None and price.median:
        low, high = (point.cost_usd * side / price.median for side in (price.low, price.high))
    extra: dict[str, Any] = {}
    if found is not None:
        steps = point.time_s / point.step_s
        extra = {
            "time_low_s": found.low_s * steps if found.low_s else None,
            "time_high_s": found.high_s * steps if found.high_s else None,
            "mfu": found.mfu,
            "limited_by": found.diagnosis,
            "layout": found.layout,
            "interval_class": found.interval_class,
            "within_probability": _sure(found, wanted.within_s, steps),
            "under_probability": _sure(found, _affordable(point, wanted), steps),
        }
        if found.campaign is not None:
            extra["goodput"] = found.campaign.goodput
            extra["whole_time_s"] = found.campaign.time_s
        if found.energy_j is not None:
            extra["energy_j"] = found.energy_j
        extra |= {name: getattr(found, name) for name in SCOPED}
    fields: dict[str, Any] = {
        "energy_j": point.energy_j,
        "device": of.device.id,
        "devices": n,
        "node": of.node,
        "options": point.options,
        "step_time_s": point.step_s,
        "time_s": point.time_s,
        "cost_usd": point.cost_usd,
        "cost_low_usd": low,
        "cost_high_usd": high,
        "price": None if of.owned else price,
        "purchase_usd": n * of.purchase.median if of.purchase and not of.owned else None,
        "break_even_months": None if of.owned else of.break_even_months,
        "power_w": point.power_w,
        "peak_bytes": point.peak_bytes,
        "capacity_bytes": float(of.device.memory.capacity or 0) or None,
    }
    return Choice(**(fields | extra))


def _sure(found: Forecast, limit_s: float | None, steps: float) -> float | None:
    """The probability that a run takes no longer than a limit."""
    if limit_s is None:
        return None
    return probability(found.interval_s, limit_s / steps, found.step_time_s)


def _affordable(point: Point, wanted: Wanted) -> float | None:
    """Seconds that the budget pays for; None without a budget, or where time costs nothing."""
    if wanted.under_usd is None or point.cost_usd is None:
        return None
    fixed = point.offer.cost(point.devices, 0.0, wanted.buy) or 0.0
    running = (point.cost_usd - fixed) / point.time_s
    return (wanted.under_usd - fixed) / running if running > 0 else None


def _binding(best: Choice, wanted: Wanted) -> dict[str, float]:
    """The part of each constraint that the best choice uses, the largest first."""
    used = {name: getattr(best, LIMITS[name]) / limit for name, limit in wanted.limits.items()}
    return dict(sorted(used.items(), key=lambda each: -each[1]))


def _misses(chooser: Chooser, wanted: Wanted) -> tuple[Miss, ...]:
    """For each constraint the nearest value that would do, the others kept."""
    found = []
    for name, given in wanted.limits.items():
        relaxed = msgspec.structs.replace(wanted, **{name: None}, goal=GOAL_OF[name])
        near = chooser.ranked(relaxed, 1)
        point = chooser.refine(near[0]) if near else None
        needed = getattr(point, LIMITS[name]) if point else None
        if point is not None and needed is not None and needed <= given and meets(point, wanted):
            needed = None  # refined, it does
        choice = _choice(chooser, point, _forecast(chooser, point)) if point else None
        found.append(Miss(limit=name, given=given, needed=needed, choice=choice))
    return tuple(found)


def _without(chooser: Chooser, wanted: Wanted, what: str) -> tuple[str, ...]:
    """Devices that were left out since their price, or their power, is unknown."""
    limits, goal = wanted.limits, wanted.objective
    if what == "price":
        needed = "under_usd" in limits or goal == "cost"
        known = {
            name: kind.offer.cost(1, HOUR, wanted.buy) is not None
            for name, kind in chooser.kinds.items()
        }
    else:
        needed = bool({"max_power_w", "max_energy_j"} & set(limits)) or goal in ("energy", "power")
        known = {name: kind.offer.power_w is not None for name, kind in chooser.kinds.items()}
    found = [name for name, has in known.items() if needed and not has]
    return tuple(sorted(found, key=lambda name: _rarely_meant(chooser, name)))


def _rarely_meant(chooser: Chooser, name: str) -> bool:
    """Is a device seldom what one would train on? CPUs and notebooks are named last."""
    device = chooser.kinds[name].offer.device
    return device.kind == "cpu" or is_portable(device)
