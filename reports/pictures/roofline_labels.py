"""Labels of the roofs and ridge points of a roofline, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from roofcast.reports.format import digits, si
from roofcast.reports.pictures.labels import overlap, spread
from roofcast.reports.pictures.roofs import Machine, Roof, ridge
from roofcast.reports.pictures.style import ACHIEVED, GREY, INK, SMALL, colour_of, halo, renderer

ACHIEVED_NAME = "achieved"  # in the names of dashed roofs
PIXELS: dict[str, Any] = {
    "xycoords": "figure pixels",
    "textcoords": "figure pixels",
    "annotation_clip": False,
}


def margin_labels(
    figure: Figure, axes: Axes, machines: Sequence[Machine], overlay: bool, legend: Legend
) -> None:
    """Name each compute roof, printed and achieved, right of the axes and above the legend, with a
    line to its end.
    """
    names = [
        (text, rate, i)
        for i, machine in enumerate(machines)
        for roof in machine.compute
        for text, rate in _named(roof, machine.name if overlay else "")
    ]
    box = axes.get_window_extent()
    floor = legend.get_window_extent(renderer(figure)).y1 + 12
    height = SMALL * figure.dpi / 72 * 1.25
    wanted = [axes.transData.transform((1, rate))[1] for _, rate, _ in names]
    heights = [height * (1 + text.count("\n")) for text, _, _ in names]
    placed = spread(wanted, heights, floor, box.y1 + 30)
    for (text, _, i), line, y in zip(names, wanted, placed, strict=True):
        colour = colour_of(i) if overlay else INK
        style = ACHIEVED if ACHIEVED_NAME in text else "-"
        arrow = dict(arrowstyle="-", color=colour, linewidth=0.7, linestyle=style, shrinkA=1)
        axes.annotate(
            text,
            xy=(box.x1, line),
            xytext=(box.x1 + 24, y),
            fontsize=SMALL,
            color=colour,
            va="center",
            ha="left",
            arrowprops=arrow | {"relpos": (0, 0.5), "shrinkB": 0},
            **PIXELS,
        )


def _named(roof: Roof, machine: str) -> list[tuple[str, float]]:
    """The names of a compute roof and of its achieved, dashed one, with their rates [FLOP/s].

    machine: in front of the first name where several are overlaid.
    """
    text = f"{roof.label}  {si(roof.printed, 'FLOP/s')}"
    found = [(f"{machine}\n{text}" if machine else text, roof.printed)]
    if roof.achieved:
        above = "\n(clock above the printed)" if roof.achieved > roof.printed else ""
        text = f"{roof.label} {ACHIEVED_NAME}  {si(roof.achieved)}{above}"
        found.append((text, roof.achieved))
    return found


def slope_labels(
    figure: Figure, axes: Axes, machines: Sequence[Machine], overlay: bool, markers: np.ndarray
) -> np.ndarray:
    """Name each memory roof along its line, at the first free place from the left.

    markers: boxes of the points [px, n x 4]. Returns the boxes that labels and ridge points cover.
    """
    ridges = [
        (ridge(roof, machine.memory[-1]), roof.printed)
        for machine in machines
        for roof in machine.compute
    ]
    corners = axes.transData.transform(ridges)
    taken = np.hstack([corners - 8, corners + 8])
    for i, machine in enumerate(machines):
        for roof in machine.memory:
            name = f"{machine.name}  {roof.label}" if overlay else roof.label
            colour = colour_of(i) if overlay else INK
            name += f"  {si(roof.printed, 'B/s')}"
            if roof.achieved:  # the dashed line below
                name += f", {ACHIEVED_NAME} {si(roof.achieved, 'B/s')}"
            text = figure.text(0, 0, name, fontsize=SMALL, color=colour)
            text.set(rotation_mode="anchor", ha="left", va="bottom")
            occupied = np.vstack([markers, taken])
            covered = _along_slope(figure, axes, text, roof, machine.compute[0].printed, occupied)
            halo(text)
            taken = np.vstack([taken, covered])
    return taken


def _along_slope(
    figure: Figure, axes: Axes, text: Text, roof: Roof, top: float, occupied: np.ndarray
) -> np.ndarray:
    """Put a text above the line of a memory roof; returns the boxes that it covers [px, n x 4].

    top: the highest compute roof, where the line ends [FLOP/s]; occupied: boxes to avoid.
    """
    run, rise = np.subtract(*axes.transData.transform([(10, 10), (1, 1)]))
    along = np.array([run, rise]) / np.hypot(run, rise)
    above = np.array([-along[1], along[0]])
    width, height = text.get_window_extent(renderer(figure)).size
    begin = max(axes.get_xlim()[0], axes.get_ylim()[0] / roof.printed)
    start, end = axes.transData.transform(
        [(begin, roof.printed * begin), (top / roof.printed, top)]
    )
    best, least, boxes = start, np.inf, np.zeros((0, 4))
    for offset in np.arange(24, max(np.hypot(*(end - start)) - width - 8, 25), 12):
        at = start + offset * along + 3 * above
        middles = at + np.linspace(0, width, 12)[:, None] * along + height / 2 * above
        covered = np.hstack([middles - height * 0.7, middles + height * 0.7])
        hit = sum(overlap(each, occupied).sum() for each in covered)
        if hit < least:
            best, least, boxes = at, hit, covered
        if hit == 0:
            break
    x, y = figure.transFigure.inverted().transform(best)
    text.set(position=(x, y), rotation=float(np.degrees(np.arctan2(rise, run))))
    return boxes


def ridge_labels(figure: Figure, axes: Axes, machines: Sequence[Machine], overlay: bool) -> None:
    """Write the intensity of each ridge point above the upper edge, with a heading."""
    marks = sorted(
        (ridge(roof, machine.memory[-1]), i)
        for i, machine in enumerate(machines)
        for roof in machine.compute
    )
    box = axes.get_window_extent()
    widths = [size[0] + 12 for size in text_sizes(figure, [digits(at) for at, _ in marks])]
    wanted = [axes.transData.transform((at, 1))[0] for at, _ in marks]
    placed = spread(wanted, widths, box.x0, box.x1)
    for (at, i), line, x in zip(marks, wanted, placed, strict=True):
        colour = colour_of(i) if overlay else INK
        axes.annotate(
            digits(at),
            xy=(line, box.y1),
            xytext=(x, box.y1 + 16),
            fontsize=SMALL,
            color=colour,
            ha="center",
            va="center",
            arrowprops=dict(
                arrowstyle="-", color=colour, linewidth=0.8, linestyle=":", shrinkA=1, shrinkB=0
            ),
            **PIXELS,
        )
    text = "ridge points of DRAM [FLOP/B]"
    heading = figure.text(0, 0, text, fontsize=SMALL, color=GREY, ha="right", va="center")
    room = text_sizes(figure, [text])[0][0]
    edges = sorted((x - w / 2, x + w / 2) for x, w in zip(placed, widths, strict=True))
    # where a gap between labels starts, and where it ends
    starts = [box.x0 - 60, *(right for _, right in edges)]
    ends = [*(left for left, _ in edges), box.x1 + 400]
    end = next(end for start, end in zip(starts, ends, strict=True) if end - start > room + 8)
    at = end - 6 if end < box.x1 + 400 else starts[-1] + room + 6
    x, y = figure.transFigure.inverted().transform((at, box.y1 + 16))
    heading.set_position((x, y))


def text_sizes(figure: Figure, texts: Sequence[str]) -> list[tuple[float, float]]:
    """Width and height of small labels [px]."""
    sizes = []
    for text in texts:
        probe = figure.text(0, 0, text, fontsize=SMALL, linespacing=1.1)
        extent = probe.get_window_extent(renderer(figure))
        sizes.append((extent.width, extent.height))
        probe.remove()
    return sizes
