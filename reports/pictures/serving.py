"""The front of a server, drawn: throughput per device against speed per user."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from roofcast.hwdb.errors import BadInput
from roofcast.reports.pictures.style import BLUE, SMALL, TITLE, bare, new, plain_ticks, write
from roofcast.simulator.serving.result import ServingForecast

WIDE = 8.0  # ratio of the ends of an axis from which it is logarithmic


def draw(found: Sequence[ServingForecast], path: str) -> None:
    """Draw forecasts of one server under several numbers of users. Raises BadInput for fewer."""
    points = sorted(found, key=lambda f: f.tokens_per_s_per_user)
    if len(points) < 2:
        raise BadInput("--plot draws several loads; give for example --concurrency 1,4,16,64")
    write(path, lambda: _figure(points))


def _figure(points: Sequence[ServingForecast]) -> Figure:
    figure = new(8.0, 5.0)
    axes = figure.add_subplot()
    x = [f.tokens_per_s_per_user for f in points]
    y = [f.output_tokens_per_s_per_device for f in points]
    ranges = [(f.output_tokens_per_s_range or (0.0, 0.0), f.devices) for f in points]
    low, high = ([each[i] / count for each, count in ranges] for i in (0, 1))
    axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="80 % interval")
    axes.plot(x, y, "o-", color=BLUE, label="forecast")
    for f, a, b in zip(points, x, y, strict=True):
        axes.annotate(
            f"{f.amount or 0:,.4g}", (a, b), (5, 5), textcoords="offset points", fontsize=SMALL
        )
    if max(x) > WIDE * min(x):
        axes.set_xscale("log")
    if max(y) > WIDE * min(y):
        axes.set_yscale("log")
    plain_ticks(axes)
    axes.set_xlabel("tokens/s per user")
    axes.set_ylabel("output tokens/s per device")
    bare(axes, "both")
    axes.legend(frameon=False, fontsize=SMALL)
    first = points[0]
    many = f"{first.devices:,} " if first.devices > 1 else ""
    title = f"{first.model} on {many}{first.device}, {first.stack}"
    lengths = f"{first.input_len:,} tokens in, {first.output_len:,} out"
    unit = {"rate": "requests/s", "batch": "batch"}.get(first.load, "users")
    axes.set_title(f"{title}\n{lengths}; numbers: {unit}", loc="left", fontsize=TITLE)
    return figure
