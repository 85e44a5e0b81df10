"""Predicted against measured time of this machine's kernels and training steps, on log axes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from roofcast.reports.format import seconds
from roofcast.reports.pictures.style import DEVICES, INK, SMALL, TITLE, new, write
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.steps import Ran, Trained


def draw(name: str, kernels: list[Ran], trained: list[Trained], path: str) -> None:
    """Write a picture with a panel for kernels and one for training steps, if there are any.

    Bars are the noise; the band is 25 % either way.
    """
    panels: list[tuple[str, Sequence[Ran | Trained]]] = []
    if kernels:
        panels.append((f"{len(kernels)} kernels", kernels))
    if trained:
        panels.append((f"{len(trained)} training steps", trained))
    write(path, lambda: _figure(name, panels))


def _figure(name: str, panels: Sequence[tuple[str, Sequence[Ran | Trained]]]) -> Figure:
    figure = new(6.2 * len(panels), 5.8)
    all_axes = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, rows) in zip(all_axes[0], panels, strict=True):
        _panel(axes, title, rows)
        trained = [row for row in rows if isinstance(row, Trained)]
        if trained:
            _nets(axes, trained)
        else:
            _points(axes, rows, DEVICES[0], "kernels")
    figure.suptitle(name, fontsize=TITLE)
    return figure


def _panel(axes: Axes, title: str, rows: Sequence[Ran | Trained]) -> None:
    """Diagonal, band, limits, titles and ticks."""
    low, high = 0.7 * min(r.measured_s for r in rows), 1.6 * max(r.measured_s for r in rows)
    axes.plot([low, high], [low, high], color=INK, lw=0.8)
    band = ([0.75 * low, 0.75 * high], [1.25 * low, 1.25 * high])
    axes.fill_between([low, high], *band, color="grey", alpha=0.2, lw=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set(title=f"{title}, within 25 % in grey", xlabel="measured", ylabel="predicted")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axis.set_minor_formatter(NullFormatter())


def _nets(axes: Axes, rows: Sequence[Trained]) -> None:
    """Points of training steps, a colour per engine, with names left and right in turn."""
    for colour, by in zip(DEVICES, ("torch", "numba"), strict=False):
        mine = [r for r in rows if r.net.by == by]
        if mine:
            _points(axes, mine, colour, by)
    for i, r in enumerate(sorted(rows, key=lambda r: r.measured_s)):
        right = bool(i % 2)
        axes.annotate(
            measure.key(r.net).removesuffix(" torch"),
            (r.measured_s, r.predicted_s),
            xytext=(5 if right else -5, -3),
            ha="left" if right else "right",
            textcoords="offset points",
            fontsize=SMALL - 1.5,
        )
    axes.legend(loc="upper left", fontsize=SMALL)


def _points(axes: Axes, rows: Sequence[Ran | Trained], colour: str, label: str) -> None:
    """Points with their noise as horizontal bars."""
    axes.errorbar(
        [r.measured_s for r in rows],
        [r.predicted_s for r in rows],
        xerr=[0.5 * r.noise * r.measured_s for r in rows],
        fmt="o",
        ms=4,
        mew=0,
        alpha=0.7,
        lw=0.8,
        color=colour,
        label=label,
    )
