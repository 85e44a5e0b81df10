"""The roofline of a measured machine: its measured roofs, and every measured kernel as a point
under them [williams2009].

x: FLOPs over cache lines filled (bytes read, and freshly written); y: FLOP/s. A kernel whose set
lies in a cache may stand above the roof of main memory, never above that of its cache by more than
the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from roofcast.hwdb.records import Device
from roofcast.reports.format import percent
from roofcast.reports.pictures.roofline import frame, roof_words, roofs
from roofcast.reports.pictures.roofline_labels import (
    boxes,
    margin_labels,
    ridge_labels,
    slope_labels,
)
from roofcast.reports.pictures.roofs import machine
from roofcast.reports.pictures.style import DEVICES, FAINT, INK
from roofcast.simulator.forecast.result import Point
from roofcast.simulator.machine.crosscheck.steps import Ran
from roofcast.simulator.machine.sampling import AGREE

SIZE, REACH = 26.0, 4.0  # of a marker: points squared, and pixels that labels keep off
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
KINDS = {  # what the picture tells apart, and the classes of kernels in each
    "products and attention": ("gemm", "attention"),
    "convolutions": ("conv", "conv_direct"),
    "norms and softmax": ("norm", "batch_norm", "softmax"),
    "elementwise, GELU, LSTM cell": ("elementwise", "gelu", "lstm"),
    "optimizers": ("optimizer",),
    "pooling, sums, scatter": ("pool", "reduce", "gather"),
    "the ceilings themselves": ("fma", "stream", "special"),
}


def draw(device: Device, rows: Sequence[Ran], where: str, words: str) -> Figure:
    """The picture; `where` and `words` are told under the title."""
    from roofcast.simulator.machine.crosscheck.kernels import work_of
    from roofcast.simulator.machine.kernels.registry import KERNELS

    drawn: dict[str, list[Point]] = {kind: [] for kind in KINDS}
    for row in rows:
        _, work = work_of(f"{row.op}:{row.size}")
        kind = next((kind for kind, ops in KINDS.items() if KERNELS[row.op].op in ops), None)
        if kind and work.flops > 0 and work.read + work.fresh > 0:
            drawn[kind].append(
                Point(
                    name=row.op,
                    op=row.op,
                    phase="forward",
                    unit="vector",
                    precision="fp32",
                    flops=work.flops,
                    bytes=work.read + work.fresh,
                    time_s=row.measured_s,
                )  # fmt: skip
            )
    shown = [points for points in drawn.values() if points]
    held = machine(device, training=False)
    with matplotlib.rc_context(
        {
            "font.size": 10.5,
            "font.family": "DejaVu Sans",
            "svg.fonttype": "none",
            "pdf.fonttype": 42,
        }
    ):
        figure = Figure(figsize=(11, 7), dpi=130)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.085, 0.675, 0.755))
        frame(axes, shown, [held])
        axes.set_xlabel("arithmetic intensity  [FLOP / byte read or freshly written]", labelpad=5)
        roofs(axes, held, 0, False)
        markers = []
        for number, points in enumerate(drawn.values()):
            for p in points:
                x, y = p.flops / p.bytes, p.flops / p.time_s
                axes.scatter(
                    [x],
                    [y],
                    s=SIZE,
                    marker=SHAPES[number],
                    facecolor=_colour(number),
                    edgecolor="white",
                    linewidth=0.5,
                    zorder=4,
                )
                markers.append((*axes.transData.transform((x, y)), REACH, REACH))
        figure.text(
            0.075,
            0.955,
            f"Measured kernels on {device.name}",
            fontsize=15,
            fontweight="bold",
            color=INK,
            va="center",
        )
        figure.text(0.075, 0.918, f"{where}; {words}", fontsize=10.5, color="#444444", va="center")
        hidden = len(rows) - sum(map(len, shown))
        legend = _legend(figure, drawn, held, hidden)
        margin_labels(figure, axes, [held], False, legend)
        slope_labels(figure, axes, [held], False, boxes([np.array(markers).reshape(-1, 4)]))
        ridge_labels(figure, axes, [held], False)
    return figure


def told(over: list[tuple[Ran, float]], count: int) -> str:
    """What of the kernels lies above the measured roofs. Noise: their own, or the tenth by which
    two calibrations may differ.

    >>> told([], 200)
    'none of 200 kernels lies above its roof'
    """
    if not over:
        return f"none of {count} kernels lies above its roof"
    row, most = over[0]
    beyond = sum(share > max(each.noise, AGREE) for each, share in over)
    return (
        f"{len(over)} of {count} kernels lie above their roof, {row.op} {row.size} by"
        f" {percent(most)}; {beyond} by more than noise"
    )


def _colour(number: int) -> str:
    """Of a kind; the ceilings are grey."""
    return (*DEVICES, FAINT)[number]


def _legend(figure, drawn: dict[str, list[Point]], held, hidden: int):
    """The key, in the margin under the roof labels."""
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=SHAPES[i],
            markersize=6,
            markerfacecolor=_colour(i),
            markeredgecolor="white",
        )
        for i, points in enumerate(drawn.values())
        if points
    ]
    texts = [kind for kind, points in drawn.items() if points]
    handles.append(Line2D([], [], color=INK, linewidth=2.0))
    texts.append(roof_words([held]))
    if any(roof.achieved for roof in held.roofs):
        handles.append(Line2D([], [], color=INK, linewidth=1.3, linestyle=(0, (2, 2))))
        texts.append("roof, as libraries reach it")
    if hidden:
        handles.append(Line2D([], [], linestyle="none"))
        texts.append(f"not drawn: {hidden} kernels\nwithout FLOPs")
    return figure.legend(
        handles,
        texts,
        loc="lower left",
        bbox_to_anchor=(0.765, 0.075),
        frameon=False,
        fontsize=9.5,
        labelspacing=0.75,
        borderpad=0,
    )
