"""Predicted against measured step time of published runs, on log axes."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from roofcast import hwdb
from roofcast.reports.files import replacing
from roofcast.reports.pictures.style import DEVICES
from roofcast.reports.tables.validation import Checked

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
COLOURS = (*DEVICES, "#000000")


def draw(checked: list[Checked], path: str) -> None:
    """Write a picture with a point per run, a marker and colour per device; the band is 10 %."""
    devices: dict[str, list[tuple[float, float]]] = {}
    for c in checked:
        run = c.run
        if c.predicted is not None and run.measured_s is not None and run.scenario is not None:
            device = hwdb.device(run.scenario.device).id
            devices.setdefault(device, []).append((run.measured_s, c.predicted))
    figure, axes = plt.subplots(figsize=(8.4, 6.0), layout="constrained")
    for i, (device, points) in enumerate(sorted(devices.items())):
        axes.plot(
            [measured for measured, _ in points],
            [predicted for _, predicted in points],
            label=f"{device} ({len(points)})",
            marker=MARKS[i % len(MARKS)],
            color=COLOURS[i % len(COLOURS)],
            ls="",
            ms=4,
            alpha=0.7,
            mew=0,
        )
    if devices:
        times = [measured for points in devices.values() for measured, _ in points]
        ends = [0.8 * min(times), 1.25 * max(times)]
        axes.plot(ends, ends, color="black", lw=0.8)
        band = ([0.9 * t for t in ends], [1.1 * t for t in ends])
        axes.fill_between(ends, *band, color="grey", alpha=0.25, lw=0, label="within 10 %")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    axes.set(xscale="log", yscale="log", aspect="equal")
    axes.set(xlabel="measured step time [s]", ylabel="predicted step time [s]")
    with replacing(path) as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)
