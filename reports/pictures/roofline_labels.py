"""The words in a roofline picture: names of roofs, ridge points and ops, none over another."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from roofcast.reports.format import digits, percent, short_names, si
from roofcast.reports.pictures.labels import nearest_on, overlap, place, spread
from roofcast.reports.pictures.roofs import ridge
from roofcast.reports.pictures.style import INK, MARKS, NAMED, colour_of, halo
from roofcast.simulator.forecast.result import Forecast, Point


def margin_labels(figure, axes, machines, overlay: bool, legend) -> None:
    """Name each compute roof in the right margin, beside its end; leaders where labels had to
    move.
    """
    roofs = [(roof, i) for i, machine in enumerate(machines) for roof in machine.compute]
    box = axes.get_window_extent()
    floor = legend.get_window_extent(figure.canvas.get_renderer()).y1 + 12
    height = 9.5 * figure.dpi / 72 * 1.25
    wanted = [axes.transData.transform((1, roof.printed))[1] for roof, _ in roofs]
    placed = spread(wanted, [height * (2 if overlay else 1)] * len(roofs), floor, box.y1 + 30)
    for (roof, i), line, y in zip(roofs, wanted, placed, strict=True):
        colour = colour_of(i) if overlay else INK
        text = f"{roof.label}  {si(roof.printed, 'FLOP/s')}"
        if overlay:
            text = f"{machines[i].name}\n{text}"
        axes.annotate(
            text,
            xy=(box.x1, line),
            xytext=(box.x1 + 24, y),
            xycoords="figure pixels",
            textcoords="figure pixels",
            fontsize=9.5,
            color=colour,
            va="center",
            ha="left",
            annotation_clip=False,
            arrowprops=dict(
                arrowstyle="-", color=colour, linewidth=0.7, shrinkA=1, shrinkB=0, relpos=(0, 0.5)
            ),
        )


def boxes(markers: Sequence[np.ndarray]) -> np.ndarray:
    """The squares that markers cover, in pixels [n, 4]."""
    every = np.vstack(markers)
    return np.column_stack([every[:, :2] - every[:, 2:3], every[:, :2] + every[:, 2:3]])


def slope_labels(figure, axes, machines, overlay: bool, markers: np.ndarray) -> np.ndarray:
    """Name each memory roof above its line, in its slope, at the first free place from the left;
    gives the boxes covered [px].
    """
    (left, _), (floor, _) = axes.get_xlim(), axes.get_ylim()
    renderer = figure.canvas.get_renderer()
    run, rise = np.subtract(*axes.transData.transform([(10, 10), (1, 1)]))
    along = np.array([run, rise]) / np.hypot(run, rise)
    above = np.array([-along[1], along[0]])
    ridges = [
        (ridge(roof, machine.memory[-1]), roof.printed)
        for machine in machines
        for roof in machine.compute
    ]
    corners = axes.transData.transform(ridges)
    taken = np.hstack([corners - 8, corners + 8])  # of ridge points and labels
    for i, machine in enumerate(machines):
        for roof in machine.memory:
            name = f"{machine.name}  {roof.label}" if overlay else roof.label
            text = figure.text(
                0,
                0,
                f"{name}  {si(roof.printed, 'B/s')}",
                fontsize=9.5,
                color=colour_of(i) if overlay else INK,
            )
            text.set(rotation_mode="anchor", ha="left", va="bottom")
            width, height = text.get_window_extent(renderer).size
            begin = max(left, floor / roof.printed)
            start, end = axes.transData.transform(
                [
                    (begin, roof.printed * begin),
                    (machine.compute[0].printed / roof.printed, machine.compute[0].printed),
                ]
            )
            best, least, boxes_of_best = start, np.inf, None
            for offset in np.arange(24, max(np.hypot(*(end - start)) - width - 8, 25), 12):
                at = start + offset * along + 3 * above
                middles = at + np.linspace(0, width, 12)[:, None] * along + height / 2 * above
                covered = np.hstack([middles - height * 0.7, middles + height * 0.7])
                hit = sum(overlap(each, np.vstack([markers, taken])).sum() for each in covered)
                if hit < least:
                    best, least, boxes_of_best = at, hit, covered
                if hit == 0:
                    break
            text.set(
                position=figure.transFigure.inverted().transform(best),
                rotation=float(np.degrees(np.arctan2(rise, run))),
            )
            halo(text)
            taken = np.vstack([taken, boxes_of_best])
    return taken


def ridge_labels(figure, axes, machines, overlay: bool) -> None:
    """Write the intensity of each ridge point on the top edge, above its dotted line."""
    marks = [
        (ridge(roof, machine.memory[-1]), i)
        for i, machine in enumerate(machines)
        for roof in machine.compute
    ]
    marks.sort()
    renderer = figure.canvas.get_renderer()
    box = axes.get_window_extent()
    probes = [figure.text(0, 0, digits(at), fontsize=9.5) for at, _ in marks]
    widths = [probe.get_window_extent(renderer).width + 12 for probe in probes]
    for probe in probes:
        probe.remove()
    wanted = [axes.transData.transform((at, 1))[0] for at, _ in marks]
    placed = spread(wanted, widths, box.x0, box.x1)
    for (at, i), line, x in zip(marks, wanted, placed, strict=True):
        colour = colour_of(i) if overlay else INK
        axes.annotate(
            digits(at),
            xy=(line, box.y1),
            xytext=(x, box.y1 + 16),
            xycoords="figure pixels",
            textcoords="figure pixels",
            fontsize=9.5,
            color=colour,
            ha="center",
            va="center",
            annotation_clip=False,
            arrowprops=dict(
                arrowstyle="-", color=colour, linewidth=0.8, linestyle=":", shrinkA=1, shrinkB=0
            ),
        )
    heading = figure.text(
        0,
        0,
        "ridge points of DRAM [FLOP/B]",
        fontsize=9.5,
        color="#444444",
        ha="right",
        va="center",
    )
    room = heading.get_window_extent(renderer).width
    edges = sorted((x - w / 2, x + w / 2) for x, w in zip(placed, widths, strict=True))
    # where a gap between labels starts, and where it ends
    starts = [box.x0 - 60, *(right for _, right in edges)]
    ends = [*(left for left, _ in edges), box.x1 + 400]
    end = next(end for start, end in zip(starts, ends, strict=True) if end - start > room + 8)
    at = end - 6 if end < box.x1 + 400 else starts[-1] + room + 6
    heading.set_position(figure.transFigure.inverted().transform((at, box.y1 + 16)))


def name_points(
    figure, axes, forecasts, shown, markers, fixed: np.ndarray, strewn: np.ndarray
) -> None:
    """Name the ops that take longest, with leader lines, off everything else. Ops whose points
    coincide share one name.
    """
    renderer = figure.canvas.get_renderer()
    each_one = NAMED if len(forecasts) == 1 else max(NAMED // len(forecasts) - 1, 1)
    named, colours = [], []
    for i, each in enumerate(zip(forecasts, shown, markers, strict=True)):
        largest = sorted(_groups(*each), key=lambda group: -group.share)[:each_one]
        named += largest
        colours += [colour_of(i) if len(forecasts) > 1 else INK] * len(largest)
    probes = [figure.text(0, 0, group.text, fontsize=9.5, linespacing=1.1) for group in named]
    sizes = np.array(
        [
            (e.width + 6, e.height + 5)
            for e in (probe.get_window_extent(renderer) for probe in probes)
        ]
    )
    for probe in probes:
        probe.remove()
    box = axes.get_window_extent()
    anchors = np.array([group.centre for group in named])
    room = np.array([box.x0 + 4, box.y0 + 4, box.x1 - 4, box.y1 - 4])
    centres = place(
        anchors, [group.radius for group in named], sizes, fixed, boxes(markers), room, strewn
    )
    for group, colour, anchor, size, centre in zip(
        named, colours, anchors, sizes, centres, strict=True
    ):
        if centre is None:
            continue
        end = nearest_on(np.array([*(centre - size / 2), *(centre + size / 2)]), anchor)
        edge = anchor + (end - anchor) * min(group.reach / max(np.hypot(*(end - anchor)), 1), 1)
        axes.annotate(
            "",
            xy=edge,
            xytext=end,
            xycoords="figure pixels",
            textcoords="figure pixels",
            zorder=6,
            arrowprops=dict(arrowstyle="-", color=colour, linewidth=0.8, shrinkA=0, shrinkB=0),
        )
        label = axes.annotate(
            group.text,
            xy=centre,
            xycoords="figure pixels",
            fontsize=9.5,
            color=colour,
            ha="center",
            va="center",
            zorder=7,
            linespacing=1.1,
        )
        halo(label)
        label.set_gid("op")


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """Points at one place, which share a label."""

    share: float
    text: str
    centre: tuple[float, float]
    radius: float
    reach: float


def _groups(forecast: Forecast, points: list[Point], markers: np.ndarray) -> list[_Group]:
    """Points by where they stand: those whose centres are within six pixels of the largest one's
    share a label.
    """
    left = list(range(len(points)))
    short = short_names(sorted({point.name for point in points}))
    groups = []
    while left:
        first = left[0]
        near = [
            i
            for i in left
            if np.hypot(*(markers[i, :2] - markers[first, :2])) < 6
            and (points[i].phase == "update") == (points[first].phase == "update")
        ]
        left = [i for i in left if i not in near]
        names = list(
            dict.fromkeys(short[points[i].name] for i in near if points[i].phase != "update")
        )
        phases = {}
        for i in near:
            phases[points[i].phase] = (
                phases.get(points[i].phase, 0.0) + points[i].time_s / forecast.step_time_s
            )
        shares = ", ".join(
            f"{mark.text} {percent(phases[phase])}"
            for phase, mark in MARKS.items()
            if phase in phases
        )
        groups.append(
            _Group(
                share=sum(phases.values()),
                text=f"{_join(names)}\n{shares}" if names else shares,
                centre=tuple(markers[first, :2]),
                radius=float(markers[near, 2].max()),
                reach=float(markers[first, 3]),
            )
        )
    return groups


def _join(names: list[str]) -> str:
    """Several names as one label.

    >>> _join(["mlp.gate_proj", "mlp.up_proj"]), _join(["a", "b", "c", "d"])
    ('mlp.gate_proj and up_proj', 'a and 3 like it')
    """
    if len(names) == 2 and names[0].rpartition(".")[0] == names[1].rpartition(".")[0]:
        return f"{names[0]} and {names[1].rpartition('.')[2]}"
    return names[0] + (f" and {len(names) - 1} like it" if len(names) > 1 else "")
