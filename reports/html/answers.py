"""The answers of choose and search as one HTML file: the table, the front, limits, assumptions."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roofcast.hwdb.errors import number_of
from roofcast.reports.files import replacing
from roofcast.reports.format import binary, duration, energy, money, percent, seconds, si
from roofcast.reports.html.page import asset, embedded, environment
from roofcast.reports.pages.price import price_words
from roofcast.reports.pages.search import layout_words, lost, option_words, words_of
from roofcast.simulator.choose.chosen import Choice, Chosen, Miss
from roofcast.simulator.choose.explore import Explored
from roofcast.simulator.forecast.result import Forecast

WIDE, HIGH = 760, 440  # of a front [px]
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 18, 54  # its margins
ROOM = 1.12  # beyond the outermost points, as a factor
FEWEST, MANY = 4, 8  # labels of an axis
ROUND = (  # numbers of an axis in a decade, the roundest first
    (1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(n / 2 for n in range(2, 20)), tuple(n / 10 for n in range(10, 100)),
)  # fmt: skip
UNITS = {
    "µs": 1e-6, "ms": 1e-3, "min": 60.0, "h": 3600.0, "days": 86400.0, "years": 365.25 * 86400.0,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
AWAY = sorted(range(-3, 4), key=abs)  # lines by which a name may lie off its mark
FAR = sorted(range(-30, 31), key=abs)  # and a number
CARDS = 3  # choices in short
LETTERS = 40  # of the longest name
LETTER, LINE, GAP = 6.6, 15, 3  # width of a letter, height of a line, space beside a name [px]
NONE = "—"
COLUMNS = (
    "devices", "time", "80 % interval", "in time", "cost", "in budget", "TDPs", "board energy",
    "memory", "options",
)  # fmt: skip
LIMITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "within_s": ("deadline", duration),
    "under_usd": ("budget", money),
    "max_power_w": ("power", lambda value: si(value, "W")),
    "max_energy_j": ("energy", energy),
}


class Point(NamedTuple):
    """A point of a front."""

    x: float
    y: float
    name: str
    best: bool  # one of the answers, not only on the front


class Table(NamedTuple):
    """A table of a page."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_choices(found: Chosen, path: str | Path, command: str) -> int:
    """Write what choose found; the number of bytes. command: the line that makes it again."""
    points = [
        Point(c.time_s, c.cost_usd, f"{c.devices:,} × {c.device}", c in found.choices)
        for c in (*found.choices, *(c for c in found.front if c not in found.choices))
        if c.cost_usd is not None
    ]
    s = found.scenario
    length = f"{s['tokens']} tokens" if "tokens" in s else f"{s.get('samples')} samples"
    content = _page(
        title=f"{s['model']}: what to run it on",
        lead=f"{length}; {number_of(found.considered, 'kind of device', 'kinds of devices')}"
        f" considered, {number_of(found.layouts, 'layout')} forecast; ranked by {found.objective}",
        limits=[_limit(found, name) for name in found.limits],
        cards=[_card(c) for c in found.choices[:CARDS]],
        tables=_choice_tables(found),
        front=_front(points, ("time of the run", duration), ("cost", money)),
        assumptions=found.assumptions,
        data=msgspec.to_builtins(found),
        command=command,
    )
    return _write(content, path)


def _limit(found: Chosen, name: str) -> str:
    """A constraint, and how much of it the best choice uses."""
    word, said = LIMITS[name]
    text = f"{word}: {said(found.limits[name])}"
    if name in found.binding:
        text += f"; the first choice uses {percent(found.binding[name])} of it"
    best = found.choices[0] if found.choices else None
    sure = {"within_s": "within_probability", "under_usd": "under_probability"}.get(name, "")
    likely = getattr(best, sure, None) if best is not None else None
    return text + (f" and holds it with {_sure(likely)} probability" if likely is not None else "")


def _card(c: Choice) -> dict[str, Any]:
    """A choice in short."""
    cells = dict(zip(COLUMNS, _cells(c), strict=True))
    shown = ("80 % interval", "in time", "cost", "in budget", "board energy", "memory")
    rows = [(name, cells[name]) for name in shown if cells[name] != NONE]
    rows.append(("step", f"{seconds(c.step_time_s)}, MFU {percent(c.mfu)}"))
    if c.price is not None:
        rows.append(("price", price_words(c.price)))
    return {"title": cells["devices"], "head": cells["time"], "rows": rows}


