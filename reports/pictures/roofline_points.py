"""The points of a roofline, drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from roofcast.reports.pictures.style import FULL, LEAST, MARKS, colour_of
from roofcast.simulator.forecast.result import Forecast, Point


def draw_points(
    axes: Axes, forecast: Forecast, points: Sequence[Point], index: int, overlay: bool
) -> np.ndarray:
    """Draw the points; returns x, y, half width and reach of each marker [px, n x 4].

    index: place of the device in the overlay. Short ops are drawn over long ones.
    """
    marked = []
    for order, point in enumerate(points):
        mark = MARKS[point.phase]
        colour = colour_of(index) if overlay else mark.colour
        size = max(FULL * point.time_s / forecast.step_time_s, LEAST) / mark.area
        x, y = point.flops / point.bytes, point.flops / point.time_s
        axes.scatter(
            [x],
            [y],
            s=size,
            marker=mark.shape,
            facecolor=mark.face(colour),
            edgecolor="white" if mark.filled else colour,
            linewidth=0.7 if mark.filled else 1.6,
            zorder=(4 if mark.filled else 5) + order / 1000,
        )
        centre = axes.transData.transform((x, y))
        width = np.sqrt(size) * axes.figure.dpi / 72
        marked.append((*centre, width * (0.707 if mark.shape == "D" else 0.5), width * mark.reach))
    return np.array(marked).reshape(-1, 4)
