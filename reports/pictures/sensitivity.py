"""What each number of the hardware is worth, as bars: a tornado chart with one side."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from roofcast.reports.format import percent, seconds
from roofcast.reports.pages.layout import on_what
from roofcast.reports.pictures.style import BLUE, INK, ORANGE, SMALL, TITLE, bare, new
from roofcast.simulator.choose.sensitivity import Sensitivity

MOST = 12  # bars
HEIGHT = 0.42  # of a bar with its gap [inches]


def draw(found: Sensitivity) -> Figure:
    """A bar per number, as long as the share of the step that a number twice as good saves."""
    step = found.forecast
    effects = sorted(found.effects, key=lambda e: -e.better_s)[:MOST]
    figure = new(9.0, 1.9 + HEIGHT * max(len(effects), 1))
    axes = figure.add_subplot()
    shares = [100 * max(e.better_s, 0.0) / step.step_time_s for e in effects]
    colours = [BLUE if e.rate else ORANGE for e in effects]
    hatches = ["" if e.rate else "///" for e in effects]
    axes.barh(range(len(effects)), shares, color=colours, hatch=hatches, edgecolor="white")
    for place, (effect, share) in enumerate(zip(effects, shares, strict=True)):
        words = f" {seconds(max(effect.better_s, 0.0))}  ({effect.elasticity:+.2g} % per %)"
        axes.text(share, place, words, va="center", fontsize=SMALL, color=INK)
    axes.set_yticks(range(len(effects)), [e.number for e in effects])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max([*shares, 1.0]))
    axes.set_xlabel("share of the step that a number twice as good saves [%]")
    if len({e.rate for e in effects}) > 1:
        marks = [Patch(facecolor=BLUE), Patch(facecolor=ORANGE, hatch="///", edgecolor="white")]
        axes.legend(marks, ["rate, doubled", "latency or host time, halved"], loc="lower right")
    bare(axes)
    title = f"{step.model} on {on_what(step)}: {seconds(step.step_time_s)} per step"
    axes.set_title(f"{title}, MFU {percent(step.mfu)}", loc="left", fontsize=TITLE)
    return figure
