"""The roofline picture: what each op reaches, under what the device could do [williams2009].

x: arithmetic intensity [FLOP/B] (FLOPs over DRAM bytes), y: performance [FLOP/s], both logarithmic.
A point is one op in one phase; its area is its share of the step's time. Roof labels stand outside
the axes or above the lines, so that no point can be under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import msgspec
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from roofcast.reports.format import digits, percent, seconds, si
from roofcast.reports.pages.layout import on_what
from roofcast.reports.pictures.roofline_labels import (
    boxes,
    margin_labels,
    name_points,
    ridge_labels,
    slope_labels,
)
from roofcast.reports.pictures.roofs import Machine, in_use, ridge
from roofcast.reports.pictures.style import (
    FAINT,
    FULL,
    INK,
    LEAST,
    MARKS,
    SMALLEST_SHARE,
    colour_of,
    dash_of,
)
from roofcast.simulator.forecast.result import Forecast, Point

SUFFIXES = (".png", ".svg", ".pdf")


def draw(forecasts: Sequence[Forecast], machines: Sequence[Machine]) -> Figure:
    """The picture of one forecast on one machine, or of several overlaid (one colour a machine)."""
    with matplotlib.rc_context(
        {
            "font.size": 10.5,
            "font.family": "DejaVu Sans",
            "svg.fonttype": "none",
            "pdf.fonttype": 42,
        }
    ):
        overlay = len(forecasts) > 1
        if overlay:
            used = {point.precision for forecast in forecasts for point in forecast.points}
            machines = [in_use(machine, used) for machine in machines]
        figure = Figure(figsize=(11, 7), dpi=130)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.085, 0.675, 0.755))
        shown = [_visible(forecast) for forecast in forecasts]
        frame(axes, shown, machines)
        strewn = [roofs(axes, machine, i, overlay) for i, machine in enumerate(machines)]
        markers = [
            _points(axes, forecast, points, i, overlay)
            for i, (forecast, points) in enumerate(zip(forecasts, shown, strict=True))
        ]
        _titles(figure, axes, forecasts)
        handles = _legend(figure, axes, forecasts, shown, machines, overlay)
        margin_labels(figure, axes, machines, overlay, handles)
        fixed = slope_labels(figure, axes, machines, overlay, boxes(markers))
        ridge_labels(figure, axes, machines, overlay)
        name_points(figure, axes, forecasts, shown, markers, fixed, np.vstack(strewn))
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure in the format of the suffix: png (130 dpi), svg or pdf; the bytes depend on
    nothing but the figure.
    """
    suffix = Path(path).suffix.lower()
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}[suffix]
    with matplotlib.rc_context(
        {"svg.hashsalt": "roofcast", "svg.fonttype": "none", "pdf.fonttype": 42}
    ):
        figure.savefig(path, format=suffix[1:], metadata=undated)


def _visible(forecast: Forecast) -> list[Point]:
    """Points that can be drawn: with FLOPs, bytes and a share of time an eye can find; largest
    first, so small ones lie on top.

    The optimizer's work on all weights is one point: it is the same for each.
    """
    points = [p for p in forecast.points if p.phase != "update"]
    update = [p for p in forecast.points if p.phase == "update"]
    if update:
        flops, moved, time = (
            sum(getattr(p, field) for p in update) for field in ("flops", "bytes", "time_s")
        )
        points.append(
            msgspec.structs.replace(
                update[0], name="optimizer", flops=flops, bytes=moved, time_s=time
            )
        )
    points = [
        p
        for p in points
        if p.flops > 0 and p.bytes > 0 and p.time_s > SMALLEST_SHARE * forecast.step_time_s
    ]
    return sorted(points, key=lambda p: -p.time_s)


