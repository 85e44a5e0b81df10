"""The layouts of a server, drawn: throughput per device against speed per user, and the front."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import replacing
from roofcast.reports.pages.serving_search import degrees_words
from roofcast.reports.pictures.style import BLUE, FAINT, SMALL, fonts
from roofcast.reports.tables.serving_search import cache_of, weights_of
from roofcast.simulator.serving.search import Found

WIDE = 8.0  # ratio of the ends of an axis from which it is logarithmic
NAMED = 9  # stretches of the front that are labelled, at most


def draw(found: Found, path: str) -> None:
    """Draw the rows of a search and their front. Raises BadInput where the front has no two."""
    front = found.front()
    if len(front) < 2:
        raise BadInput("--plot draws a front; fewer than two forecasts fit and hold the level")
    x, y = found.rows["tokens_per_s_per_user"], found.rows["output_tokens_per_s_per_device"]
    with fonts():
        figure = Figure(figsize=(8.0, 5.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        others = found.holds & (x > 0)
        for k in range(len(found.layouts)):
            own = others & (found.layout == k)
            order = np.argsort(x[own])
            label = "layouts" if k == 0 else None
            axes.plot(x[own][order], y[own][order], color=FAINT, alpha=0.4, lw=0.8, label=label)
        low, high = (found.rows[f"output_tokens_per_s_per_device_{end}"] for end in ("low", "high"))
        axes.fill_between(
            x[front], low[front], high[front], color=BLUE, alpha=0.15, linewidth=0,
            label="80 % interval",
        )  # fmt: skip
        axes.plot(x[front], y[front], "o-", ms=3, color=BLUE, label="no other beats these in both")
        _named(axes, found, front)
        for values, scale in ((x[front], axes.set_xscale), (y[front], axes.set_yscale)):
            if values.max() > WIDE * values.min():
                scale("log")
        axes.set_xlabel("tokens/s per user")
        axes.set_ylabel("output tokens/s per device")
        axes.set_ylim(bottom=0.7 * low[front].min(), top=1.6 * high[front].max())
        axes.set_xlim(0.8 * x[front].min(), 1.35 * x[front].max())
        axes.grid(True, color=FAINT, alpha=0.3)
        axes.legend(frameon=False, loc="lower left")
        axes.set_title(_title(found), loc="left", fontsize=10)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)


def _title(found: Found) -> str:
    a = found.asked
    on = dict.fromkeys(f"{x.replica.cut.devices} {x.replica.device.id}" for x in found.layouts)
    lengths = f"{a.load.input_len:,} tokens in, {a.load.output_len:,} out"
    stack = found.layouts[0].replica.server.profile.name
    return f"{a.model} on {', '.join(on)}; {stack}; {lengths}"


def _named(axes: object, found: Found, front: list[int]) -> None:
    """The layout of each stretch of the front, at its middle, with the users there."""
    stretches: list[list[int]] = []
    for i in front:
        if stretches and found.layout[stretches[-1][-1]] == found.layout[i]:
            stretches[-1].append(i)
        else:
            stretches.append([i])
    stretches = sorted(stretches, key=len, reverse=True)[:NAMED]
    weights = {weights_of(found, k) for k in range(len(found.layouts))}
    caches = {cache_of(found, k) for k in range(len(found.layouts))}
    several = len({x.replica.device.id for x in found.layouts}) > 1
    for stretch in stretches:
        i = stretch[len(stretch) // 2]
        k = int(found.layout[i])
        words = [found.layouts[k].replica.device.id] if several else []
        words.append(degrees_words(found, k))
        words += [weights_of(found, k)] if len(weights) > 1 else []
        words += [f"cache {cache_of(found, k)}"] if len(caches) > 1 else []
        words.append(f"{found.rows['amount'][i]:,.0f} users")
        at = found.rows["tokens_per_s_per_user"][i], found.rows["output_tokens_per_s_per_device"][i]
        axes.annotate(  # type: ignore[attr-defined]
            ", ".join(words), at, (6, 4), textcoords="offset points", fontsize=SMALL
        )
