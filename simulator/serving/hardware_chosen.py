"""The answer of `roofcast choose --serving`: choices with their forecasts; where nothing holds the
load, what would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from roofcast.hwdb.errors import BadInput, listed
from roofcast.hwdb.market import Summary
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.serving.answer import beyond
from roofcast.simulator.serving.asked import Level, Serving
from roofcast.simulator.serving.hardware import Hardware, Point
from roofcast.simulator.serving.likeness import bases
from roofcast.simulator.serving.needed import MOST
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.server import Server

LEFT_OUT = (
    "replicas of several nodes, where one node holds the model",
    "replicas of different layouts or devices",
)


class ServingChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind, in the layout that takes the least of them. USD; None where unknown."""

    device: str
    devices: int
    replicas: int
    node: int  # devices of a node
    layout: dict[str, int]  # tp, pp, ep, dp of one replica
    weights: str | None  # as asked; None: as the checkpoint
    kv: str | None
    usd_per_hour: float | None = None  # rent of all devices
    purchase_usd: float | None = None  # of all devices with their servers
    price: Summary | None = None  # USD per device-hour, or of a purchase per device
    capacity_bytes: float | None = None  # of all devices
    slo_probability: float | None = None  # that real servers hold the level, by errors as measured
    forecast: ServingForecast  # under the load that is asked for


class ServingChosen(msgspec.Struct, frozen=True, kw_only=True):
    """What roofcast choose --serving found."""

    asked: Serving  # its device is not read
    slo: str
    slo_percent: int | None  # of the requests, that have to hold it; None: in the mean, or no level
    sure: float | None  # probability with which they do; None: as forecast
    objective: str
    limit_usd: float | None
    buy: bool  # bought, not rented
    choices: tuple[ServingChoice, ...]  # the best first, one per kind of device
    without_price: tuple[str, ...]
    without_memory: tuple[str, ...]  # whose capacity is unknown
    considered: int  # kinds of devices
    layouts: int  # that were looked at
    counted: int  # of these, whose replicas were counted; lower bounds rule the others out
    reasons: dict[str, int]
    left_out: tuple[str, ...]
    assumptions: tuple[str, ...]


def choose(
    asked: Serving,
    devices: Sequence[str],
    wanted: Wanted,
    goal: str = "cost",
    level: Level | None = None,
    top: int = 5,
    sure: float | None = None,
) -> ServingChosen:
    """Which of these devices, how many, and in which layout, for the load that is asked for.

    asked: its device and devices are not read; its load is a rate, or a number of users whose
    sequences have to fit at full length. wanted: prices and limits; `under_usd` is rent per hour,
    or purchase. sure: probability with which a rate has to hold the level, from errors of measured
    servers. Raises BadInput where nothing holds the load, with the nearest that would do.
    """
    if sure is not None and (level is None or asked.load.kind != "rate"):
        raise BadInput("sure: how sure a rate holds a service level; give --rate and --slo")
    found = Hardware(asked, devices, wanted, goal, level, sure)
    if not found.offers:
        kind = "purchase" if wanted.buy else wanted.contract
        first = next(iter(found.without_price), "h100-sxm5")
        how = f"--price {first}=2.10" if not wanted.buy else "--prices FILE"
        raise BadInput(
            f"no price ({kind}) of any of these devices; give one, for example {how}, or --for"
            " devices"
        )
    points = found.ranked(top)
    if not points:
        raise BadInput(_nothing(found, asked, devices, wanted, level))
    return ServingChosen(
        asked=asked,
        slo=_level_words(level, asked.load.kind, sure),
        slo_percent=level.percent if level is not None and asked.load.kind == "rate" else None,
        sure=sure,
        objective=goal,
        limit_usd=wanted.under_usd,
        buy=wanted.buy,
        choices=tuple(_choice(found, point) for point in points),
        without_price=tuple(found.without_price),
        without_memory=tuple(found.without_memory),
        considered=len(devices),
        layouts=found.layouts,
        counted=found.counted,
        reasons=found.refused.reasons,
        left_out=LEFT_OUT,
        assumptions=_said(found, points),
    )


