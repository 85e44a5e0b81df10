"""Predicted against measured, on logarithmic axes."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from roofcast import hwdb
from roofcast.reports.files import replacing
from roofcast.reports.tables.validation import Checked

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # told apart by the colour-blind [okabe2008]


def draw(checked: list[Checked], path: str) -> None:
    """One point a run, a mark and colour a device; the band is a tenth either way."""
    devices: dict[str, list[Checked]] = {}
    for c in checked:
        if c.predicted is not None:
            devices.setdefault(hwdb.device(c.run.scenario.device).id, []).append(c)
    figure, axes = plt.subplots(figsize=(8.4, 6.0), layout="constrained")
    for i, (device, rows) in enumerate(sorted(devices.items())):
        style = {
            "marker": MARKS[i % len(MARKS)],
            "color": COLOURS[i % len(COLOURS)],
            "ls": "",
            "ms": 4,
            "alpha": 0.7,
            "mew": 0,
        }
        axes.plot(
            [c.run.measured_s for c in rows],
            [c.predicted for c in rows],
            label=f"{device} ({len(rows)})",
            **style,
        )
    if devices:
        times = [c.run.measured_s for rows in devices.values() for c in rows]
        ends = [0.8 * min(times), 1.25 * max(times)]
        axes.plot(ends, ends, color="black", lw=0.8)
        axes.fill_between(
            ends,
            [0.9 * t for t in ends],
            [1.1 * t for t in ends],
            color="grey",
            alpha=0.25,
            lw=0,
            label="within 10 %",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="measured step time [s]",
        ylabel="predicted step time [s]",
        aspect="equal",
    )
    with replacing(path) as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)
