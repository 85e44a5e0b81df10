"""The roofline of one step of a server: its kernels below the roofs of the device."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

from roofcast import hwdb
from roofcast.hwdb.errors import number_of
from roofcast.reports.format import seconds
from roofcast.reports.pictures.point_labels import boxes, name_points
from roofcast.reports.pictures.roofline import frame, new_figure, roofs, titles
from roofcast.reports.pictures.roofline_labels import margin_labels, ridge_labels, slope_labels
from roofcast.reports.pictures.roofline_legend import legend
from roofcast.reports.pictures.roofline_points import draw_points
from roofcast.reports.pictures.roofs import machine, visible
from roofcast.reports.pictures.style import fonts
from roofcast.simulator.serving.points import StepForecast


def draw(found: StepForecast, edits: dict[str, Any]) -> Figure:
    """Draw a step on its device."""
    step = cast(Any, found)  # with the fields of a forecast that are drawn
    with fonts():
        one = [machine(hwdb.device(found.device, edits), training=False)]
        figure, axes = new_figure()
        shown = [visible(step)]
        frame(axes, shown, one)
        lines = [roofs(axes, one[0], 0, False)]
        markers = [draw_points(axes, step, shown[0], 0, False)]
        cut = "".join(f", {name} {n}" for name, n in found.layout.items() if n > 1)
        titles(figure, f"{found.model} on {found.device}{cut}", _subtitle(found))
        box = legend(figure, [step], shown, one)
        margin_labels(figure, axes, one, False, box)
        fixed = slope_labels(figure, axes, one, False, boxes(markers))
        ridge_labels(figure, axes, one, False)
        name_points(figure, axes, [step], shown, markers, fixed, np.vstack(lines))
    return figure


def _subtitle(f: StepForecast) -> str:
    what = (
        f"decode step of {number_of(f.batch, 'sequence')} with {f.tokens:,} tokens in the cache"
        if f.phase == "decode"
        else f"prefill of {number_of(f.batch, 'prompt')} of {f.tokens:,} tokens"
    )
    return f"{what}; {f.stack}, weights {f.weights}:  {seconds(f.step_time_s)}"
