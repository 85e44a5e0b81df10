"""The roofline of a measured machine: its measured roofs, and measured kernels as points
[williams2009].

x: FLOPs over cache lines filled (bytes read, and freshly written); y: FLOP/s. A kernel whose
working set lies in a cache may stand above the roof of main memory, but not above that of its cache
by more than the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from roofcast.hwdb.records import Device
from roofcast.reports.format import percent
from roofcast.reports.pictures.point_labels import boxes
from roofcast.reports.pictures.roofline import frame, new_figure, roofs, titles
from roofcast.reports.pictures.roofline_labels import margin_labels, ridge_labels, slope_labels
from roofcast.reports.pictures.roofline_legend import Entry, draw_legend, nothing, roof_entries
from roofcast.reports.pictures.roofs import Machine, machine
from roofcast.reports.pictures.style import DEVICES, FAINT, fonts
from roofcast.simulator.forecast.result import Point
from roofcast.simulator.machine.crosscheck.steps import Ran
from roofcast.simulator.machine.sampling import AGREE

SIZE, REACH = 26.0, 4.0  # of a marker [points^2]; half its width, for labels to avoid [px]
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
COLOURS = (*DEVICES, FAINT)  # of the kinds; the ceilings are grey
KINDS = {  # kinds of the legend, and the classes of kernels in each
    "products and attention": ("gemm", "attention"),
    "convolutions": ("conv", "conv_direct"),
    "norms and softmax": ("norm", "batch_norm", "softmax"),
    "elementwise, GELU, LSTM cell": ("elementwise", "gelu", "lstm"),
    "optimizers": ("optimizer",),
    "pooling, sums, scatter": ("pool", "reduce", "gather"),
    "ceilings": ("fma", "stream", "special"),
}


def draw(device: Device, rows: Sequence[Ran], where: str, words: str) -> Figure:
    """Draw measured kernels of a device; `where` and `words` are the line below the title."""
    drawn = _by_kind(rows)
    shown = [points for points in drawn.values() if points]
    held = machine(device, training=False)
    with fonts():
        figure, axes = new_figure()
        frame(axes, shown, [held])
        axes.set_xlabel("arithmetic intensity  [FLOP / byte read or freshly written]", labelpad=5)
        roofs(axes, held, 0, False)
        markers = _draw_points(axes, drawn)
        titles(figure, f"Measured kernels on {device.name}", f"{where}; {words}")
        legend = _legend(figure, drawn, held, len(rows) - sum(map(len, shown)))
        margin_labels(figure, axes, [held], False, legend)
        slope_labels(figure, axes, [held], False, boxes([markers]))
        ridge_labels(figure, axes, [held], False)
    return figure


def above_roof(over: list[tuple[Ran, float]], count: int) -> str:
    """How many of `count` kernels lie above the measured roofs, and by how much.

    over: those kernels with the share by which they exceed their roof, largest first. The noise is
    the kernel's own, at least the tenth by which two calibrations may differ.

    >>> above_roof([], 200)
    'none of 200 kernels is above its roof'
    """
    if not over:
        return f"none of {count} kernels is above its roof"
    row, most = over[0]
    beyond = sum(share > max(each.noise, AGREE) for each, share in over)
    return (
        f"{len(over)} of {count} kernels are above their roof, {beyond} by more than the noise;"
        f" largest excess: {percent(most)} ({row.op} {row.size})"
    )


def _by_kind(rows: Sequence[Ran]) -> dict[str, list[Point]]:
    """The kernels that have FLOPs and bytes as points, by kind."""
    from roofcast.simulator.machine.crosscheck.kernels import work_of
    from roofcast.simulator.machine.kernels.registry import KERNELS

    drawn: dict[str, list[Point]] = {kind: [] for kind in KINDS}
    for row in rows:
        _, work = work_of(f"{row.op}:{row.size}")
        kind = next((kind for kind, ops in KINDS.items() if KERNELS[row.op].op in ops), None)
        moved = work.read + work.fresh
        if kind and work.flops > 0 and moved > 0:
            drawn[kind].append(
                Point(
                    name=row.op,
                    op=row.op,
                    phase="forward",
                    unit="vector",
                    precision="fp32",
                    flops=work.flops,
                    bytes=moved,
                    time_s=row.measured_s,
                )
            )
    return drawn


def _draw_points(axes: Axes, drawn: dict[str, list[Point]]) -> np.ndarray:
    """Draw the points, a shape and colour per kind; markers as `draw_points` returns them."""
    markers = []
    for shape, colour, points in zip(SHAPES, COLOURS, drawn.values(), strict=True):
        for p in points:
            x, y = p.flops / p.bytes, p.flops / p.time_s
            axes.scatter(
                [x],
                [y],
                s=SIZE,
                marker=shape,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.5,
                zorder=4,
            )
            markers.append((*axes.transData.transform((x, y)), REACH, REACH))
    return np.array(markers).reshape(-1, 4)


def _legend(figure: Figure, drawn: dict[str, list[Point]], held: Machine, hidden: int) -> Legend:
    """Draw the legend: kinds, roofs, and the number of kernels not drawn."""
    entries: list[Entry] = []
    for shape, colour, (kind, points) in zip(SHAPES, COLOURS, drawn.items(), strict=True):
        if points:
            handle = Line2D(
                [],
                [],
                linestyle="none",
                marker=shape,
                markersize=6,
                markerfacecolor=colour,
                markeredgecolor="white",
            )
            entries.append((handle, kind))
    entries += roof_entries([held], "roof (achieved by libraries)")
    if hidden:
        entries.append(nothing(f"not drawn: {hidden} kernels\nwithout FLOPs"))
    return draw_legend(figure, entries, labelspacing=0.75)
