"""Labels of the longest ops of a roofline, with lines to their points."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roofcast.hwdb.errors import number_of
from roofcast.reports.format import percent, short_names
from roofcast.reports.pictures.labels import nearest_on, place
from roofcast.reports.pictures.roofline_labels import text_sizes
from roofcast.reports.pictures.style import INK, MARKS, NAMED, SMALL, colour_of, halo
from roofcast.simulator.forecast.result import Forecast, Point

TOGETHER = 6  # points whose centres are nearer than that share a label [px]


def boxes(markers: Sequence[np.ndarray]) -> np.ndarray:
    """The squares that markers cover [px, n x 4]."""
    every = np.vstack(markers)
    return np.column_stack([every[:, :2] - every[:, 2:3], every[:, :2] + every[:, 2:3]])


def name_points(
    figure: Figure,
    axes: Axes,
    forecasts: Sequence[Forecast],
    shown: Sequence[Sequence[Point]],
    markers: Sequence[np.ndarray],
    fixed: np.ndarray,
    lines: np.ndarray,
) -> None:
    """Name the longest ops, clear of everything else; ops whose points coincide share a label.

    markers: of each forecast's points; fixed: boxes already covered [px, n x 4]; lines: points
    along the roofs [px, n x 2].
    """
    each_one = NAMED if len(forecasts) == 1 else max(NAMED // len(forecasts) - 1, 1)
    named: list[_Group] = []
    colours: list[str] = []
    for i, each in enumerate(zip(forecasts, shown, markers, strict=True)):
        largest = sorted(_groups(*each), key=lambda group: -group.share)[:each_one]
        named += largest
        colours += [colour_of(i) if len(forecasts) > 1 else INK] * len(largest)
    sizes = np.array(text_sizes(figure, [group.text for group in named])).reshape(-1, 2) + (6, 5)
    box = axes.get_window_extent()
    room = np.array([box.x0 + 4, box.y0 + 4, box.x1 - 4, box.y1 - 4])
    anchors = np.array([group.centre for group in named])
    radii = [group.radius for group in named]
    centres = place(anchors, radii, sizes, fixed, boxes(markers), room, lines)
    for group, colour, size, centre in zip(named, colours, sizes, centres, strict=True):
        if centre is not None:
            _label(axes, group, colour, size, centre)


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """Points at one place, which share a label."""

    share: float  # of the step
    text: str
    centre: tuple[float, float]  # [px]
    radius: float
    reach: float  # from the centre to the end of the leader line [px]


def _label(axes: Axes, group: _Group, colour: str, size: np.ndarray, centre: np.ndarray) -> None:
    """Draw a label and its leader line."""
    anchor = np.array(group.centre)
    end = nearest_on(np.array([*(centre - size / 2), *(centre + size / 2)]), anchor)
    edge = anchor + (end - anchor) * min(group.reach / max(np.hypot(*(end - anchor)), 1), 1)
    axes.annotate(
        "",
        xy=tuple(edge),
        xytext=tuple(end),
        xycoords="figure pixels",
        textcoords="figure pixels",
        zorder=6,
        arrowprops=dict(arrowstyle="-", color=colour, linewidth=0.8, shrinkA=0, shrinkB=0),
    )
    label = axes.annotate(
        group.text,
        xy=tuple(centre),
        xycoords="figure pixels",
        fontsize=SMALL,
        color=colour,
        ha="center",
        va="center",
        zorder=7,
        linespacing=1.1,
    )
    halo(label)
    label.set_gid("op")


def _groups(forecast: Forecast, points: Sequence[Point], markers: np.ndarray) -> list[_Group]:
    """Points by place: those near the longest one share its label; the optimizer stays alone."""
    left = list(range(len(points)))
    short = short_names(sorted({point.name for point in points}))
    groups = []
    while left:
        first = left[0]
        update = points[first].phase == "update"
        near = [
            i
            for i in left
            if np.hypot(*(markers[i, :2] - markers[first, :2])) < TOGETHER
            and (points[i].phase == "update") == update
        ]
        left = [i for i in left if i not in near]
        names = [] if update else list(dict.fromkeys(short[points[i].name] for i in near))
        phases: dict[str, float] = {}
        for i in near:
            share = points[i].time_s / forecast.step_time_s
            phases[points[i].phase] = phases.get(points[i].phase, 0.0) + share
        known = [phase for phase in MARKS if phase in phases]
        shares = ", ".join(f"{MARKS[phase].text} {percent(phases[phase])}" for phase in known)
        groups.append(
            _Group(
                share=sum(phases.values()),
                text=f"{_join(names)}\n{shares}" if names else shares,
                centre=(float(markers[first, 0]), float(markers[first, 1])),
                radius=float(markers[near, 2].max()),
                reach=float(markers[first, 3]),
            )
        )
    return groups


def _join(names: Sequence[str]) -> str:
    """Several names as one label.

    >>> _join(["mlp.gate_proj", "mlp.up_proj"]), _join(["a", "b", "c", "d"])
    ('mlp.gate_proj and up_proj', 'a and 3 others')
    """
    if len(names) == 2 and names[0].rpartition(".")[0] == names[1].rpartition(".")[0]:
        return f"{names[0]} and {names[1].rpartition('.')[2]}"
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {number_of(len(names) - 1, 'other')}"
