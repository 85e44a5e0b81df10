"""The roofline of a step: what each op reaches, below what the device can do [williams2009].

x: arithmetic intensity [FLOP/B] (FLOPs over DRAM bytes), y: performance [FLOP/s], both logarithmic.
A point is one op in one phase; its area is its share of the step. Labels of roofs stand outside the
axes or above the lines, so that no point is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from roofcast.reports.format import digits, percent, seconds, si
from roofcast.reports.pages.layout import on_what
from roofcast.reports.pictures.point_labels import boxes, name_points
from roofcast.reports.pictures.roofline_labels import margin_labels, ridge_labels, slope_labels
from roofcast.reports.pictures.roofline_legend import legend
from roofcast.reports.pictures.roofline_points import draw_points
from roofcast.reports.pictures.roofs import Machine, Roof, in_use, ridge, visible
from roofcast.reports.pictures.style import (
    ACHIEVED,
    AXES,
    DPI,
    FAINT,
    GREY,
    GRID,
    INK,
    TEXT,
    colour_of,
    dash_of,
    fonts,
)
from roofcast.simulator.forecast.result import Forecast, Point

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType


def draw(forecasts: Sequence[Forecast], machines: Sequence[Machine]) -> Figure:
    """Draw one forecast on one machine, or several overlaid, a colour per machine."""
    with fonts():
        overlay = len(forecasts) > 1
        if overlay:
            used = {point.precision for forecast in forecasts for point in forecast.points}
            machines = [in_use(machine, used) for machine in machines]
        figure, axes = new_figure()
        shown = [visible(forecast) for forecast in forecasts]
        frame(axes, shown, machines)
        lines = [roofs(axes, machine, i, overlay) for i, machine in enumerate(machines)]
        markers = [
            draw_points(axes, forecast, points, i, overlay)
            for i, (forecast, points) in enumerate(zip(forecasts, shown, strict=True))
        ]
        devices = " and ".join(dict.fromkeys(on_what(f) for f in forecasts))
        titles(figure, f"{forecasts[0].model} on {devices}", _subtitle(forecasts))
        box = legend(figure, forecasts, shown, machines)
        margin_labels(figure, axes, machines, overlay, box)
        fixed = slope_labels(figure, axes, machines, overlay, boxes(markers))
        ridge_labels(figure, axes, machines, overlay)
        name_points(figure, axes, forecasts, shown, markers, fixed, np.vstack(lines))
    return figure


def new_figure() -> tuple[Figure, Axes]:
    """An empty figure with axes, and room for labels around them."""
    figure = Figure(figsize=(11, 7), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure, figure.add_axes(AXES)


def frame(axes: Axes, shown: Sequence[Sequence[Point]], machines: Sequence[Machine]) -> None:
    """Set limits, ticks and grid so that every point, DRAM ridge and roof is inside."""
    points = [p for group in shown for p in group]
    ridges = [ridge(roof, machine.memory[-1]) for machine in machines for roof in machine.compute]
    x = [p.flops / p.bytes for p in points] + ridges
    y = [p.flops / p.time_s for p in points]
    y += [roof.printed for machine in machines for roof in machine.compute]
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(min(min(x) / 2.2, 0.3), max(x) * 3)
    axes.set_ylim(min(min(y) / 2.5, max(y) / 1e4), max(y) * 2.2)
    axes.set_xlabel("arithmetic intensity  [FLOP / byte of DRAM traffic]", labelpad=5)
    axes.set_ylabel("performance  [FLOP/s]", labelpad=4)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, numticks=20))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: digits(value, 1) if value < 1 else f"{value:,.0f}")
    )
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: si(value, "FLOP/s", 1).replace("FLOP/s", "").strip())
    )
    axes.grid(True, which="major", color=GRID, linewidth=0.8, zorder=0)
    axes.tick_params(which="minor", length=2, color=FAINT)
    axes.spines[["top", "right"]].set_color("#CCCCCC")
    axes.set_axisbelow(True)


def roofs(axes: Axes, machine: Machine, index: int, overlay: bool) -> np.ndarray:
    """Draw the roofs; returns points along them [px, n x 2], which labels should avoid."""
    colour, dash = (colour_of(index), dash_of(index)) if overlay else (INK, "-")
    left, right = axes.get_xlim()
    top, dram, fastest = machine.compute[0], machine.memory[-1], machine.memory[0]
    drawn = []

    def line(
        x: tuple[float, float],
        y: tuple[float, float],
        style: LineStyleType,
        width: float,
        alpha: float,
    ) -> None:
        how: dict[str, Any] = {
            "linewidth": width,
            "alpha": alpha,
            "solid_capstyle": "butt",
            "zorder": 2,
        }
        axes.plot(x, y, color=colour, linestyle=style, **how)
        drawn.append(np.column_stack([np.geomspace(*x, 150), np.geomspace(*y, 150)]))

    for roof in machine.memory:
        x, y = (left, top.printed / roof.printed), (roof.printed * left, top.printed)
        line(x, y, dash, *((2.2, 1.0) if roof is dram else (1.3, 0.6)))
        if roof.achieved:
            best = top.achieved or top.printed
            x, y = (left, best / roof.achieved), (roof.achieved * left, best)
            line(x, y, ACHIEVED, 1.4, 0.8)
    for roof in machine.compute:
        x, y = (roof.printed / fastest.printed, right), (roof.printed, roof.printed)
        line(x, y, dash, 2.2 if roof is top else 1.5, 0.95)
        if roof.achieved:
            x = (roof.achieved / (dram.achieved or dram.printed), right)
            line(x, (roof.achieved, roof.achieved), ACHIEVED, 1.2, 0.8)
        drawn.append(_ridge_point(axes, roof, dram, colour))
    return axes.transData.transform(np.vstack(drawn))


def _ridge_point(axes: Axes, roof: Roof, dram: Roof, colour: str) -> np.ndarray:
    """Draw a ridge point and the dotted line up to its label; points along that line [n x 2]."""
    at, ceiling = ridge(roof, dram), axes.get_ylim()[1]
    axes.plot([at, at], [roof.printed, ceiling], color=colour, lw=0.8, ls=":", zorder=1.5)
    square: dict[str, Any] = {
        "marker": "s",
        "markersize": 6,
        "markerfacecolor": "white",
        "markeredgewidth": 1.4,
    }
    axes.plot([at], [roof.printed], markeredgecolor=colour, zorder=3, **square)
    return np.column_stack([np.full(30, at), np.geomspace(roof.printed, ceiling, 30)])


def titles(figure: Figure, title: str, subtitle: str) -> None:
    """Write the title and the line below it."""
    x = AXES[0]
    figure.text(x, 0.955, title, fontsize=15, fontweight="bold", color=INK, va="center")
    figure.text(x, 0.918, subtitle, fontsize=TEXT, color=GREY, va="center")


def _subtitle(forecasts: Sequence[Forecast]) -> str:
    """The step, its time and MFU; of several devices, their times."""
    first = forecasts[0]
    size = f"batch {first.batch}"
    if first.sequence:
        size += f" × {first.sequence} tokens"
    elif first.image:
        size += f" × {first.image}×{first.image} pixels"
    kind = "training step" if first.mode == "train" else "inference step"
    if len(forecasts) > 1:
        times = ",  ".join(f"{f.device} {seconds(f.step_time_s)}" for f in forecasts)
    else:
        used = f",  MFU {percent(first.mfu)}" if first.mfu is not None else ""
        times = f"{seconds(first.step_time_s)}{used}"
    formats = list(dict.fromkeys(f.precision for f in forecasts))
    if len(formats) > 1:  # each with its device
        times = ",  ".join(f"{f.device} {f.precision} {seconds(f.step_time_s)}" for f in forecasts)
        return f"{kind}, {size}:  {times}"
    return f"{kind}, {size}, {first.precision}:  {times}"
