"""The answer of `roofcast choose`: choices with their forecasts, the front, and where nothing meets
the constraints, what would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.choose.batches import no_length
from roofcast.simulator.choose.choice import Choice, choice_of
from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.misses import Miss, Near, misses, smaller_batch
from roofcast.simulator.choose.offers import HOUR, is_desktop, is_portable
from roofcast.simulator.choose.points import Point
from roofcast.simulator.choose.settled import settled
from roofcast.simulator.choose.wanted import LIMITS, MOST_DEVICES, YEAR, Wanted
from roofcast.simulator.forecast.interval import residuals
from roofcast.simulator.forecast.resolve import named as names_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.networks import fabric_of

ASSUMED = (  # of every choice
    "layouts: devices and numbers of them are compared by a coarse grid (powers of two, no or full"
    " recomputation); the best choice has the fastest layout that roofcast search finds, the next"
    " and the front are varied in schedule, virtual stages, sharding groups, micro-batch,"
    " recomputation and offload",
    "energy: of the boards in the steps, by the watts that the forecast gives; of accelerators with"
    " their share of the host, of nodes at the plug and of the site where it is said; limits and"
    " ranks on energy take that of the boards in the fastest layout, those on power the printed"
    " power (TDP)",
    "every device is given the same global batch, so that all of them take the same steps",
)
WHOLE = (
    "time and cost: of the whole training, with checkpoints, failures and restarts, as roofcast"
    " predict forecasts it; without evaluation and waiting for a machine"
)
PASSES = "time and cost: of the passes alone"
NO_LENGTH = (
    "no length of the run was given, so that no duration is said: choices are what holds the"
    " training, with the rate of its steps"
)
BOUGHT = "purchase: devices with their share of a server, without network, space and staff"
DESKTOPS = (
    "boards of desktop machines: no more than one machine holds; --on with --devices takes as many"
    " as are asked for"
)
OWNED = (
    "cost of owned devices: the electricity of the run at the site, by the watts that the forecast"
    " gives (at the printed power with host and building where these are unknown); roofcast predict"
    " --owned adds their loss of value"
)
ACCELERATORS = ("gpu", "tpu", "npu")  # kinds of devices that are chosen from by default
ELECTRICITY = "; and the electricity of the run, at the printed power with host and building"


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What roofcast choose found."""

    scenario: dict[str, Any]  # with its batch
    batch_assumed: bool = False
    timed: bool = True  # whether the run has a length
    bought: bool = False  # whether costs are those of a purchase
    rate_of: str = "samples/s"  # what the rate of a choice counts
    objective: str
    limits: dict[str, float]
    sure: float | None = None  # probability with which deadline and budget hold, where asked for
    choices: tuple[Choice, ...]  # the best first, one per kind of device
    front: tuple[Choice, ...]  # no other beats in time, cost, energy and memory
    misses: tuple[Miss, ...]  # where nothing meets the constraints
    unlimited: Choice | None = None  # where none of them alone is to blame: the best without any
    smallest: Choice | None  # the fewest devices on which it fits
    fitting_batch: int | None = None  # where nothing fits: the largest smaller batch that does
    binding: dict[str, float]  # constraint: part of it that the best choice uses
    without_price: tuple[str, ...]
    without_power: tuple[str, ...]
    unable: dict[str, str]  # device: why it cannot run this
    unmeasured: tuple[str, ...] = ()  # left out: devices of makers on which no run was measured
    other_kinds: tuple[str, ...] = ()  # left out: devices of kinds that were not asked for
    too_slow: tuple[str, ...] = ()  # left out: devices on which the run takes over a year
    impossible: tuple[str, ...] = ()  # by lower bounds: a limit, or memory
    known: int  # kinds of devices there are, or that were named
    considered: int  # of these
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
    scenario: Scenario,
    devices: Sequence[str] | None,
    wanted: Wanted,
    top: int = 5,
    kinds: Sequence[str] = (),
) -> Chosen:
    """Which of these devices, how many, and in which layout, for the run of a scenario.

    scenario: its device is not read; devices: None for all that are `measured`; kinds: of these
    devices, "gpu", "tpu" ...; default: all that are named, else all but CPUs. Raises BadInput where
    no device can run it, or where the question needs a length of the run that is not given.
    """
    _check_length(scenario, wanted)
    named, among = devices is not None, list(devices or hwdb.devices())
    left = _left_out(among, named, kinds)
    among = [name for name in among if not any(name in each for each in left)]
    if not among:
        raise BadInput(f"--kind {', '.join(kinds)}: none of these devices is of that kind")
    if named and wanted.devices != MOST_DEVICES:
        wanted = msgspec.structs.replace(wanted, joined=True)
    timed = not (scenario.tokens is None and scenario.samples is None and scenario.epochs is None)
    if not named and timed and wanted.within_s is None:
        wanted = msgspec.structs.replace(wanted, longest_s=YEAR)
    chooser = Chooser(scenario, among, wanted)
    chooser.wanted = wanted = _without_prices(chooser, wanted)
    best = chooser.best(wanted, top)
    if not best and wanted.longest_s is not None:
        chooser.wanted = wanted = msgspec.structs.replace(wanted, longest_s=None)
        best = chooser.best(wanted, top)
    smallest = chooser.smallest()
    near, batch = Near((), None), None
    if smallest is None:
        batch = smaller_batch(scenario, among, wanted, chooser.batch)
        if batch is not None and scenario.batch is None:
            found = choose(
                msgspec.structs.replace(scenario, batch=batch), devices, wanted, top, kinds
            )
            said = (
                f"batch {batch:,}: the largest that fits; the batch of such runs does not"
                f" ({chooser.assumptions[0]})"
            )
            return msgspec.structs.replace(
                found, batch_assumed=True, assumptions=(said, *found.assumptions)
            )
    elif not best:
        near = misses(chooser, wanted)
        best = list(near.met)
    best, front = settled(chooser, wanted, top) if best else (best, [])
    return _chosen(chooser, wanted, best, front, near, smallest, batch, left)


