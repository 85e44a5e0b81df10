"""What to rent or buy for a run, for reading."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console

from roofcast import hwdb
from roofcast.hwdb.errors import listed
from roofcast.hwdb.market import costs
from roofcast.hwdb.market import rent as rent_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import binary, digits, duration, energy, money, percent, seconds, si
from roofcast.reports.option_tuning import TUNED
from roofcast.reports.pages.asked import INTERVALS
from roofcast.reports.pages.energy import mass
from roofcast.reports.pages.layout import layout_line
from roofcast.reports.pages.price import PURCHASES, price_words
from roofcast.reports.pages.search import words_of
from roofcast.simulator.choose.chosen import Choice, Chosen, Miss
from roofcast.simulator.choose.wanted import LIMITS

_GOALS = {
    "cost": "cheapest first", "time": "fastest first", "energy": "least energy first",
    "devices": "fewest devices first", "power": "least power first",
}  # fmt: skip
_LIMITS = {
    "within_s": "deadline", "under_usd": "budget", "max_power_w": "power", "max_energy_j": "energy",
}  # fmt: skip
POWER, ENERGY = "TDPs", "board energy"  # columns
_SHOWN_FRONT = 8
_LIKELY = 0.8
_NAMED = 160  # characters of a list of devices
_FOLLOWING = 3  # choices whose layouts are told after the best


def print_chosen(found: Chosen) -> None:
    """Print the choices, what binds, the front, and what was left out."""
    with page() as out:
        _head(out, found)
        if found.choices:
            section(out, "Choices, one per kind of device")
            _table(out, found.choices, found)
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
    return {
        "within_s": duration, "under_usd": money, "max_power_w": lambda w: si(w, "W"),
        "max_energy_j": energy,
    }[name](value)  # fmt: skip


def _head(out: Console, found: Chosen) -> None:
    s = found.scenario
    what = "training" if s.get("mode", "train") == "train" else "inference"
    length = f"{s['tokens']} tokens" if "tokens" in s else f"{s.get('samples')} samples"
    length += f", {s['epochs']:g} epochs" if "epochs" in s else ""
    say(out, f"{s['model']}: {what}, {length}, {_GOALS[found.objective]}", indent=0, style="bold")
    limits = [f"{_LIMITS[name]} {_amount(name, value)}" for name, value in found.limits.items()]
    if limits:
        say(out, "; ".join(limits))
    many = "devices" if found.considered > 1 else "device"
    say(
        out,
        f"considered: {found.considered:,} {many}, each in several numbers;"
        f" {found.searched:,} of these combinations were searched"
        f" ({found.layouts:,} layouts), and lower bounds rule out the others",
    )


def _table(out: Console, choices: Sequence[Choice], found: Chosen) -> None:
    limits = found.limits
    columns: list[tuple[str, Justify]] = [
        ("devices", "left"), ("time", "right"), ("80 % interval", "right"),
        ("in time", "right"), ("cost", "right"), ("in budget", "right"),
        ("by provider", "right"), (POWER, "right"), (ENERGY, "right"), ("memory", "right"),
    ]  # fmt: skip
    rows = [_row(choice) for choice in choices]
    unused = ["in time"] * ("within_s" not in limits) + ["in budget"] * ("under_usd" not in limits)
    unused += ["by provider"] * all(c.cost_low_usd is None for c in choices)
    kept = [i for i, (title, _) in enumerate(columns) if title not in unused]
    columns = [columns[i] for i in kept]
    rows = [[row[i] for i in kept] for row in rows]
    titles = [title for title, _ in columns]
    spare = [t for t in ("by provider", POWER, "memory", "80 % interval", ENERGY) if t in titles]
    show(out, fitted_table(out.width - 2, columns, rows, spare))


def _row(c: Choice) -> list[str]:
    spread = "—"
    if c.cost_low_usd is not None and c.cost_high_usd is not None:
        one = c.price is not None and c.price.providers == 1
        spread = "one" if one else f"{money(c.cost_low_usd)} to {money(c.cost_high_usd)}"
    interval = "—"
    if c.time_low_s is not None and c.time_high_s is not None:
        interval = f"{duration(c.time_low_s)} to {duration(c.time_high_s)}"
    used = percent(c.peak_bytes / c.capacity_bytes) if c.capacity_bytes else "—"
    return [
        f"{c.devices:,} × {c.device}",
        duration(c.time_s),
        interval,
        _sure(c.within_probability),
        money(c.cost_usd) if c.cost_usd is not None else "no price",
        _sure(c.under_probability),
        spread,
        si(c.power_w, "W"),
        energy(c.energy_j) if c.energy_j is not None else "—",
        used,
    ]


def _sure(probability: float | None) -> str:
    """A probability, never more certain than 1 in 100."""
    if probability is None:
        return "—"
    if probability > 0.99:
        return "> 99 %"
    return "< 1 %" if probability < 0.01 else percent(probability)


def _nodes(c: Choice) -> str:
    """The devices in words, with their nodes."""
    whole = c.devices // c.node
    if c.node == 1 or c.devices % c.node:
        return f"{c.devices:,} × {c.device}"
    return f"{c.devices:,} × {c.device} ({whole:,} node{'s' if whole > 1 else ''} of {c.node})"


def _best(out: Console, found: Chosen) -> None:
    best = found.choices[0]
    section(out, f"Best: {_nodes(best)}")
    if best.layout is not None:
        say(out, _layout(best), first="layout: ")
    margin = (best.capacity_bytes or 0) - best.peak_bytes
    memory = f"{binary(best.peak_bytes)} per device at peak"
    memory += f", {binary(margin)} left" if best.capacity_bytes else ""
    say(out, memory, first="memory: ")
    say(out, f"{seconds(best.step_time_s)}, MFU {percent(best.mfu)}", first="step: ")
    for first, line in (*_price_lines(best), *_energy_lines(best)):
        say(out, line, first=first)
    if best.limited_by:
        say(out, best.limited_by, first="limited by: ")
    basis = INTERVALS.get(best.interval_class, best.interval_class)
    say(out, basis, first="interval: ")
    say(out, predict_words(found, best), first="step in full: ")


def _layout(c: Choice) -> str:
    assert c.layout is not None, "asked before"
    recompute = c.options.get("recompute", "none")
    return layout_line(c.layout) + (f"; recompute {recompute}" if recompute != "none" else "")


def predict_words(found: Chosen, choice: Choice) -> str:
    """The command that forecasts the step of a choice in full."""
    s = found.scenario
    fields = {"sequence": "seq"}
    given = [
        f"--{fields.get(name, name).replace('_', '-')} {_plain(s[name])}"
        for name in ("batch", "sequence", "image", "precision", "optimizer", "attention", "stack",
                     "mode", "memory_format", *TUNED, "tokens", "samples", "epochs", "pue",
                     "region", "carbon")
        if name in s and name != "dora"
    ]  # fmt: skip
    given += [f"--{name}" for name in ("dora", "embodied") if s.get(name)]
    rent = choice.price
    if rent is not None and rent.median and rent.kind not in PURCHASES:
        if rent != rent_of(hwdb.device(choice.device)):  # what predict takes by itself
            given.append(f"--price {rent.median:.6g}")
    return " ".join(
        ["roofcast predict", s["model"], "--on", choice.device, *given, words_of(choice.options)]
    )


def _plain(value: object) -> str:
    """A value as an option takes it."""
    return f"{value:g}" if isinstance(value, float) else shlex.quote(str(value))


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
        lines.append((kind, price_words(c.price)))
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
    section(out, "What binds")
    best = found.choices[0]
    for name, part in found.binding.items():
        used = _amount(name, getattr(best, LIMITS[name]))
        say(
            out,
            f"{used} of {_amount(name, found.limits[name])} ({percent(part)})" + _doubt(name, best),
            first=f"{_LIMITS[name]}: ",
        )


def _doubt(name: str, best: Choice) -> str:
    """A hint where a deadline or a budget is not likely to hold."""
    sure = {"within_s": best.within_probability, "under_usd": best.under_probability}.get(name)
    if sure is None or sure >= _LIKELY:
        return ""
    return f"; holds with {_sure(sure)}: --sure 90 asks for a choice that holds with 90 %"


def _front(out: Console, found: Chosen) -> None:
    """Points that no other beats in time, cost, energy and memory."""
    if len(found.front) < 2:
        return
    step = max(-(-len(found.front) // _SHOWN_FRONT), 1)
    shown = found.front[::step]
    some = f", {len(shown)} of them shown" if len(shown) < len(found.front) else ""
    many = f"Pareto front: {len(found.front)} that no other beats"
    section(out, f"{many} in time, cost, energy and memory{some}")
    columns: list[tuple[str, Justify]] = [
        ("devices", "left"), ("time", "right"), ("cost", "right"), (ENERGY, "right"),
        ("memory", "right"),
    ]  # fmt: skip
    rows = []
    for c in shown:
        cells = _row(c)
        rows.append([cells[0], cells[1], cells[4], cells[8], cells[9]])
    show(out, fitted_table(out.width - 2, columns, rows, ("memory",)))


def _misses(out: Console, found: Chosen) -> None:
    """What each constraint would have to be."""
    section(out, "Nothing meets the limits")
    for miss in found.misses:
        say(out, _miss(miss), first=f"{_LIMITS[miss.limit]}: ")
    if not found.misses:
        say(
            out,
            "no number of these devices up to --devices holds the run; use others, more of them, or"
            " --offload optimizer",
        )


def _miss(miss: Miss) -> str:
    given = _amount(miss.limit, miss.given)
    if miss.choice is None or miss.needed is None:
        return f"not even without it ({given} was given): the other limits cannot be met together"
    c = miss.choice
    spent = [duration(c.time_s)]
    if c.cost_usd is not None:
        spent.append(money(c.cost_usd))
    return (
        f"{_amount(miss.limit, miss.needed)} would do, the other limits kept ({given} was given):"
        f" {_nodes(c)}, {', '.join(spent)}"
    )


def _smallest(out: Console, found: Chosen) -> None:
    if found.smallest is None:
        return
    c = found.smallest
    section(out, "Fewest devices on which it fits")
    cost = money(c.cost_usd) if c.cost_usd is not None else "no price"
    say(out, f"{_nodes(c)}: {duration(c.time_s)}, {cost}, {words_of(c.options)}")


def _left_out(out: Console, found: Chosen) -> None:
    left = found.without_price, found.without_power, found.unable, found.unmeasured
    if not any(left):
        return
    section(out, "Left out")
    for what, names in (("price", found.without_price), ("power", found.without_power)):
        if names:
            how = "--price DEVICE=USD gives one" if what == "price" else "no limit on it can hold"
            many = f"{len(names)} devices without a {what} ({how}; --json lists all): "
            say(out, many + listed(names, _NAMED))
    if found.unmeasured:
        say(
            out,
            f"{len(found.unmeasured)} devices of makers on whose devices no run was measured (--on"
            f" all considers them): {listed(found.unmeasured, _NAMED)}",
        )
    reasons: dict[str, list[str]] = {}
    for device, why in found.unable.items():
        reasons.setdefault(why.replace(device, "the device"), []).append(device)
    for why, devices in reasons.items():
        say(out, f"{len(devices)} cannot run it, {listed(devices)}: {why}")
