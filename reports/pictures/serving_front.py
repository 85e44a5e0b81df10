"""The layouts of a server, drawn: throughput per device against speed per user, and the front."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import replacing
from roofcast.reports.pages.serving_search import degrees_words
from roofcast.reports.pictures.style import (
    BLUE,
    FAINT,
    GREY,
    SMALL,
    colour_of,
    fonts,
    halo,
    plain_ticks,
    save,
)
from roofcast.reports.tables.serving_search import cache_of, weights_of
from roofcast.simulator.serving.search import Found

WIDE = 8.0  # ratio of the ends of an axis from which it is logarithmic
AXES = ("tokens_per_s_per_user", "output_tokens_per_s_per_device")  # x, y
SHAPES = ("o", "s", "^", "D", "v", "P")  # of layouts on the front
APART = 42.0  # between two numbers of users [pixels]


def draw(found: Found, path: str) -> None:
    """Draw the rows of a search and their front. Raises BadInput where the front has no two."""
    front = found.front()
    if len(front) < 2:
        raise BadInput("--plot draws a front; fewer than two forecasts fit and hold the level")
    x, y = (found.rows[name] for name in AXES)
    with fonts():
        figure = Figure(figsize=(9.0, 5.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        others = found.holds & (x > 0)
        for k in range(len(found.layouts)):
            own = np.flatnonzero(others & (found.layout == k))
            order = own[np.argsort(found.rows["amount"][own])]
            label = "other layouts" if k == 0 else None
            axes.plot(x[order], y[order], color=FAINT, alpha=0.3, lw=0.7, label=label)
        low, high = (found.rows[f"{AXES[1]}_{end}"] for end in ("low", "high"))
        axes.fill_between(
            x[front], low[front], high[front], color=BLUE, alpha=0.15, linewidth=0,
            label="80 % interval",
        )  # fmt: skip
        axes.plot(x[front], y[front], "-", lw=1.2, color=GREY, zorder=3)
        _layouts(axes, found, front)
        for values, scale in ((x[front], axes.set_xscale), (y[front], axes.set_yscale)):
            if values.max() > WIDE * values.min():
                scale("log")
        plain_ticks(axes)
        axes.set_xlabel("tokens/s per user")
        axes.set_ylabel("output tokens/s per device")
        axes.set_ylim(bottom=0.7 * low[front].min(), top=1.5 * high[front].max())
        axes.set_xlim(0.85 * x[front].min(), 1.15 * x[front].max())
        axes.grid(True, color=FAINT, alpha=0.3)
        figure.legend(frameon=False, loc="outside right upper", fontsize=SMALL)
        axes.set_title(_title(found), loc="left", fontsize=10)
        figure.draw_without_rendering()  # places of points are known from here on
        _users(axes, found, front)
        with replacing(path) as temporary:
            save(figure, temporary)


def _layouts(axes: Axes, found: Found, front: list[int]) -> None:
    """The points of the front, each layout with a colour and a shape of its own: those with the
    most points; the rest alike.
    """
    points: dict[int, list[int]] = {}
    for i in front:
        points.setdefault(int(found.layout[i]), []).append(i)
    named = sorted(points, key=lambda k: -len(points[k]))[: len(SHAPES)]
    for k in [k for k in points if k in named]:
        n = named.index(k)
        rows = points.pop(k)
        at = [found.rows[name][rows] for name in AXES]
        axes.plot(*at, SHAPES[n], ms=5, color=colour_of(n), label=_words(found, k), zorder=4)
    rest = [i for rows in points.values() for i in rows]
    if rest:
        at = [found.rows[name][rest] for name in AXES]
        axes.plot(*at, "o", ms=3, color=GREY, label=f"{len(points)} more layouts", zorder=4)


def _words(found: Found, k: int) -> str:
    """A layout in the legend: what differs between layouts."""
    weights = {weights_of(found, n) for n in range(len(found.layouts))}
    caches = {cache_of(found, n) for n in range(len(found.layouts))}
    several = len({x.replica.device.id for x in found.layouts}) > 1
    words = [found.layouts[k].replica.device.id] if several else []
    words.append(degrees_words(found, k))
    words += [weights_of(found, k)] if len(weights) > 1 else []
    words += [f"cache {cache_of(found, k)}"] if len(caches) > 1 else []
    return ", ".join(words)


def _users(axes: Axes, found: Found, front: list[int]) -> None:
    """Numbers of users beside points that are far enough apart."""
    at = np.column_stack([found.rows[name][front] for name in AXES])
    last = None
    for i, point, place in zip(front, at, axes.transData.transform(at), strict=True):
        if last is not None and np.hypot(*(place - last)) < APART:
            continue
        last = place
        users = f"{found.rows['amount'][i]:,.0f}"
        if i == front[0]:
            users += " user" if users == "1" else " users"
        text = axes.annotate(
            users, point, (-5, -4), textcoords="offset points", fontsize=SMALL, ha="right",
            va="top", zorder=5,
        )  # fmt: skip
        halo(text)


def _title(found: Found) -> str:
    a = found.asked
    on = dict.fromkeys(f"{x.replica.cut.devices} {x.replica.device.id}" for x in found.layouts)
    lengths = f"{a.load.input_len:,} tokens in, {a.load.output_len:,} out"
    stack = found.layouts[0].replica.server.profile.name
    return f"{a.model} on {', '.join(on)}; {stack}; {lengths}"
