"""The table of choices: every column at every width, in as many blocks as the page needs."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.reports.console import Justify, fitted_table, show
from roofcast.reports.format import digits, duration, energy, money, percent, seconds, si
from roofcast.reports.pages.price import PURCHASES
from roofcast.reports.parts import Console
from roofcast.simulator.choose.choice import Choice
from roofcast.simulator.choose.chosen import Chosen

POWER, ENERGY = "TDPs", "board energy"  # columns
SURE = 0.99  # a probability is never said to be higher, nor lower than 1 - SURE
Column = tuple[str, Justify, list[str]]


def choices_blocks(out: Console, choices: Sequence[Choice], found: Chosen) -> None:
    """Print the choices: as many columns beside each other as fit, the others below, each block
    led by the devices.
    """
    columns = [c for c in _columns(choices, found) if any(cell != "—" for cell in c[2])]
    show_blocks(out, columns)


def show_blocks(out: Console, columns: Sequence[Column]) -> None:
    """Print columns in blocks no wider than the page, each block led by the first column."""
    lead, left = columns[0], list(columns[1:])
    while left:
        block = [lead]
        while left and (len(block) == 1 or _width([*block, left[0]]) <= out.width - 2):
            block.append(left.pop(0))
        titles = [(title, justify) for title, justify, _ in block]
        rows = list(zip(*(cells for _, _, cells in block), strict=True))
        show(out, fitted_table(out.width - 2, titles, rows))
        if left:
            out.print()


def _width(columns: Sequence[Column]) -> int:
    widths = (max(map(len, (title, *cells))) for title, _, cells in columns)
    return sum(widths) + 2 * (len(columns) - 1)


def _columns(choices: Sequence[Choice], found: Chosen) -> list[Column]:
    limits = found.limits
    columns: list[Column] = [("devices", "left", [devices_of(c) for c in choices])]
    if found.timed:
        columns += [
            ("time", "right", [duration(c.time_s) for c in choices]),
            ("80 % interval", "right", [span(c) for c in choices]),
        ]
        if "within_s" in limits:
            columns.append(("in time", "right", [sure(c.within_probability) for c in choices]))
    else:
        columns.append(("step", "right", [seconds(c.step_time_s) for c in choices]))
        unit = "tokens/s" if "tokens" in found.rate_of else "samples/s"
        columns.append((unit, "right", [f"{c.rate or 0.0:,.0f}" for c in choices]))
    if found.timed or found.bought:
        columns.append(("cost", "right", [cost(c) for c in choices]))
    if "under_usd" in limits and found.timed:
        columns.append(("in budget", "right", [sure(c.under_probability) for c in choices]))
    columns += [
        ("memory", "right", [memory(c) for c in choices]),
        ("price per device", "right", [price(c) for c in choices]),
        ("by provider", "right", [_spread(c) for c in choices]),
        (POWER, "right", [si(c.power_w, "W") for c in choices]),
        (ENERGY, "right", [_joules(c) for c in choices]),
    ]
    return columns


def front_columns(front: Sequence[Choice], timed: bool) -> list[Column]:
    """The columns of the Pareto front."""
    when = [duration(c.time_s) if timed else seconds(c.step_time_s) for c in front]
    columns: list[Column] = [
        ("devices", "left", [devices_of(c) for c in front]),
        ("time" if timed else "step", "right", when),
        ("cost", "right", [cost(c) for c in front]),
        (ENERGY, "right", [_joules(c) for c in front]),
        ("memory", "right", [memory(c) for c in front]),
    ]
    return [c for c in columns if any(cell != "—" for cell in c[2])]


def devices_of(c: Choice) -> str:
    """Number and kind."""
    return f"{c.devices:,} × {c.device}"


def cost(c: Choice) -> str:
    """What it costs."""
    return money(c.cost_usd) if c.cost_usd is not None else "no price"


def memory(c: Choice) -> str:
    """Peak over capacity, with a verdict where it is not sure."""
    used = percent(c.peak_bytes / c.capacity_bytes) if c.capacity_bytes else "—"
    return used if c.fits else f"{used}, may fit"


def span(c: Choice) -> str:
    """The 80 % interval, its unit once."""
    if c.time_low_s is None or c.time_high_s is None:
        return "—"
    low, high = (duration(each, like=c.time_s) for each in (c.time_low_s, c.time_high_s))
    number, _, unit = low.partition(" ")
    return f"{number if high.endswith(' ' + unit) else low} to {high}"


def price(c: Choice) -> str:
    """A price with the class of its provider and its date."""
    p = c.price
    if p is None:
        return "—"
    per = "" if p.kind in PURCHASES else "/h"
    whose = p.of_class or p.kind
    dated = f", {p.newest[:7]}" if p.newest else ""
    return f"${digits(p.median, 3) if p.median < 1000 else f'{p.median:,.0f}'}{per} {whose}{dated}"


def _spread(c: Choice) -> str:
    if c.cost_low_usd is None or c.cost_high_usd is None or c.price is None:
        return "—"
    if c.price.providers == 1:
        return "one price"
    return f"{money(c.cost_low_usd)} to {money(c.cost_high_usd)}"


def _joules(c: Choice) -> str:
    return energy(c.energy_j) if c.energy_j is not None else "—"


def sure(probability: float | None) -> str:
    """A probability, never more certain than 1 in 100."""
    if probability is None:
        return "—"
    if probability > SURE:
        return "> 99 %"
    return "< 1 %" if probability < 1 - SURE else percent(probability)