def _level_words(level: Level | None, kind: str, sure: float | None) -> str:
    """A level as it is held."""
    if level is None or kind == "rate":
        surely = f", with a probability of {100 * sure:.0f} %" if sure else ""
        return "" if level is None else f"{level.words()}{surely}"
    parts = [f"{name} {1000 * value:g} ms" for name, value in level.limits.items()]
    return f"{', '.join(parts)} in the mean"


def _nothing(
    found: Hardware, asked: Serving, devices: Sequence[str], wanted: Wanted, level: Level | None
) -> str:
    """That nothing holds the load, and what would."""
    if wanted.under_usd is not None or wanted.devices < MOST:
        free = msgspec.structs.replace(wanted, under_usd=None, devices=MOST)
        wider = Hardware(asked, devices, free, found.goal, level, found.sure)
        points = wider.ranked(1)
        if points:
            p = points[0]
            n = p.replicas * p.way.size
            usd = wider.usd(p.way.offer, n)
            more = f"; --devices {n} allows as many" if n > wanted.devices else ""
            cost = "" if usd is None else f" at {usd:,.2f} USD{'' if wanted.buy else ' per hour'}"
            return (
                "nothing within the limits holds this load; the nearest is"
                f" {n:,} {p.way.offer.device.id}{cost}{more}"
            )
        found = wider
    if found.failed and level is not None:
        limits = ", ".join(f"{name} {1000 * most:g} ms" for name, most in level.limits.items())
        surely = f" with a probability of {100 * found.sure:.0f} %" if found.sure else ""
        return (
            f"slo {limits}: nothing holds it{surely}; the nearest is {found.nearest()}; allow more"
        )
    if found.refused.reasons:
        reason = max(found.refused.reasons, key=lambda text: found.refused.reasons[text])
        return f"no layout of these devices holds {asked.model}: {reason}"
    return f"more than {MOST:,} devices are needed"


def _choice(found: Hardware, point: Point) -> ServingChoice:
    """A point as it is shown, with its forecast."""
    way, n, of = point.way, point.replicas, point.way.offer
    devices = n * way.size
    forecast = found.told(point)
    price = of.purchase if found.wanted.buy else of.rent
    capacity = of.device.memory.limit
    return ServingChoice(
        device=of.device.typed,
        devices=devices,
        replicas=n,
        node=of.node,
        layout=forecast.layout,
        weights=way.asked.weights,
        kv=way.asked.kv,
        usd_per_hour=None if of.rent is None else devices * of.rent.median,
        purchase_usd=None if of.purchase is None else devices * of.purchase.median,
        price=price,
        slo_probability=point.need.probability(n) if point.need is not None else None,
        capacity_bytes=devices * float(capacity) if capacity else None,
        forecast=forecast,
    )


def _stacks(every: Sequence[Server]) -> Iterator[str]:
    """Which stacks were taken, and on which devices where these differ."""
    devices: dict[str, dict[str, None]] = {}
    for of in every:
        devices.setdefault(of.profile.name, {})[of.device.typed] = None
    for stack, names in devices.items():
        where = "every device" if len(devices) == 1 else listed(names)
        yield f"stack {stack} on {where}"


def _said(found: Hardware, points: Sequence[Point]) -> tuple[str, ...]:
    """What was assumed for all choices."""
    of = [point.need.of.server for point in points if point.need is not None]
    said = list(_stacks(of)) if found.asked.stack is None else []
    if found.asked.load.kind == "rate":
        said.append("requests arrive at random (Poisson), and go to the replicas by turns")
    said.append("replicas: each with its part of the load, no router, no spare")
    said += [line for server in of for line in server.formats.assumptions]
    said += [line for p in points[:1] if p.need for line in beyond(p.need.of, found.asked.load)]
    said += bases([(server.likeness, server.device.id) for server in of])
    if found.wanted.buy:
        said.append("purchase: devices with their share of a server, without network and power")
    return tuple(dict.fromkeys(said))