def _cells(c: Choice) -> list[str]:
    """A choice as a row of COLUMNS."""
    interval = NONE
    if c.time_low_s is not None and c.time_high_s is not None:
        low, high = (duration(each, like=c.time_s) for each in (c.time_low_s, c.time_high_s))
        interval = f"{low} to {high}"
    return [
        f"{c.devices:,} × {c.device}",
        duration(c.time_s),
        interval,
        _sure(c.within_probability),
        money(c.cost_usd) if c.cost_usd is not None else "no price",
        _sure(c.under_probability),
        si(c.power_w, "W"),
        energy(c.energy_j) if c.energy_j is not None else NONE,
        percent(c.peak_bytes / c.capacity_bytes) if c.capacity_bytes else NONE,
        words_of(c.options),
    ]


def _sure(probability: float | None) -> str:
    if probability is None:
        return NONE
    return (
        "> 99 %" if probability > 0.99 else "< 1 %" if probability < 0.01 else percent(probability)
    )


def _choice_tables(found: Chosen) -> list[Table]:
    tables = []
    if found.choices:
        rows = [_cells(c) for c in found.choices]
        tables.append(Table("Choices, one per kind of device", COLUMNS, rows))
    else:
        misses = [(LIMITS[m.limit][0], _needed(m)) for m in found.misses]
        tables.append(Table("Nothing meets the limits", ("limit", "what would do"), misses))
    if len(found.front) > 1:
        rows = [_cells(c) for c in found.front]
        tables.append(Table("No other beats these in time, cost, energy and memory", COLUMNS, rows))
    without = [(name, f"no {what} is known") for what, names in
               (("price", found.without_price), ("power", found.without_power))
               for name in names]  # fmt: skip
    left = [*found.unable.items(), *without]
    left += [(name, "no run of this maker's devices was measured") for name in found.unmeasured]
    if left:
        tables.append(Table("Left out", ("device", "why"), left))
    return [_without_empty(table) for table in tables]


def _needed(m: Miss) -> str:
    """What a limit would have to be, the others kept."""
    if m.choice is None or m.needed is None:
        return "not even without it: the other limits cannot be met together"
    return f"{LIMITS[m.limit][1](m.needed)}, with {m.choice.devices:,} × {m.choice.device}"


