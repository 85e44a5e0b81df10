"""A plan of jobs on a pool: a Gantt chart, a band of rows for each kind of device."""

from __future__ import annotations

from matplotlib.figure import Figure

from roofcast.hwdb.errors import number_of
from roofcast.reports.format import duration
from roofcast.reports.pictures.style import FAINT, INK, SMALL, TITLE, bare, colour_of, ink_on, new
from roofcast.simulator.choose.assigned import Assigned, Run

BAND = 1.0  # height of a kind of device [inches]
HOUR, DAY = 3600.0, 86400.0
LONG = 3 * DAY  # a longer plan is drawn in days
LETTER = 0.1  # width of a letter [inches]
WIDE = 8.2  # of the axes [inches]
NARROW = 0.06  # of a band: a thinner bar has no name in it


def lanes(runs: list[Run], count: int) -> list[tuple[Run, list[int]]]:
    """Runs on one kind of device, each with the numbers of the devices that it takes."""
    free = [0.0] * count  # when each device is free again
    found = []
    for run in sorted(runs, key=lambda r: (r.start_s, r.job)):
        ready = [i for i in range(count) if free[i] <= run.start_s * (1 + 1e-9) + 1e-9]
        mine = ready[: run.devices]
        for i in mine:
            free[i] = run.end_s
        found.append((run, mine))
    return found


def draw(found: Assigned) -> Figure:
    """Time to the right, devices upwards; a job is a bar as high as its share of its kind."""
    kinds = [h for h in found.pool if any(r.device == h.device for r in found.plan)]
    figure = new(10.0, 1.4 + BAND * max(len(kinds), 1))
    axes = figure.add_subplot()
    last = max((r.end_s for r in found.plan), default=1.0)
    unit, word = (DAY, "days") if last > LONG else (HOUR, "hours")
    colour = {run.job: colour_of(i) for i, run in enumerate(found.plan)}
    for place, held in enumerate(kinds):
        base = -place
        axes.axhline(base, color=FAINT, linewidth=0.6)
        for run, mine in lanes([r for r in found.plan if r.device == held.device], held.count):
            for begin, size in _together(mine):
                bottom, height = base - (begin + size) / held.count, size / held.count
                axes.broken_barh(
                    [(run.start_s / unit, run.time_s / unit)], (bottom, height),
                    facecolors=colour[run.job], edgecolor="white", alpha=0.85,
                )  # fmt: skip
                room = WIDE * run.time_s / last
                if height >= NARROW and room > LETTER * 3:
                    name = _fit(run.job, int(room / LETTER))
                    middle = (run.start_s + run.time_s / 2) / unit
                    ink = ink_on(colour[run.job])
                    axes.text(middle, bottom + height / 2, name, ha="center", va="center",
                              fontsize=SMALL, color=ink, clip_on=True)  # fmt: skip
            if run.deadline_s is not None and run.deadline_s <= last:
                axes.plot([run.deadline_s / unit], [base], marker="v", color=colour[run.job],
                          markeredgecolor=INK, ms=7)  # fmt: skip
    axes.set_yticks(
        [-i - 0.5 for i in range(len(kinds))], [f"{h.count} × {h.device}" for h in kinds]
    )
    axes.set_ylim(-max(len(kinds), 1), 0.08)
    axes.set_xlim(0, last / unit)
    axes.set_xlabel(f"time from now [{word}]; triangles: deadlines", color=INK)
    bare(axes)
    left = f", {len(found.left)} not finished" if found.left else ""
    title = f"{number_of(len(found.plan), 'job')} in {duration(found.total.makespan_s)}{left}"
    greedy = (
        f"greedy: {duration(found.greedy.makespan_s)}, {number_of(found.greedy.finished, 'job')}"
    )
    axes.set_title(f"{title} ({greedy})", loc="left", fontsize=TITLE)
    return figure


def _fit(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: max(letters - 1, 1)] + "…"


def _together(places: list[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring numbers: first, and how many."""
    found: list[tuple[int, int]] = []
    for i in sorted(places):
        if found and found[-1][0] + found[-1][1] == i:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((i, 1))
    return found
