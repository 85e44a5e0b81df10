"""Memory of a step: through the backward pass of one device, by pipeline stage, or of several
devices side by side, by kind against the capacity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from roofcast.reports.format import binary
from roofcast.reports.pages.asked import what
from roofcast.reports.pages.layout import on_what
from roofcast.reports.pages.memory import kinds, verdict
from roofcast.reports.pictures.style import INK, KINDS, SMALL, TITLE, bare, halo, new
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.memory import Held

FIELDS = {  # of a moment, by kind
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer states": "optimizer",
    "framework": "framework",
    "activations": "activations",
    "transient": "transient",
}
RANK = {  # of a rank, by kind; its buffers are part of what is transient
    "parameters": "parameters_bytes",
    "gradients": "gradients_bytes",
    "optimizer states": "optimizer_bytes",
    "activations": "activations_bytes",
    "communication buffers": "buffers_bytes",
    "transient": "transient_bytes",
    "framework": "framework_bytes",
}
FAR = 4.0  # times the peak: a capacity from there on is not drawn
LABELS = 16  # moments that are named
ROOM = 0.12  # above the highest bar, as a share of it


def draw(forecasts: Sequence[Forecast], moments: Sequence[Held] = ()) -> Figure:
    """The picture of a forecast, or of several. moments: of a single one on one device."""
    first = forecasts[0]
    alone = len(forecasts) == 1
    figure = new(10.5, 5.2)
    axes = figure.add_subplot()
    if alone and len(moments) > 1:
        used = _moments(axes, moments)
    elif alone and len(first.ranks) > 1:
        used = _stages(axes, first)
    else:
        used = _devices(axes, forecasts)
    _frame(axes, forecasts)
    handles = [KINDS[name] for name in used]
    patches = [axes.bar([0], [0], color=c, hatch=h, edgecolor="white", lw=0) for c, h in handles]
    labels = ["framework, allocator" if name == "framework" else name for name in used]
    axes.legend(patches[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0),
                frameon=False, fontsize=SMALL)  # fmt: skip
    names = ", ".join(dict.fromkeys(f.model for f in forecasts))
    title = f"memory of {names}"
    if alone:
        title = f"{names} on {on_what(first)}: {verdict(first).split(' (')[0].split(';')[0]}"
        axes.set_title(what(first), loc="left", fontsize=SMALL)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE)
    return figure


def stacked(axes: Axes, y: float, parts: Sequence[tuple[str, str, float]], thick: float) -> None:
    """A horizontal bar of parts: colour, hatch, length."""
    left = 0.0
    for colour, hatch, length in parts:
        if length > 0:
            axes.barh(y, length, thick, left, color=colour, hatch=hatch, edgecolor="white", lw=0)
            left += length


def _moments(axes: Axes, moments: Sequence[Held]) -> list[str]:
    """Bands over the moments of the backward pass; the peak is marked."""
    x = np.arange(len(moments) + 1)
    base = np.zeros(len(moments))
    used: list[str] = []
    for kind, field in FIELDS.items():
        height = np.array([getattr(moment, field) for moment in moments])
        if not height.any():
            continue
        colour, hatch = KINDS[kind]
        top = base + height
        axes.fill_between(x, np.append(base, base[-1]), np.append(top, top[-1]), step="post",
                          facecolor=colour, hatch=hatch, edgecolor="white", lw=0)  # fmt: skip
        base, used = top, [*used, kind]
    peak = int(base.argmax())
    axes.plot([peak + 0.5], [base[peak]], "v", color=INK, ms=7, zorder=5, clip_on=False)
    side = "left" if peak < len(moments) / 2 else "right"
    halo(
        axes.annotate(f"peak {binary(base[peak])}", (peak + 0.5, base[peak]),
                      (8 if side == "left" else -8, -14), textcoords="offset points", ha=side,
                      fontsize=SMALL, fontweight="bold")
    )  # fmt: skip
    axes.set_xlim(0, len(moments))
    each = -(-len(moments) // LABELS)
    names = [
        moment.moment.replace("the backward of ", "").removeprefix("backward of ")
        for moment in moments
    ]
    axes.set_xticks(x[:-1:each] + 0.5, names[::each], rotation=20, ha="right", fontsize=SMALL)
    axes.set_xlabel("the backward pass, from the last layer to the first, then the update")
    return used


def _stages(axes: Axes, f: Forecast) -> list[str]:
    """A bar per pipeline stage."""
    base = np.zeros(len(f.ranks))
    used: list[str] = []
    for kind, field in RANK.items():
        height = np.array([getattr(rank, field) for rank in f.ranks])
        if kind == "transient":
            height = height - [rank.buffers_bytes for rank in f.ranks]
        if height.max() > 0:
            _bars(axes, kind, height, base)
            base, used = base + height, [*used, kind]
    axes.set_xticks(range(len(f.ranks)), [str(rank.stage + 1) for rank in f.ranks])
    axes.xaxis.set_major_locator(MultipleLocator(max(len(f.ranks) // 16, 1), offset=0))
    axes.set_xlabel("pipeline stage")
    return used


def _devices(axes: Axes, forecasts: Sequence[Forecast]) -> list[str]:
    """A bar per forecast."""
    held = [dict(kinds(f)) for f in forecasts]
    base = np.zeros(len(held))
    used = [kind for kind in KINDS if any(kind in each for each in held)]
    for kind in used:
        height = np.array([each.get(kind, 0.0) for each in held])
        _bars(axes, kind, height, base)
        base = base + height
    for x, f in enumerate(forecasts):
        axes.annotate(binary(f.memory.peak_bytes), (x, f.memory.peak_bytes), (0, 4), ha="center",
                      textcoords="offset points", fontsize=SMALL, fontweight="bold")  # fmt: skip
    axes.set_xticks(range(len(held)), [on_what(f).replace(" with ", "\nwith ") for f in forecasts])
    return used


def _bars(axes: Axes, kind: str, height: np.ndarray, base: np.ndarray) -> None:
    colour, hatch = KINDS[kind]
    wide = min(0.7, 0.15 * len(height) + 0.1)
    axes.bar(range(len(height)), height, wide, base, color=colour, hatch=hatch, edgecolor="white",
             lw=0)  # fmt: skip


def _frame(axes: Axes, forecasts: Sequence[Forecast]) -> None:
    """The scale in powers of two, and the capacity as a line, of every device that has one."""
    capacities = [f.memory.capacity_bytes for f in forecasts]
    most = max(f.memory.peak_bytes for f in forecasts)
    if len(forecasts) == 1 and (capacities[0] or 0.0) > FAR * most:
        capacities = [None]  # the title says it
    end = (1 + ROOM) * max(most, *(c or 0.0 for c in capacities))
    alone = len(forecasts) == 1
    for x, capacity in enumerate(capacities):
        if capacity and alone:
            axes.axhline(capacity, color=INK, lw=1.8, ls=(0, (6, 3)))
            axes.annotate(f"capacity {binary(capacity)}", (1, capacity), (-4, 4), ha="right",
                          xycoords=("axes fraction", "data"), textcoords="offset points",
                          fontsize=SMALL)  # fmt: skip
        elif capacity:
            axes.plot([x - 0.42, x + 0.42], [capacity] * 2, color=INK, lw=1.8, ls=(0, (6, 3)))
            axes.annotate(f"capacity {binary(capacity)}", (x, capacity), (0, 4), ha="center",
                          textcoords="offset points", fontsize=SMALL)  # fmt: skip
    axes.set_ylim(0, end)
    in_bytes(axes.yaxis, end)
    bare(axes, "y")


def in_bytes(axis: Axis, end: float) -> None:
    """Ticks at multiples of a power of two, up to `end` [bytes]."""
    axis.set_major_locator(MultipleLocator(2.0 ** np.ceil(np.log2(end / 6))))
    axis.set_major_formatter(lambda value, _: binary(value).replace(".0 ", " ") if value else "0")