def _without_empty(table: Table) -> Table:
    """The table without columns that say nothing."""
    kept = [i for i in range(len(table.columns)) if any(row[i] != NONE for row in table.rows)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return table._replace(columns=[table.columns[i] for i in kept], rows=rows)


def write_layouts(found: Explored, best: Sequence[Forecast], path: str | Path, command: str) -> int:
    """Write what search found; the number of bytes. best: forecasts of the fastest."""
    shown = found.best(len(best))
    indices = dict.fromkeys((*shown, *(i for i in found.front() if found.fits[i])))
    words = {i: option_words(found, i) for i in indices}
    points = [
        Point(float(found.peak_bytes[i]), float(found.step_s[i]), words[i], i in shown)
        for i in indices
    ]
    rows = [
        [
            layout_words(f), seconds(f.step_time_s),
            percent(f.mfu) if f.mfu is not None else NONE, binary(f.memory.peak_bytes),
            lost(f),
        ]
        for f in best
    ]  # fmt: skip
    columns = ["layout", "step", "MFU", "memory at peak", "lost"]
    s = found.scenario
    fit = int(found.fits.sum())
    capacity = best[0].memory.capacity_bytes if best else None
    content = _page(
        title=f"{s.model} on {s.device}: the fastest layouts",
        lead=f"{number_of(found.considered, 'layout')} considered, {number_of(fit, 'fits', 'fit')}",
        limits=[f"capacity: {binary(capacity)} per device"] if capacity else [],
        cards=[],
        tables=[Table("Fastest that fit", columns, rows)] if rows else [],
        front=_front(points, ("memory at peak, per device", binary), ("time of a step", seconds)),
        assumptions=best[0].assumptions if best else (),
        data={"best": [f.step_time_s for f in best], "front": [p._asdict() for p in points]},
        command=command,
    )
    return _write(content, path)


def _page(**told: Any) -> str:
    template = environment().get_template("answers.html")
    told["data"] = embedded(told["data"])
    return template.render(
        **told, date=datetime.date.today().isoformat(), style=asset("report.css"),
        script=asset("answers.js"),
    )  # fmt: skip


def _write(content: str, path: str | Path) -> int:
    held = content.encode("utf-8", "replace")
    with replacing(path) as temporary:
        temporary.write_bytes(held)
    return len(held)


def _front(
    points: Sequence[Point],
    across: tuple[str, Callable[[float], str]],
    upward: tuple[str, Callable[[float], str]],
) -> dict[str, Any] | None:
    """A front as places in a picture, both axes logarithmic; None of fewer than two points."""
    if len(points) < 2:
        return None
    x, y = _axis([p.x for p in points]), _axis([p.y for p in points])

    def place(value: float, ends: tuple[float, float], start: float, end: float) -> float:
        return start + (end - start) * math.log(value / ends[0]) / math.log(ends[1] / ends[0])

    def ticks(
        ends: tuple[float, float], start: float, end: float, axis: tuple[str, Callable]
    ) -> list[tuple[float, str]]:
        return [(place(v, ends, start, end), text) for v, text in round_ticks(ends, axis[1])]

    marks: list[dict[str, Any]] = [
        {
            "x": place(p.x, x, LEFT, WIDE - RIGHT),
            "y": place(p.y, y, HIGH - BOTTOM, TOP),
            "text": f"{p.name}: {across[1](p.x)}, {upward[1](p.y)}",
            "name": p.name,
            "best": p.best,
        }
        for p in sorted(points, key=lambda p: (p.x, p.y))
    ]
    short = all(len(p.name) <= LETTERS for p in points)
    named = short and _labelled(marks, AWAY)
    if not named:  # each has a number, and a list says what it is
        for number, mark in enumerate(marks, 1):
            mark["name"] = f"{number}"
        _labelled(marks, FAR)
    return {
        "points": marks,
        "listed": [] if named else [mark["text"] for mark in marks],
        "x": ticks(x, LEFT, WIDE - RIGHT, across),
        "y": ticks(y, HIGH - BOTTOM, TOP, upward),
        "names": (across[0], upward[0]),
        "size": (WIDE, HIGH),
        "frame": (LEFT, WIDE - RIGHT, TOP, HIGH - BOTTOM),
    }


def round_ticks(ends: tuple[float, float], said: Callable[[float], str]) -> list[tuple[float, str]]:
    """Round numbers of a logarithmic axis with their labels, in the unit of its middle.

    >>> [text for _, text in round_ticks((1.9e5, 6.2e5), money)]
    ['$200,000', '$300,000', '$500,000']
    >>> [text for _, text in round_ticks((3 * 86400.0, 40 * 86400.0), duration)]
    ['3 days', '10 days', '30 days']
    """
    words = said(math.sqrt(ends[0] * ends[1])).split()
    scale = UNITS.get(words[-1], 1.0)
    low, high = ends[0] / scale, ends[1] / scale
    found: list[float] = []
    for numbers in ROUND:
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        found = [n * 10.0**e for e in powers for n in numbers if low <= n * 10.0**e <= high]
        if len(found) >= FEWEST - (numbers != ROUND[0]):
            break
    found = found[:: -(-len(found) // MANY)] or [math.sqrt(low * high)]
    if words[0].startswith("$"):
        return [(v, f"${v / 1e6:,.6g} million" if v >= 1e6 else f"${v:,.10g}") for v in found]
    return [(v * scale, f"{v:,.6g} {words[-1]}") for v in found]


def _labelled(marks: list[dict[str, Any]], away: Sequence[int]) -> bool:
    """Give each mark a place for its name: beside it, else some lines off with a line to it; over
    no other name or mark. Whether every name has one; without, it is beside its mark.
    """
    taken = [(m["x"] - LINE / 2, m["x"] + LINE / 2, m["y"]) for m in marks]
    every = True
    for mark in sorted(marks, key=lambda m: (not m["best"], m["y"])):
        wide = LETTER * len(mark["name"])
        mark |= {"side": "start", "at": (mark["x"] + 10, mark["y"]), "away": False}
        for side, lines in ((side, lines) for lines in away for side in ("start", "end")):
            off = 10 + 6 * abs(lines)
            at = mark["x"] + (off if side == "start" else -off), mark["y"] + LINE * lines
            left = at[0] if side == "start" else at[0] - wide
            inside = LEFT < left and left + wide < WIDE and TOP < at[1] < HIGH - BOTTOM - 4
            if inside and not any(
                abs(at[1] - y) < LINE and left - GAP < end and begin < left + wide + GAP
                for begin, end, y in taken
            ):
                mark |= {"side": side, "at": at, "away": lines != 0}
                taken.append((left, left + wide, at[1]))
                break
        else:
            every = False
    return every


def _axis(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / ROOM, max(values) * ROOM
