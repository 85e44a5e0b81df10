"""How many devices every mark of a front of choices stands for, beside the mark."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roofcast.hwdb.tuples import NamedTuple
from roofcast.reports.pictures.labels import overlap
from roofcast.reports.pictures.roofline_labels import text_sizes
from roofcast.reports.pictures.style import SMALL, halo

MARK = 5.0  # half of the width of a mark [px]
SPACE = (4.0, 2.0)  # around a label [px]
POINTS = 72.0  # per inch
GAPS = (1.0, 8.0, 16.0, 26.0, 38.0, 52.0, 70.0, 90.0)  # between a mark and its label [px]
SIDES = ((0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0))
LEADER = 14.0  # distance from a mark from which a line leads to its label [px]


class Mark(NamedTuple):
    """A mark in the picture."""

    at: tuple[float, float]  # in data
    text: str
    colour: str
    kind: str  # of device


def label_marks(figure: Figure, axes: Axes, marks: Sequence[Mark]) -> list[Mark]:
    """Write the text of every mark beside it, clear of other texts; those without a free place."""
    figure.draw_without_rendering()
    anchors = axes.transData.transform(np.array([m.at for m in marks], dtype=float))
    boxes = np.column_stack([anchors - MARK, anchors + MARK])
    sizes = np.array(text_sizes(figure, [m.text for m in marks])).reshape(-1, 2) + SPACE
    box = axes.get_window_extent()
    room = np.array([box.x0, box.y0, box.x1, box.y1])
    centres = _places(anchors, sizes, boxes, room)
    left = []
    for mark, anchor, size, centre in zip(marks, anchors, sizes, centres, strict=True):
        if centre is None:
            left.append(mark)
            continue
        away = centre - anchor
        edge = np.maximum(np.abs(away) - size / 2, 0.0)  # the nearest point of the label
        far = float(np.hypot(*edge)) > LEADER
        text = axes.annotate(
            mark.text,
            mark.at,
            tuple(away * POINTS / figure.dpi),
            textcoords="offset points",
            fontsize=SMALL,
            color=mark.colour,
            ha="center",
            va="center",
            zorder=5,
            arrowprops=dict(arrowstyle="-", color=mark.colour, lw=0.6, alpha=0.7, shrinkA=1)
            if far
            else None,
        )
        halo(text)
        text.set_gid("count")
    return left


def _places(
    anchors: np.ndarray, sizes: np.ndarray, boxes: np.ndarray, room: np.ndarray
) -> list[np.ndarray | None]:
    """A centre for each label on the nearest ring about its mark where it covers no mark and no
    label before it; None where there is no such place. All in pixels.
    """
    taken = boxes
    found: list[np.ndarray | None] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        found.append(None)
        for gap, (across, up) in itertools.product(GAPS, SIDES):
            side = np.array([across, up])
            centre = anchor + side * (MARK + gap + size / 2)
            box = np.array([*(centre - size / 2), *(centre + size / 2)])
            inside = (box[:2] >= room[:2]).all() and (box[2:] <= room[2:]).all()
            if inside and not overlap(box, taken).any():
                found[-1], taken = centre, np.vstack([taken, box])
                break
    return found