def frame(axes, shown: list[list[Point]], machines: Sequence[Machine]) -> None:
    """Limits, ticks and grid: every point, every ridge of DRAM, the highest roof."""
    points = [p for group in shown for p in group]
    ridges = [ridge(roof, machine.memory[-1]) for machine in machines for roof in machine.compute]
    x = [p.flops / p.bytes for p in points] + ridges
    y = [p.flops / p.time_s for p in points] + [
        roof.printed for machine in machines for roof in machine.compute
    ]
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
    axes.grid(True, which="major", color="#E6E6E6", linewidth=0.8, zorder=0)
    axes.tick_params(which="minor", length=2, color=FAINT)
    axes.spines[["top", "right"]].set_color("#CCCCCC")
    axes.set_axisbelow(True)


def roofs(axes, machine: Machine, index: int, overlay: bool) -> np.ndarray:
    """Draw the roofs; gives points strewn along them in pixels, for labels to keep off."""
    colour, dash = (colour_of(index), dash_of(index)) if overlay else (INK, "-")
    left, right = axes.get_xlim()
    top, dram, fastest = machine.compute[0], machine.memory[-1], machine.memory[0]
    drawn = []

    def line(x0, y0, x1, y1, style, width, alpha):
        axes.plot(
            [x0, x1],
            [y0, y1],
            color=colour,
            linestyle=style,
            linewidth=width,
            alpha=alpha,
            solid_capstyle="butt",
            zorder=2,
        )
        drawn.append(np.column_stack([np.geomspace(x0, x1, 150), np.geomspace(y0, y1, 150)]))

    for roof in machine.memory:
        main = roof is dram
        end = top.printed / roof.printed
        line(
            left,
            roof.printed * left,
            end,
            top.printed,
            dash,
            2.2 if main else 1.3,
            1 if main else 0.6,
        )
        if roof.achieved:
            best = top.achieved or top.printed
            line(left, roof.achieved * left, best / roof.achieved, best, (0, (2, 2)), 1.4, 0.8)
    for roof in machine.compute:
        line(
            roof.printed / fastest.printed,
            roof.printed,
            right,
            roof.printed,
            dash,
            2.2 if roof is top else 1.5,
            0.95,
        )
        if roof.achieved:
            line(
                roof.achieved / (dram.achieved or dram.printed),
                roof.achieved,
                right,
                roof.achieved,
                (0, (2, 2)),
                1.2,
                0.8,
            )
        at = ridge(roof, dram)
        ceiling = axes.get_ylim()[1]
        drawn.append(np.column_stack([np.full(30, at), np.geomspace(roof.printed, ceiling, 30)]))
        axes.plot(
            [at, at],
            [roof.printed, ceiling],
            color=colour,
            linewidth=0.8,
            linestyle=":",
            zorder=1.5,
        )
        axes.plot(
            [at],
            [roof.printed],
            marker="s",
            markersize=6,
            markerfacecolor="white",
            markeredgecolor=colour,
            markeredgewidth=1.4,
            zorder=3,
        )
    return axes.transData.transform(np.vstack(drawn))


def _points(axes, forecast: Forecast, points: list[Point], index: int, overlay: bool) -> np.ndarray:
    """Draw the points; gives centre, half width and where leaders end, in pixels [n, 4]."""
    marked = []
    for order, point in enumerate(points):
        mark = MARKS[point.phase]
        colour = colour_of(index) if overlay else mark.colour
        size = max(FULL * point.time_s / forecast.step_time_s, LEAST) / mark.area
        x, y = point.flops / point.bytes, point.flops / point.time_s
        face, edge = (
            (matplotlib.colors.to_rgba(colour, 0.6), "white") if mark.filled else ("none", colour)
        )
        axes.scatter(
            [x],
            [y],
            s=size,
            marker=mark.shape,
            facecolor=face,
            edgecolor=edge,
            linewidth=0.7 if mark.filled else 1.6,
            zorder=(4 if mark.filled else 5) + order / 1000,
        )
        centre = axes.transData.transform((x, y))
        width = np.sqrt(size) * axes.figure.dpi / 72
        marked.append((*centre, width * (0.707 if mark.shape == "D" else 0.5), width * mark.reach))
    return np.array(marked).reshape(-1, 4)