def _chosen(
    chooser: Chooser,
    wanted: Wanted,
    best: Sequence[Point],
    front: Sequence[Point],
    near: Near,
    smallest: Point | None,
    batch: int | None,
    left: tuple[tuple[str, ...], tuple[str, ...]],
) -> Chosen:
    of: dict[tuple[str, int], Choice] = {}

    def told(point: Point) -> Choice:
        """Of devices that are shown twice the same, as they were last refined."""
        key = point.offer.device.id, point.devices
        if key not in of:
            of[key] = choice_of(chooser, chooser.searched.get(key) or point)
        return of[key]

    choices = tuple(map(told, best))
    shown = {p.offer.device.id for p in best}
    priceless, powerless = (_without(chooser, wanted, what) for what in ("price", "power"))
    priceless = tuple(name for name in priceless if name not in shown)
    unable = [*chooser.unable, *priceless, *powerless, *shown]
    slow, impossible = _ruled_out(chooser, wanted, set(unable))
    kind = next(iter(chooser.kinds.values()))
    asked = msgspec.to_builtins(kind.scenario)
    del asked["device"]
    considered = len(chooser.kinds.keys() | chooser.unable.keys())
    return Chosen(
        scenario=asked,
        batch_assumed=chooser.batch_assumed,
        timed=chooser.length.given,
        bought=wanted.buy,
        rate_of="tokens/s" if kind.names.model.takes == "sequence" else "samples/s",
        objective=wanted.objective,
        limits=wanted.limits,
        sure=wanted.sure,
        choices=choices,
        front=tuple(map(told, front)),
        misses=() if best else near.misses,
        unlimited=near.unlimited if not best else None,
        smallest=told(smallest) if smallest else None,
        fitting_batch=batch,
        binding=_binding(choices[0], wanted) if choices else {},
        without_price=_typed(chooser, priceless),
        without_power=_typed(chooser, powerless),
        unable=dict(zip(_typed(chooser, chooser.unable), chooser.unable.values(), strict=True)),
        unmeasured=left[0],
        other_kinds=left[1],
        too_slow=_typed(chooser, slow),
        impossible=_typed(chooser, impossible),
        known=considered + sum(map(len, left)),
        considered=considered,
        searched=len(chooser.searched),
        layouts=chooser.layouts,
        assumptions=(*_assumptions(chooser, wanted), *_of_own_chips(chooser, choices)),
    )


