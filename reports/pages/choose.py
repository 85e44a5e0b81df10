"""What to rent or buy for a run, for reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from roofcast import hwdb
from roofcast.hwdb.errors import listed, number_of
from roofcast.hwdb.market import costs
from roofcast.hwdb.market import rent as rent_of
from roofcast.reports.console import page, say, section
from roofcast.reports.format import binary, digits, duration, energy, money, percent, seconds, si
from roofcast.reports.pages.asked import INTERVALS
from roofcast.reports.pages.campaign import share
from roofcast.reports.pages.choose_table import choices_blocks, cost, front_columns, show_blocks
from roofcast.reports.pages.choose_table import sure as certain
from roofcast.reports.pages.energy import mass
from roofcast.reports.pages.layout import layout_line
from roofcast.reports.pages.price import PURCHASES, price_words
from roofcast.reports.pages.search import given_words, plain, words_of
from roofcast.reports.parts import Console
from roofcast.simulator.choose.choice import Choice
from roofcast.simulator.choose.chosen import Chosen
from roofcast.simulator.choose.misses import Miss
from roofcast.simulator.choose.wanted import LIMITS

_GOALS = {
    "cost": "cheapest first", "time": "fastest first", "energy": "least energy first",
    "devices": "fewest devices first", "power": "least power first",
}  # fmt: skip
_LIMITS = {
    "within_s": "deadline", "under_usd": "budget", "max_power_w": "power", "max_energy_j": "energy",
}  # fmt: skip
_SHOWN_FRONT = 8
_LIKELY = 0.8
_NAMED = 60  # characters of a list of devices
_FOLLOWING = 3  # choices whose layouts are told after the best


def print_chosen(found: Chosen) -> None:
    """Print the choices, what binds, the front, and what was left out."""
    with page() as out:
        _head(out, found)
        if found.choices:
            section(out, "Choices, one per kind of device")
            choices_blocks(out, found.choices, found)
            _notes(out, found)
            _best(out, found)
            _others(out, found.choices[1 : 1 + _FOLLOWING])
            _binding(out, found)
            _front(out, found)
        else:
            _misses(out, found)
        _smallest(out, found)
        _left_out(out, found)
        section(out, "Assumed")
        for line in found.assumptions:
            say(out, line)


def _amount(name: str, value: float) -> str:
    """The value of a constraint, or of what it limits."""
    words: dict[str, Callable[[float], str]] = {
        "within_s": duration, "under_usd": money, "max_power_w": lambda w: si(w, "W"),
        "max_energy_j": energy,
    }  # fmt: skip
    return words[name](value)


def _head(out: Console, found: Chosen) -> None:
    s = found.scenario
    what = "training" if s.get("mode", "train") == "train" else "inference"
    length = ""
    if found.timed:
        length = f", {s['tokens']} tokens" if "tokens" in s else f", {s.get('samples')} samples"
        length += f", {s['epochs']:g} epochs" if "epochs" in s else ""
    unit = "packed sequences" if s.get("packing") else "samples" if found.batch_assumed else ""
    batch = f"batch {s['batch']:,} {unit}{' (assumed)' if found.batch_assumed else ''}".rstrip()
    title = f"{s['model']}: {what}{length}, {batch}, {_GOALS[found.objective]}"
    say(out, title, indent=0, style="bold")
    limits = [f"{_LIMITS[name]} {_amount(name, value)}" for name, value in found.limits.items()]
    if limits:
        say(out, "limits: " + "; ".join(limits))
    say(out, _counted(found))


def _counted(found: Chosen) -> str:
    """How many kinds of devices there are, and what became of them, in a sentence that adds up."""
    shown = len(found.choices)
    parts: list[tuple[Any, ...]] = [
        (len(found.unmeasured), "of makers without measured runs"),
        (len(found.other_kinds), f"of another kind ({_kinds(found.other_kinds)})"),
        (len(found.unable), "cannot run it"),
        (len(found.without_price), "without a price"),
        (len(found.without_power), "without a printed power"),
        (len(found.too_slow), "takes over a year", "take over a year"),
        (len(found.impossible), "misses a limit or does not hold it",
         "miss a limit or do not hold it"),
    ]  # fmt: skip
    rest = found.known - shown - sum(n for n, *_ in parts)
    parts += [(rest, "ranks lower", "rank lower"), (shown, "shown")]
    told = "; ".join(number_of(n, one, *(more or (one,))) for n, one, *more in parts if n)
    return f"{number_of(found.known, 'kind of device', 'kinds of devices')}: {told}"


def _kinds(names: Sequence[str]) -> str:
    return ", ".join(sorted({hwdb.device(name).kind for name in names}))


def _notes(out: Console, found: Chosen) -> None:
    """What the table does not say by itself."""
    if found.timed and any(c.goodput is not None for c in found.choices):
        text = "time, cost: of the whole training, checkpoints and failures included"
        if "within_s" in found.limits:
            text += "; in time: probability of the deadline"
        text += "; memory: peak of the capacity"
        say(out, f"{text}; --sure 90: limits hold with 90 %")
    if not all(c.fits for c in found.choices):
        say(out, "may fit: the capacity lies within the 80 % interval of the peak")
    if found.bought:
        say(out, "price: of a device with its share of a server, with the date of its newest quote")
    elif any(c.price is not None for c in found.choices):
        say(
            out,
            "price: median of one class of provider (--provider), with the date of its newest quote"
            " (hwdb/prices); by provider: cost at its lowest and highest quote",
        )


def _nodes(c: Choice) -> str:
    """The devices in words, with their nodes."""
    whole = c.devices // c.node
    if c.node == 1 or c.devices % c.node:
        return f"{c.devices:,} × {c.device}"
    return f"{c.devices:,} × {c.device} ({number_of(whole, 'node')} of {c.node})"


def _best(out: Console, found: Chosen) -> None:
    best = found.choices[0]
    section(out, f"Best: {_nodes(best)}")
    if best.layout is not None:
        say(out, _layout(best), first="layout: ")
    margin = (best.capacity_bytes or 0) - best.peak_bytes
    memory = f"{'fits' if best.fits else 'may fit'}: {binary(best.peak_bytes)} per device at peak"
    memory += f", {binary(margin)} left" if best.capacity_bytes else ""
    say(out, memory, first="memory: ")
    say(out, f"{seconds(best.step_time_s)}, MFU {percent(best.mfu)}", first="step: ")
    if best.goodput is not None:
        rest = "the rest in checkpoints, failures and restarts"
        rest = f"{share(best.goodput)} of it in steps, {rest}" if best.goodput < 0.9995 else "steps"
        say(out, f"{duration(best.time_s)}, {rest}", first="whole run: ")
    for first, line in (*_price_lines(best), *_energy_lines(best)):
        say(out, line, first=first)
    if best.limited_by:
        say(out, best.limited_by, first="limited by: ")
    basis = INTERVALS.get(best.interval_class, best.interval_class)
    say(out, basis, first="interval: ")
    say(out, predict_words(found, best), first="in full: ")


def _layout(c: Choice) -> str:
    assert c.layout is not None, "asked before"
    recompute = c.options.get("recompute", "none")
    return layout_line(c.layout) + (f"; recompute {recompute}" if recompute != "none" else "")


def predict_words(found: Chosen, choice: Choice) -> str:
    """The command that forecasts the step of a choice in full."""
    s = found.scenario
    of_run = ("tokens", "samples", "epochs", "pue", "region", "carbon")
    given = [f"--batch {s['batch']}", *given_words(s)]
    given += [f"--{name} {plain(s[name])}" for name in of_run if name in s]
    if (within := found.limits.get("within_s")) is not None and choice.goodput is not None:
        given.append(f"--deadline {_days(within)}")
    given += ["--embodied"] if s.get("embodied") else []
    rent = choice.price
    if rent is not None and rent.median and rent.kind not in PURCHASES:
        if rent != rent_of(hwdb.device(choice.device)):  # what predict takes by itself
            given.append(f"--price {rent.median:.6g}")
    return " ".join(
        ["roofcast predict", s["model"], "--on", choice.device, *given, words_of(choice.options)]
    )


def _days(seconds: float) -> str:
    """A deadline as an option takes it.

    >>> _days(864000.0), _days(5400.0)
    ('10d', '5400s')
    """
    days = seconds / 86400.0
    return f"{days:g}d" if days == round(days, 3) else f"{seconds:.12g}s"


def _energy_lines(c: Choice) -> list[tuple[str, str]]:
    """Energy of the run by scope, and its carbon."""
    if not c.energy_by_scope_j:
        return []
    text = ", ".join(f"{scope} {energy(j)}" for scope, j in c.energy_by_scope_j.items())
    lines = [("energy: ", f"{text} (PUE {c.pue:g})")]
    if c.carbon_kg is not None:
        lines.append(("carbon: ", f"{mass(c.carbon_kg)} CO2e of the site's electricity"))
    if c.embodied_kg is not None:
        lines.append(("embodied: ", f"{mass(c.embodied_kg)} CO2e of making the hardware"))
    return lines


def _price_lines(c: Choice) -> list[tuple[str, str]]:
    lines = []
    if c.price is not None:
        kind = "rent: " if c.price.kind not in ("market", "server", "launch") else "purchase: "
        source = f"; read at {c.price.source}" if c.price.source else ""
        lines.append((kind, price_words(c.price) + source))
    if c.purchase_usd is not None and (c.price is None or c.price.kind not in ("market", "server")):
        line = f"{money(c.purchase_usd)} with servers"
        if c.break_even_months is not None:
            line += (
                f"; cheaper than this rent after {digits(c.break_even_months, 2)} months of use"
                f" without pause (a server lives about {digits(costs().years_of_life, 1)} years)"
            )
        if c.price is None or c.price.kind != "launch":
            lines.append(("to buy: ", line))
    return lines


def _others(out: Console, others: Sequence[Choice]) -> None:
    if others:
        section(out, "Layouts of the next")
    for c in others:
        if c.layout is not None:
            say(out, _layout(c), first=f"{c.devices:,} × {c.device}: ")


def _binding(out: Console, found: Chosen) -> None:
    if not found.binding:
        return
    section(out, "Limits, and how much of each the best choice uses")
    best = found.choices[0]
    for name, part in found.binding.items():
        used = _amount(name, getattr(best, LIMITS[name]))
        say(
            out,
            f"{percent(part)}: {used} of {_amount(name, found.limits[name])}" + _doubt(name, best),
            first=f"{_LIMITS[name]}: ",
        )


def _doubt(name: str, best: Choice) -> str:
    """A hint where a deadline or a budget is not likely to hold."""
    sure = {"within_s": best.within_probability, "under_usd": best.under_probability}.get(name)
    if sure is None or sure >= _LIKELY:
        return ""
    return f"; holds with {certain(sure)}: --sure 90 asks for a choice that holds with 90 %"


def _front(out: Console, found: Chosen) -> None:
    """Points that no other beats in time, cost, energy and memory."""
    if len(found.front) < 2:
        return
    step = max(-(-len(found.front) // _SHOWN_FRONT), 1)
    shown = found.front[::step]
    some = f", {len(shown)} of them shown" if len(shown) < len(found.front) else ""
    many = f"Pareto front: {len(found.front)} that no other beats"
    section(out, f"{many} in time, cost, energy and memory{some}")
    show_blocks(out, front_columns(shown, found.timed))


def _misses(out: Console, found: Chosen) -> None:
    """What each constraint would have to be; or that nothing holds the run."""
    if found.smallest is None:
        _nothing_fits(out, found)
        return
    section(out, "Nothing meets the limits")
    for miss in found.misses:
        say(out, _miss(miss, found.sure), first=f"{_LIMITS[miss.limit]}: ")
    if found.unlimited is not None:
        c = found.unlimited
        say(
            out,
            f"{_nodes(c)}: {_spent(c, found)}",
            first=f"without any limit, {_GOALS[found.objective]}: ",
        )
    if not found.misses:
        say(out, "no device has what the ranking asks for; see what was left out")


def _nothing_fits(out: Console, found: Chosen) -> None:
    section(out, "Nothing holds the run")
    batch = found.scenario["batch"]
    least = f"no layout fits on any number of these devices with batch {batch:,}"
    if found.fitting_batch is not None:
        say(out, f"{least}; --batch {found.fitting_batch} fits")
        return
    helps = "other devices, more of them (--devices), or a smaller format of the weights"
    say(out, f"{least}, nor with a smaller one; use {helps}")


def _miss(miss: Miss, sure: float | None) -> str:
    given = _amount(miss.limit, miss.given)
    if miss.choice is None or miss.needed is None:
        return f"no value would do while the other limits hold ({given} was given)"
    c = miss.choice
    spent = {"within_s": duration(c.time_s)}
    if c.cost_usd is not None:
        spent["under_usd"] = money(c.cost_usd)
    expected = ""
    if sure is not None and miss.limit in spent:
        expected = f" ({percent(sure)} sure; {spent.pop(miss.limit)} expected)"
    return (
        f"{_amount(miss.limit, miss.needed)} would do{expected}, the other limits kept ({given} was"
        f" given): {', '.join([_nodes(c), *spent.values()])}"
    )


def _spent(c: Choice, found: Chosen) -> str:
    when = duration(c.time_s) if found.timed else f"{seconds(c.step_time_s)} per step"
    return f"{when}, {cost(c)}" if found.timed or found.bought else when


def _smallest(out: Console, found: Chosen) -> None:
    if found.smallest is None:
        return
    c = found.smallest
    section(out, "Fewest devices on which it fits, whatever the limits")
    may = "" if c.fits else " (may fit)"
    say(out, f"{_nodes(c)}{may}: {_spent(c, found)}, {words_of(c.options)}")


def _price_given(found: Chosen) -> str:
    """How to give the price of a device that has none, as it is typed."""
    if found.bought:
        return "--prices FILE gives one"
    return f"--price {next(iter(found.without_price), 'DEVICE')}=2.10 gives one"


def _left_out(out: Console, found: Chosen) -> None:
    lines = [
        (found.without_price, "without a price", _price_given(found)),
        (found.without_power, "without a printed power", "no limit on power can hold"),
        (found.unmeasured, "of makers on whose devices no run was measured", "--on all considers"
         " them"),
        (found.other_kinds, f"of another kind: {_kinds(found.other_kinds)}", "--kind considers"
         " them"),
        (found.too_slow, "on which the run takes over a year", "--within 5y considers them"),
    ]  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for device, why in found.unable.items():
        reasons.setdefault(why.replace(device, "the device"), []).append(device)
    if not reasons and not any(names for names, _, _ in lines):
        return
    section(out, "Left out")
    for names, what, how in lines:
        if names:
            say(out, f"{len(names):,} {what} ({how}): {listed(names, _NAMED)}")
    for why, devices in reasons.items():
        say(out, f"{len(devices):,} cannot run it, {listed(devices, _NAMED)}: {why}")
    say(out, "--json lists all")
