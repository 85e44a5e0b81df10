"""A sweep drawn: the step time against one number, or as a map over two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from roofcast.hwdb.errors import BadInput
from roofcast.reports.format import seconds, si
from roofcast.reports.pictures.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    TITLE,
    VERMILLION,
    bare,
    new,
)
from roofcast.simulator.choose.axes import Axis
from roofcast.simulator.choose.sweep import PARTS
from roofcast.simulator.forecast.scenario import Scenario

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = dict(zip(PARTS, (BLUE, SKY, GREEN, PURPLE, ORANGE, FAINT, VERMILLION, GREY), strict=True))
HATCHES = dict(zip(PARTS, ("", "..", "", "xx", "//", "", "\\\\", ".."), strict=True))
WORDS = {
    "matrix": "matrix units",
    "vector": "vector units",
    "memory": "memory bandwidth",
    "latency": "latency of kernels",
    "host": "host",
    "optimizer": "optimizer",
    "network": "network",
    "waiting": "waiting (bubbles)",
}
CAP = "power.cap"  # the axis beside which joules are drawn
LEAST = 0.005  # parts below this share of every step are not in the legend
WIDE = 8.0  # ratio of the longest to the shortest step from which an axis is logarithmic
ANNOTATED = 100  # cells of a map that have room for a number


def draw(table: DataFrame, axes: Sequence[Axis], scenario: Scenario) -> Figure:
    """The picture of a sweep over one or two axes. Raises BadInput where no point can be drawn."""
    good = table[table["refused"].isna()]
    if good.empty:
        raise BadInput("--plot: no point of the sweep can be; there is nothing to draw")
    figure = new(9.0, 5.4)
    names = [axis.name for axis in axes]
    where = "" if "on" in names else f" on {scenario.device}"
    figure.suptitle(f"{scenario.model}{where}", x=0.01, ha="left", fontsize=TITLE)
    if len(axes) == 2 and len(good) > len(axes[0].values):
        _map(figure, table, axes)
    else:
        _bands(figure, good, axes)
    return figure


def _bands(figure: Figure, good: DataFrame, axes: Sequence[Axis]) -> None:
    """The step time over the points with its interval; below, what the step goes to, as shares."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    name = axes[0].name
    numbers = [_number(v) for v in good[name]] if len(axes) == 1 else [None]
    numeric = None not in numbers
    x = np.array(numbers if numeric else range(len(good)), dtype=float)
    total = good["step_time_s"].to_numpy(dtype=float)
    low, high = (good[key].to_numpy(dtype=float) for key in ("low_s", "high_s"))
    line = numeric and len(good) > 2
    if np.isfinite(low).all():
        if line:
            above.fill_between(x, low, high, color=SKY, alpha=0.4, lw=0, label="80 % interval")
        else:
            errors = np.maximum([total - low, high - total], 0.0)
            above.errorbar(x, total, errors, color=SKY, fmt="none", lw=6, label="80 % interval")
    above.plot(x, total, "o-" if line else "o", color=INK, ms=4.5, label="step time")
    if np.nanmax(total) > WIDE * np.nanmin(total):
        above.set_yscale("log")
    else:
        above.set_ylim(bottom=0)
    above.yaxis.set_major_formatter(lambda value, _: seconds(value) if value else "0")
    above.set_ylabel("time of a step")
    if name == CAP:
        _energy(above, x, good)
    _shares(below, x, good, total, line)
    if line and x.min() > 0 and x.max() / x.min() >= 8:
        below.set_xscale("log", base=2)
    labels = [_label(row, axes) for row in good.to_dict("records")]
    every = max(len(x) // 12, 1)
    turned = max(map(len, labels)) * len(labels[::every]) > 75
    below.set_xticks(x[::every], labels[::every], rotation=25 if turned else 0,
                     ha="right" if turned else "center")  # fmt: skip
    below.minorticks_off()
    below.set_xlabel(", ".join(a.name for a in axes))
    for plot in (above, below):
        bare(plot)
    figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL)