def roof_words(machines: Sequence[Machine]) -> str:
    """What the full lines are."""
    measured = {machine.measured for machine in machines}
    return "roof, " + (
        "as printed"
        if measured == {False}
        else "measured"
        if measured == {True}
        else "as printed, or measured"
    )


def _titles(figure, axes, forecasts: Sequence[Forecast]) -> None:
    first = forecasts[0]
    devices = " and ".join(dict.fromkeys(on_what(f) for f in forecasts))
    figure.text(
        0.075,
        0.955,
        f"{first.model} on {devices}",
        fontsize=15,
        fontweight="bold",
        color=INK,
        va="center",
    )
    figure.text(0.075, 0.918, _subtitle(forecasts), fontsize=10.5, color="#444444", va="center")


def _subtitle(forecasts: Sequence[Forecast]) -> str:
    first = forecasts[0]
    size = f"batch {first.batch}" + (
        f" × {first.sequence} tokens"
        if first.sequence
        else f" × {first.image}² pixels"
        if first.image
        else ""
    )
    what = "training step" if first.mode == "train" else "inference step"
    if len(forecasts) > 1:
        return f"{what}, {size}, {first.precision}:  " + ",  ".join(
            f"{f.device} {seconds(f.step_time_s)}" for f in forecasts
        )
    used = f",  MFU {percent(first.mfu)}" if first.mfu is not None else ""
    return f"{what}, {size}, {first.precision}:  {seconds(first.step_time_s)}{used}"


def _legend(figure, axes, forecasts, shown, machines, overlay: bool):
    """The key, in the margin under the roof labels: shapes, areas, lines."""
    handles, texts = [], []

    def add(handle, text):
        handles.append(handle)
        texts.append(text)

    def blank(text):
        add(Line2D([], [], linestyle="none"), text)

    if overlay:
        for i, forecast in enumerate(forecasts):
            add(
                Line2D([], [], color=colour_of(i), linestyle=dash_of(i), linewidth=2.2),
                forecast.device,
            )
    for phase in ("forward", "backward", "update"):
        if any(p.phase == phase for group in shown for p in group):
            mark = MARKS[phase]
            colour = "#666666" if overlay else mark.colour
            add(
                Line2D(
                    [],
                    [],
                    linestyle="none",
                    marker=mark.shape,
                    markersize=8.5 if mark.shape != "D" else 7,
                    markerfacecolor=(
                        matplotlib.colors.to_rgba(colour, 0.6) if mark.filled else "white"
                    ),
                    markeredgecolor=colour,
                    markeredgewidth=0.5 if mark.filled else 1.6,
                ),
                f"one op, {mark.text}",
            )
    for share in (0.05, 0.01):
        add(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                markersize=np.sqrt(FULL * share / 0.785),
                markerfacecolor="#DDDDDD",
                markeredgecolor=FAINT,
                markeredgewidth=0.6,
            ),
            f"area: {share:.0%} of the step".replace("%", " %"),
        )
    add(Line2D([], [], color=INK, linewidth=2.0), roof_words(machines))
    if any(roof.achieved for machine in machines for roof in machine.roofs):
        add(Line2D([], [], color=INK, linewidth=1.3, linestyle=(0, (2, 2))), "roof, as achieved")
    add(
        Line2D(
            [],
            [],
            color=INK,
            linewidth=0.9,
            linestyle=":",
            marker="s",
            markersize=6,
            markerfacecolor="white",
            markeredgewidth=1.4,
            markeredgecolor=INK,
        ),
        "ridge point",
    )
    hidden = [
        1 - sum(p.time_s for p in group) / forecast.step_time_s
        for forecast, group in zip(forecasts, shown, strict=True)
    ]
    if max(hidden) > 0.005:
        blank(f"not drawn: {percent(max(hidden))} of the time\n(no FLOPs, or too small to see)")
    return figure.legend(
        handles,
        texts,
        loc="lower left",
        bbox_to_anchor=(0.765, 0.075),
        frameon=False,
        fontsize=9.5,
        labelspacing=0.75,
        handlelength=2.2,
        borderpad=0,
    )
