"""The legend of a roofline, in the right margin below the labels of the roofs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from roofcast.reports.format import percent
from roofcast.reports.pictures.roofs import Machine
from roofcast.reports.pictures.style import (
    ACHIEVED,
    FAINT,
    FULL,
    INK,
    LEGEND,
    MARKS,
    SMALL,
    colour_of,
    dash_of,
)
from roofcast.simulator.forecast.result import Forecast, Point

Entry = tuple[Line2D, str]


def legend(
    figure: Figure,
    forecasts: Sequence[Forecast],
    shown: Sequence[Sequence[Point]],
    machines: Sequence[Machine],
) -> Legend:
    """Draw the legend: devices of an overlay, phases, areas, lines, and the share not drawn."""
    entries: list[Entry] = []
    if len(forecasts) > 1:
        for i, forecast in enumerate(forecasts):
            line = Line2D([], [], color=colour_of(i), linestyle=dash_of(i), linewidth=2.2)
            entries.append((line, forecast.device))
    entries += _phases(shown, grey=len(forecasts) > 1)
    entries += [_area(share) for share in (0.05, 0.01)]
    entries += roof_entries(machines, "roof (achieved)")
    square: dict[str, Any] = {
        "marker": "s",
        "markersize": 6,
        "markerfacecolor": "white",
        "markeredgewidth": 1.4,
    }
    ridge_point = Line2D([], [], color=INK, linewidth=0.9, linestyle=":", **square)
    entries.append((ridge_point, "ridge point"))
    hidden = max(
        1 - sum(p.time_s for p in group) / forecast.step_time_s
        for forecast, group in zip(forecasts, shown, strict=True)
    )
    if hidden > 0.005:
        entries.append(
            nothing(f"not drawn: {percent(hidden)} of the step\n(no FLOPs, or too small)")
        )
    return draw_legend(figure, entries, labelspacing=0.75, handlelength=2.2)


def _phases(shown: Sequence[Sequence[Point]], grey: bool) -> list[Entry]:
    """The markers of the phases that have points."""
    entries = []
    for phase, mark in MARKS.items():
        if any(p.phase == phase for group in shown for p in group):
            colour = "#666666" if grey else mark.colour
            handle = Line2D(
                [],
                [],
                linestyle="none",
                marker=mark.shape,
                markersize=8.5 if mark.shape != "D" else 7,
                markerfacecolor=mark.face(colour) if mark.filled else "white",
                markeredgecolor=colour,
                markeredgewidth=0.5 if mark.filled else 1.6,
            )
            one = "optimizer, all weights" if phase == "update" else f"one op, {mark.text}"
            entries.append((handle, one))
    return entries


def _area(share: float) -> Entry:
    """A marker as large as that share of the step."""
    handle = Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=float(np.sqrt(FULL * share / MARKS["forward"].area)),
        markerfacecolor="#DDDDDD",
        markeredgecolor=FAINT,
        markeredgewidth=0.6,
    )
    return handle, f"area: {100 * share:.0f} % of the step"


def roof_entries(machines: Sequence[Machine], achieved: str) -> list[Entry]:
    """The lines of the roofs; achieved: the text for dashed ones, if there are any."""
    kinds = sorted({"measured" if machine.measured else "datasheet" for machine in machines})
    text = f"roof ({' or '.join(kinds)})"
    entries = [(Line2D([], [], color=INK, linewidth=2.0), text)]
    if any(roof.achieved for machine in machines for roof in machine.roofs):
        dashed = Line2D([], [], color=INK, linewidth=1.3, linestyle=ACHIEVED)
        entries.append((dashed, achieved))
    return entries


def nothing(text: str) -> Entry:
    """A text without a symbol."""
    return Line2D([], [], linestyle="none"), text


def draw_legend(figure: Figure, entries: Sequence[Entry], **spacing: float) -> Legend:
    """Draw these entries at the usual place."""
    handles, texts = zip(*entries, strict=True)
    return figure.legend(
        handles,
        texts,
        loc="lower left",
        bbox_to_anchor=LEGEND,
        frameon=False,
        fontsize=SMALL,
        borderpad=0,
        **spacing,
    )