def _without_prices(chooser: Chooser, wanted: Wanted) -> Wanted:
    """The same, ranked by what is known where cost was not asked for and no price is known."""
    if wanted.goal is not None or wanted.objective != "cost":
        return wanted
    priceless = _without(chooser, wanted, "price")
    if len(priceless) < len(chooser.kinds):
        return wanted
    goal = "devices" if wanted.within_s is not None else "time"
    first, what = _typed(chooser, priceless)[0], "purchase" if wanted.buy else "rent"
    how = "--prices FILE" if wanted.buy else f"--price {first}=2.10"
    chooser.assumptions.append(
        f"no {what} of these devices is known: ranked by {goal}, not by cost ({how} gives one)"
    )
    return msgspec.structs.replace(wanted, goal=goal)


def _typed(chooser: Chooser, names: Iterable[str]) -> tuple[str, ...]:
    """Devices as a user types them: those of a file by its path."""
    kinds = chooser.kinds
    return tuple(kinds[n].names.device.typed if n in kinds else n for n in names)


def _assumptions(chooser: Chooser, wanted: Wanted) -> tuple[str, ...]:
    length = chooser.length
    time = WHOLE if length.whole else PASSES if length.given else NO_LENGTH
    bought = BOUGHT + (ELECTRICITY if length.given else "")
    desktops = [k.offer for k in chooser.kinds.values() if is_desktop(k.offer.device)]
    alone = any(of.most < wanted.devices and not of.owned for of in desktops)
    more = [*([bought] if wanted.buy else []), *([DESKTOPS] if alone else [])]
    more += [OWNED] if wanted.owned and length.given else []
    return (*chooser.assumptions, time, *ASSUMED, *more)


def _of_own_chips(chooser: Chooser, choices: Sequence[Choice]) -> list[str]:
    """What is assumed of chips that files of the user describe: of those that are shown as predict
    says it, and how so many as were considered are joined.
    """
    lines: dict[str, None] = {}
    for kind in chooser.kinds.values():
        device = kind.names.device
        if not device.given or not kind.counts:
            continue
        shown = [c.assumptions for c in choices if c.device == device.typed]
        of_links = fabric_of(kind.names.system, device, max(kind.counts)).assumptions
        lines |= dict.fromkeys([*of_links, *(line for each in shown for line in each)])
    return list(lines)


def _check_length(s: Scenario, wanted: Wanted) -> None:
    """Raises BadInput where a question without a length has no answer."""
    if not (s.tokens is None and s.samples is None and s.epochs is None):
        return
    alone = wanted.buy or wanted.owned or "max_power_w" in wanted.limits
    needs = "within_s" in wanted.limits or "max_energy_j" in wanted.limits
    needs = needs or ("under_usd" in wanted.limits and not wanted.buy)
    if needs or not alone:
        device = next(iter(hwdb.devices()))
        raise no_length(names_of(msgspec.structs.replace(s, device=device)).model.takes)


def _left_out(
    among: Sequence[str], named: bool, kinds: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Devices that are not considered: of makers without measured runs, and of other kinds."""
    known = set(among if named else measured(among))
    unmeasured = tuple(name for name in among if name not in known)
    wanted = tuple(kinds) or (() if named else ACCELERATORS)
    other = tuple(n for n in among if n in known and wanted and hwdb.device(n).kind not in wanted)
    return unmeasured, other


def _ruled_out(
    chooser: Chooser, wanted: Wanted, others: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Devices on which the run takes too long to be an answer, and those that cannot meet a limit
    or hold the run, by lower bounds or as was found.
    """
    patient = msgspec.structs.replace(wanted, longest_s=None)
    slow: list[str] = []
    impossible: list[str] = []
    for name, kind in chooser.kinds.items():
        if name in others:
            continue
        tried = [n for _, n in chooser.possible(kind, wanted)]
        found = [chooser.searched.get((name, n)) for n in tried]
        unknown = any((name, n) not in chooser.searched for n in tried)
        if unknown or any(p is not None and chooser.holds(p, wanted) for p in found):
            continue
        late = [n for _, n in chooser.possible(kind, patient)]
        points = [p for n in late if (p := chooser.searched.get((name, n))) is not None]
        is_slow = any(chooser.holds(p, patient) for p in points) or len(late) > len(tried)
        (slow if wanted.longest_s and is_slow else impossible).append(name)
    return tuple(slow), tuple(impossible)


def _binding(best: Choice, wanted: Wanted) -> dict[str, float]:
    """The part of each constraint that the best choice uses, the largest first."""
    used = {name: getattr(best, LIMITS[name]) / limit for name, limit in wanted.limits.items()}
    return dict(sorted(used.items(), key=lambda each: -each[1]))


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
