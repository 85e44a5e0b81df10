"""The step of one or several forecasts: its time by what limits it, and its memory by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from roofcast.reports.format import binary, seconds
from roofcast.reports.pages.layout import on_what
from roofcast.reports.pages.memory import kinds
from roofcast.reports.pictures.memory import in_bytes, stacked
from roofcast.reports.pictures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    KINDS,
    ORANGE,
    PURPLE,
    SMALL,
    TITLE,
    VERMILLION,
    bare,
    new,
)
from roofcast.simulator.forecast.limits import TIMED
from roofcast.simulator.forecast.result import Forecast

LIMITS = dict(
    zip(
        TIMED,
        ((BLUE, ""), (GREEN, "//"), (PURPLE, "xx"), (VERMILLION, "\\\\"), (ORANGE, ".."),
         (GREY, "")),
        strict=True,
    )
)  # fmt: skip
LEAST = 0.002  # share of a step from which a limit has a colour
THICK = 0.62  # of a bar, of the distance between two
BAR = 0.5  # height of a bar with its gap [inches]


def draw(forecasts: Sequence[Forecast]) -> Figure:
    """A bar per forecast for its time with the interval, and one for its memory."""
    figure = new(10.5, 3.0 + 2 * BAR * len(forecasts))
    above, below = figure.subplots(2, 1)
    _times(above, forecasts)
    _memory(below, forecasts)
    names = list(dict.fromkeys(f.model for f in forecasts))
    first = forecasts[0]
    size = f"batch {first.batch:,}" + (f" × {first.sequence:,} tokens" if first.sequence else "")
    one = "training step" if first.mode == "train" else "inference pass"
    what = f"one {one}, {size}, {first.precision}" if len(forecasts) == 1 else f"one {one} each"
    on = f" on {on_what(first)}" if len(forecasts) == 1 else ""
    figure.suptitle(f"{', '.join(names)}{on}: {what}", x=0.01, ha="left", fontsize=TITLE)
    return figure


def _names(axes: Axes, forecasts: Sequence[Forecast]) -> None:
    many = len({f.model for f in forecasts}) > 1
    names = [f"{f.model}\n{on_what(f)}" if many else on_what(f) for f in forecasts]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    bare(axes, "x")


def _times(axes: Axes, forecasts: Sequence[Forecast]) -> None:
    """Time by limit, the 80 % interval, and the lower bound of the roofline."""
    seen = {x.name for f in forecasts for x in f.limits if (x.share or 0.0) > LEAST}
    used = [name for name in TIMED if name in seen]
    end = max(max(f.step_time_s, f.high_s or 0.0) for f in forecasts)
    for y, f in enumerate(forecasts):
        share = {x.name: x.share or 0.0 for x in f.limits}
        parts = [(*LIMITS[name], share.get(name, 0.0) * f.step_time_s) for name in used]
        stacked(axes, y, parts or [(BLUE, "", f.step_time_s)], THICK)
        if f.low_s is not None and f.high_s is not None:
            axes.plot([f.low_s, f.high_s], [y, y], color=INK, lw=1.6, marker="|", ms=9, mew=1.6)
        axes.plot([f.lower_bound_s] * 2, [y - 0.42, y + 0.42], color=INK, lw=1.6, ls=":")
        axes.text(max(f.high_s or 0.0, f.step_time_s) + 0.01 * end, y, seconds(f.step_time_s),
                  va="center", fontsize=SMALL, fontweight="bold")  # fmt: skip
    _names(axes, forecasts)
    axes.set_xlim(0, 1.14 * end)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value) if value else "0")
    marks: list[Any] = [_patch(*LIMITS[name]) for name in used]
    words = [name if name != "pipeline" else "waiting (pipeline)" for name in used]
    (interval,) = axes.plot([], [], color=INK, lw=1.6, marker="|", ms=9, mew=1.6)
    (bound,) = axes.plot([], [], color=INK, lw=1.6, ls=":")
    axes.legend([*marks, interval, bound], [*words, "80 % interval", "roofline lower bound"],
                loc="lower left", bbox_to_anchor=(0, 1.0), ncols=7, frameon=False,
                fontsize=SMALL, title="time, by what limits it", alignment="left")  # fmt: skip


def _memory(axes: Axes, forecasts: Sequence[Forecast]) -> None:
    """Memory at peak by kind, and the capacity."""
    held = [dict(kinds(f)) for f in forecasts]
    used = [name for name in KINDS if any(name in each for each in held)]
    end = max(max(f.memory.peak_bytes, f.memory.capacity_bytes or 0.0) for f in forecasts)
    for y, (f, each) in enumerate(zip(forecasts, held, strict=True)):
        stacked(axes, y, [(*KINDS[name], each.get(name, 0.0)) for name in used], THICK)
        capacity = f.memory.capacity_bytes
        if capacity:
            axes.plot([capacity] * 2, [y - 0.42, y + 0.42], color=INK, lw=1.8)
        words = binary(f.memory.peak_bytes) + (f" of {binary(capacity)}" if capacity else "")
        axes.text(max(f.memory.peak_bytes, capacity or 0.0) + 0.01 * end, y, words, va="center",
                  fontsize=SMALL, fontweight="bold")  # fmt: skip
    _names(axes, forecasts)
    axes.set_xlim(0, 1.24 * end)
    in_bytes(axes.xaxis, 1.24 * end)
    marks: list[Any] = [_patch(*KINDS[name]) for name in used]
    (line,) = axes.plot([], [], color=INK, lw=1.8)
    axes.legend([*marks, line], [*used, "capacity"], loc="lower left", bbox_to_anchor=(0, 1.0),
                ncols=7, frameon=False, fontsize=SMALL, title="memory at peak, by kind",
                alignment="left")  # fmt: skip


def _patch(colour: str, hatch: str) -> Patch:
    return Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0)
