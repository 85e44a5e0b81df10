"""Errors of published runs: forecast over measured time of every run, by source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roofcast.hwdb.errors import BadInput
from roofcast.reports.pictures.style import BLUE, FAINT, INK, SMALL, VERMILLION, bare, new, write
from roofcast.reports.tables.validation import Checked
from roofcast.scenarios.measured.scores import Scored

FURTHEST = 3.0  # a run further off than this factor is drawn at the edge, with its number
TICKS = (0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
NAME = 44  # characters of a source's name
SEED = 0  # of the places of the points across a line


def ratios(checked: Iterable[Checked | Scored]) -> dict[str, list[float]]:
    """Forecast over measured time of each run by source, the source of the smallest spread first.

    The spread is the median distance from 1 on a logarithmic scale.
    """
    found: dict[str, list[float]] = {}
    for c in checked:
        if c.error is not None:
            found.setdefault(c.run.source or "no source given", []).append(1.0 + c.error)
    return dict(sorted(found.items(), key=lambda each: _spread(each[1])))


def _spread(values: Sequence[float]) -> float:
    return float(np.median(np.abs(np.log(values))))


def draw(checked: Iterable[Checked | Scored], path: str) -> None:
    """Write a picture with a line per source: a point per run, the median, and where 80 % of the
    runs lie. Raises BadInput if no run could be forecast.
    """
    by_source = ratios(checked)
    if not by_source:
        raise BadInput("--plot: no run has a forecast; nothing to draw")
    write(path, lambda: _figure(by_source))


def _figure(by_source: Mapping[str, Sequence[float]]) -> Figure:
    """A line per source from below, and one for all runs at the top."""
    lines = [*list(by_source.items())[::-1], ("all runs", np.concatenate([*by_source.values()]))]
    figure = new(9.0, 1.8 + 0.27 * len(lines))
    axes = figure.add_subplot()
    axes.axvspan(0.9, 1.1, color="grey", alpha=0.2, lw=0, label="within 10 %")
    axes.axvline(1.0, color=INK, lw=0.8)
    noise = np.random.default_rng(SEED)
    for y, (_, values) in enumerate(lines):
        _line(axes, y, np.asarray(values), noise)
    axes.set(xscale="log", xlim=(1 / FURTHEST / 1.12, FURTHEST * 1.12), ylim=(-0.7, len(lines)))
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], fontsize=SMALL - 1.5)
    axes.minorticks_off()
    names = [f"{name[:NAME]} ({len(values):,})" for name, values in lines]
    axes.set_yticks(range(len(lines)), names, fontsize=SMALL)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    bare(axes, "x")
    axes.set_xlabel("forecast / measured step time   (below 1: the forecast is too short)")
    figure.legend(loc="outside upper center", ncols=4, fontsize=SMALL, frameon=False)
    return figure


def _line(axes: Axes, y: int, values: np.ndarray, noise: np.random.Generator) -> None:
    """The runs of a source as points, their median and the range of 80 % of them."""
    label = {True: lambda text: text, False: lambda text: None}[y == 0]
    shown = np.clip(values, 1 / FURTHEST, FURTHEST)
    across = y + noise.uniform(-0.22, 0.22, len(shown))
    axes.plot(shown, across, ".", color=BLUE, ms=3.5, alpha=0.35, mew=0, label=label("a run"))
    low, middle, high = np.clip(np.quantile(values, (0.1, 0.5, 0.9)), 1 / FURTHEST, FURTHEST)
    axes.plot([low, high], [y, y], color=FAINT, lw=2.2, alpha=0.9, label=label("80 % of the runs"))
    axes.plot([middle], [y], "|", color=VERMILLION, ms=10, mew=2.2, label=label("median"))
    for number, x, where in (
        ((values < 1 / FURTHEST).sum(), 1 / FURTHEST / 1.09, "left"),
        ((values > FURTHEST).sum(), FURTHEST * 1.03, "left"),
    ):
        if number:
            axes.text(x, y, f"{number}", fontsize=SMALL - 1.5, va="center", ha=where, color=BLUE)
