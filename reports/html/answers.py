"""The answers of choose and search as one HTML file: the table, the front, limits, assumptions."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roofcast.reports.files import replacing
from roofcast.reports.format import binary, duration, energy, money, percent, seconds, si
from roofcast.reports.html.page import asset, embedded, environment
from roofcast.reports.pages.price import price_words
from roofcast.reports.pages.search import layout_words, lost, option_words, words_of
from roofcast.simulator.choose.chosen import Choice, Chosen, Miss
from roofcast.simulator.choose.explore import Explored
from roofcast.simulator.forecast.result import Forecast

WIDE, HIGH = 760, 380  # of a front [px]
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 18, 54  # its margins
ROOM = 1.12  # beyond the outermost points, as a factor
TICKS = 5  # labels of an axis
NAMED, CARDS = 8, 3  # points with a name; choices in short
LETTERS = 30  # of the longest name
LETTER, LINE = 6.6, 15  # width of a letter of a name, height of a line [px]
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
        lead=f"{length}; {found.considered:,} kind{'s' if found.considered != 1 else ''} of devices"
        f" considered, {found.layouts:,} layouts forecast; ranked by {found.objective}",
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
        interval = f"{duration(c.time_low_s)} to {duration(c.time_high_s)}"
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
        lead=f"{found.considered:,} layouts considered, {fit:,} fit",
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
        ends: tuple[float, float], start: float, end: float, said: Callable[[float], str]
    ) -> list[tuple[float, str]]:
        parts = [i / (TICKS - 1) for i in range(TICKS)]
        return [
            (start + (end - start) * i, said(ends[0] * (ends[1] / ends[0]) ** i)) for i in parts
        ]

    short = [p for p in points if len(p.name) <= LETTERS]
    named = sorted(short, key=lambda p: (not p.best, p.x))[:NAMED]
    marks = [
        {
            "x": place(p.x, x, LEFT, WIDE - RIGHT),
            "y": place(p.y, y, HIGH - BOTTOM, TOP),
            "text": f"{p.name}: {across[1](p.x)}, {upward[1](p.y)}",
            "name": p.name if p in named else "",
            "best": p.best,
        }
        for p in points
    ]
    return {
        "points": _labelled(marks),
        "x": ticks(x, LEFT, WIDE - RIGHT, across[1]),
        "y": ticks(y, HIGH - BOTTOM, TOP, upward[1]),
        "names": (across[0], upward[0]),
        "size": (WIDE, HIGH),
        "frame": (LEFT, WIDE - RIGHT, TOP, HIGH - BOTTOM),
    }


def _labelled(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Marks with a place for each name: to the left at the right edge, and over no other."""
    taken = [(m["x"] - LINE / 2, m["x"] + LINE / 2, m["y"]) for m in marks]
    for mark in sorted(marks, key=lambda m: (not m["best"], m["y"])):
        wide = LETTER * len(mark["name"])
        mark["side"] = "end" if mark["x"] + wide + 12 > WIDE else "start"
        left = mark["x"] + 10 if mark["side"] == "start" else mark["x"] - 10 - wide
        if any(abs(mark["y"] - y) < LINE and left < end and begin < left + wide
               for begin, end, y in taken):  # fmt: skip
            mark["name"] = ""
        elif mark["name"]:
            taken.append((left, left + wide, mark["y"]))
    return marks


def _axis(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / ROOM, max(values) * ROOM