def _energy(plot: Any, x: np.ndarray, good: DataFrame) -> None:
    """Joules of the node per step beside the step time."""
    joules = good["node_step_energy_j"].to_numpy(dtype=float)
    if np.isfinite(joules).all():
        beside = plot.twinx()
        beside.plot(x, joules, "s--", color=VERMILLION, ms=4, label="energy of the node")
        beside.set_ylim(bottom=0)
        beside.yaxis.set_major_formatter(lambda value, _: si(value, "J") if value else "0")
        beside.set_ylabel("energy of the node per step")
        beside.spines["top"].set_visible(False)


def _number(value: Any) -> float | None:
    """A value as a place on an axis: a number, or a factor such as x2; None for a word."""
    text = value.removeprefix("x") if isinstance(value, str) else value
    try:
        return None if isinstance(value, bool) else float(text)
    except ValueError:
        return None


def _label(row: dict[Any, Any], axes: Sequence[Axis]) -> str:
    values = [row[axis.name] for axis in axes]
    return " ".join(f"{v:,g}" if isinstance(v, int | float) else str(v) for v in values)


def _shares(plot: Any, x: np.ndarray, good: DataFrame, total: np.ndarray, line: bool) -> None:
    """What the steps go to, as bands that fill up to 100 %."""
    base = np.zeros(len(x))
    for part in PARTS:
        height = 100 * good[f"{part}_s"].to_numpy(dtype=float) / total
        if (height < 100 * LEAST).all():
            continue
        style: dict[str, Any] = {"color": COLOURS[part], "hatch": HATCHES[part]}
        style |= {"edgecolor": "white", "linewidth": 0.5, "label": WORDS[part]}
        if line:
            plot.fill_between(x, base, base + height, **style)
        else:
            plot.bar(x, height, 0.7 * (np.diff(np.sort(x)).min() if len(x) > 1 else 1.0),
                     bottom=base, **style)  # fmt: skip
        base = base + height
    plot.set_ylim(0, 100)
    plot.set_ylabel("share of the step [%]")


def _map(figure: Figure, table: DataFrame, axes: Sequence[Axis]) -> None:
    """The step time over two axes, darker where longer; points that do not fit or cannot be are
    hatched.
    """
    plot = figure.add_subplot()
    rows, columns = axes
    shape = len(rows.values), len(columns.values)
    time = table["step_time_s"].to_numpy(dtype=float).reshape(shape)
    fits = np.array([f is True or f is None for f in table["fits"]]).reshape(shape)
    fits &= np.isfinite(time)
    spread = np.nanmax(time) > WIDE * np.nanmin(time)
    image = plot.imshow(time, cmap="viridis_r", aspect="auto", norm="log" if spread else "linear")
    for i in range(shape[0]):
        for j in range(shape[1]):
            _cell(plot, i, j, float(time[i, j]), bool(fits[i, j]), image, time.size <= ANNOTATED)
    for axis, set_ticks in ((rows, plot.set_yticks), (columns, plot.set_xticks)):
        each = max(len(axis.values) // 16, 1)
        set_ticks(range(0, len(axis.values), each), [f"{v}" for v in axis.values[::each]])
    plot.set_ylabel(rows.name)
    plot.set_xlabel(columns.name + ("" if fits.all() else "; hatched: does not fit, or cannot be"))
    bar = figure.colorbar(image, label="time of a step")
    bar.ax.yaxis.set_major_formatter(lambda value, _: seconds(value))
    bar.ax.yaxis.set_minor_formatter(lambda value, _: seconds(value))


def _cell(plot: Any, i: int, j: int, time_s: float, fits: bool, image: Any, room: bool) -> None:
    """The hatch of a cell whose point does not fit, and its time where there is room."""
    if not fits:
        style = {"hatch": "//", "facecolor": "none", "edgecolor": "#ffffff90", "linewidth": 0}
        plot.fill_between([j - 0.5, j + 0.5], i - 0.5, i + 0.5, **style)
    if room and np.isfinite(time_s):
        dark = image.norm(time_s) > 0.5
        plate = {"facecolor": "#333333" if dark else "white", "edgecolor": "none", "pad": 1.0}
        plot.text(
            j,
            i,
            seconds(time_s),
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if dark else INK,
            bbox=None if fits else plate,
        )
