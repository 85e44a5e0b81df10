"""Fronts drawn: the layouts of a search by time and memory, the choices of hardware by time and
cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roofcast.hwdb.errors import BadInput
from roofcast.reports.format import binary, duration, money, seconds
from roofcast.reports.pages.search import words_of
from roofcast.reports.pictures.front_labels import Mark, label_marks
from roofcast.reports.pictures.style import (
    BLUE,
    DEVICES,
    FAINT,
    GREY,
    INK,
    SMALL,
    TITLE,
    VERMILLION,
    bare,
    halo,
    new,
)
from roofcast.simulator.choose.chosen import Choice, Chosen
from roofcast.simulator.choose.explore import Explored

SHAPES = ("o", "s", "^", "D", "v", "P")  # of kinds of devices
WIDE = 8.0  # ratio of the ends of an axis from which it is logarithmic
TICKS = 5  # of a logarithmic axis
FAR = 2.5  # times the largest value: a limit beyond has no line
NAMED = 3  # layouts of the front with a name
LONGEST = 60  # letters of a name


def draw_layouts(found: Explored) -> Figure:
    """Time of a step against memory at peak, of every valid layout. Raises BadInput where there is
    none.
    """
    if not len(found.step_s):
        raise BadInput("--plot: no layout is valid; there is nothing to draw")
    s = found.scenario
    figure, axes = _figure(f"{s.model} on {found.devices:,} × {s.device}")
    fits = found.fits
    axes.plot(found.step_s[~fits], found.peak_bytes[~fits], "x", ms=3, color=FAINT, alpha=0.4,
              label="does not fit")  # fmt: skip
    axes.plot(found.step_s[fits], found.peak_bytes[fits], "o", ms=3, color=BLUE, alpha=0.4,
              label="fits")  # fmt: skip
    front = found.front()
    axes.plot(found.step_s[front], found.peak_bytes[front], "-", lw=1.2, color=INK,
              label="front: no other is faster and smaller")  # fmt: skip
    if found.capacity is not None:
        axes.axhline(found.capacity, color=VERMILLION, ls="--", lw=1.2, label="capacity")
    named = [i for i in front if fits[i]] or front
    spread = np.unique(np.linspace(0, len(named) - 1, NAMED).round().astype(int))
    for place, i in enumerate(named[k] for k in spread):
        words = words_of({k: v for k, v in found.options[i].items() if k != "devices"})
        words = words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
        at = (float(found.step_s[i]), float(found.peak_bytes[i]))
        _name(axes, words, at, -14 if place == 0 else -4)
    _scales(axes, found.step_s, found.peak_bytes)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value))
    axes.yaxis.set_major_formatter(lambda value, _: binary(value))
    axes.set_xlabel("time of a step")
    axes.set_ylabel("memory at peak, per device")
    return figure


def draw_choices(found: Chosen) -> Figure:
    """Time of the run with its 80 % interval against cost, by kind of device; filled: the choices.
    Raises BadInput where nothing has a cost.
    """
    every = [*found.choices, *(c for c in found.front if c not in found.choices)]
    priced = [c for c in every if c.cost_usd is not None]
    if not priced:
        raise BadInput(
            "--plot draws cost against time, and no choice has a price; --price sets one"
        )
    title = f"{found.scenario['model']}: what to run it on (numbers: how many devices)"
    figure, axes = _figure(title)
    kinds = list(dict.fromkeys(c.device for c in priced))
    marks = []
    for n, kind in enumerate(kinds):
        marks += _kind(axes, [c for c in priced if c.device == kind], found, n)
    times, costs = ([getattr(c, key) for c in priced] for key in ("time_s", "cost_usd"))
    if (within := found.limits.get("within_s")) is not None:
        _limit(axes.axvline, within, times, f"deadline: {duration(within)}")
    if (under := found.limits.get("under_usd")) is not None:
        _limit(axes.axhline, under, costs, f"budget: {money(under)}")
    _scales(axes, np.array(times), np.array(costs))
    axes.xaxis.set_major_formatter(lambda value, _: duration(value))
    axes.yaxis.set_major_formatter(lambda value, _: money(value))
    axes.set_xlabel("time of the run, with its 80 % interval")
    axes.set_ylabel("cost")
    if unnamed := label_marks(figure, axes, marks):
        _say_unnamed(figure, unnamed)
    return figure


def _limit(line: Callable[..., Any], at: float, values: list[Any], words: str) -> None:
    """A limit as a line; one that would press all points together is named alone."""
    far = at > FAR * max(values)
    place = max(values) if far else at
    label = f"{words}, beyond the picture" if far else words
    line(place, color=VERMILLION, ls="--", lw=1.2, label=label, visible=not far)


def _say_unnamed(figure: Figure, unnamed: list[Mark]) -> None:
    """Numbers that have no place in the picture, beside their kind in the legend, by time."""
    for words in figure.legends[0].get_texts():
        kind = words.get_text()
        numbers = [m.text for m in sorted(unnamed, key=lambda m: m.at) if m.kind == kind]
        if numbers:
            words.set_text(f"{kind}; without a number, by time: {', '.join(numbers)}")


def _kind(axes: Axes, own: list[Choice], found: Chosen, n: int) -> list[Mark]:
    """The choices of one kind of device; their marks."""
    colour, shape = DEVICES[n % len(DEVICES)], SHAPES[n % len(SHAPES)]
    own = sorted(own, key=lambda c: c.time_s)
    x, y = ([getattr(c, key) for c in own] for key in ("time_s", "cost_usd"))
    axes.plot(x, y, "-", lw=0.8, color=colour, alpha=0.5)
    for c in own:
        face = colour if c in found.choices else "white"
        at = (c.time_s, c.cost_usd or 0.0)
        if c.time_low_s is not None and c.time_high_s is not None:
            errors = [[c.time_s - c.time_low_s], [c.time_high_s - c.time_s]]
            axes.errorbar(*at, xerr=errors, color=colour, alpha=0.3, fmt="none", lw=2)
        axes.plot(*at, shape, ms=6, color=colour, markerfacecolor=face)
    axes.plot([], [], shape, color=colour, label=own[0].device)
    return [Mark((c.time_s, c.cost_usd or 0.0), f"{c.devices:,}", colour, c.device) for c in own]


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = new(9.0, 5.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE)
    return figure, figure.add_subplot()


def _name(axes: Axes, words: str, at: tuple[float, float], above: float) -> None:
    """A name beside a point."""
    text = axes.annotate(
        words, at, (6, above), textcoords="offset points", fontsize=SMALL, color=GREY, zorder=5
    )
    halo(text)


def _scales(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Logarithmic axes where the values differ much, and a legend."""
    for values, scale, ticks in (
        (x, axes.set_xscale, axes.set_xticks),
        (y, axes.set_yscale, axes.set_yticks),
    ):
        if values.min() > 0 and values.max() > WIDE * values.min():
            scale("log")
            ticks(np.geomspace(values.min(), values.max(), TICKS))
    axes.minorticks_off()
    bare(axes, "both")
    axes.figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=SMALL)
