"""The timeline of a step: a row for each stage and stream, time to the right."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from roofcast.reports.format import percent, seconds, short_names
from roofcast.reports.pictures.style import PASSES, SMALL, TITLE, bare, new
from roofcast.simulator.parallel.pipeline.replay import Event

ON_ONE = {"forward": "forward", "backward": "backward", "update": "optimizer"}  # its streams
ROW, MOST = 0.3, 64  # height of a row [inches]; rows that are drawn
OPS = 14  # of a step on one device: ops with a row of their own
OTHERS = "other ops"
THICK = 0.78  # of a bar, of its row
DIGIT = 0.0065  # of the width: of a digit in a bar
FINE = 0.003  # of the width: a narrower bar has no edge


def draw(events: Sequence[Event], title: str) -> Figure:
    """Bars of all events; rows beyond the first are said to be left out."""
    row_of = _by_op(events) if {e.stream for e in events} <= set(ON_ONE) else _by_stage(events)
    rows = list(dict.fromkeys(row_of.values()))
    shown = rows[:MOST]
    figure = new(11.0, 1.7 + ROW * len(shown))
    axes = figure.add_subplot()
    end = max(e.start + e.duration for e in events)
    place = {row: y for y, row in enumerate(shown)}
    bars: dict[str, list[list[tuple[float, float]]]] = {kind: [] for kind in PASSES}
    for e in events:
        y = place.get(row_of[_key(e)])
        if y is not None:
            low, high, right = y - THICK / 2, y + THICK / 2, e.start + e.duration
            box = [(e.start, low), (right, low), (right, high), (e.start, high)]
            bars[kind_of(e)].append(box)
            number = re.fullmatch(r"[FBWDX](\d+)\.\d+", e.name)
            if number and e.duration > DIGIT * len(number[1]) * end:
                axes.text(e.start + e.duration / 2, y, number[1], ha="center", va="center",
                          fontsize=SMALL - 2, color="white", clip_on=True)  # fmt: skip
    for kind, boxes in bars.items():
        colour, _ = PASSES[kind]
        edges = ["white" if b[1][0] - b[0][0] > FINE * end else colour for b in boxes]
        axes.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors=edges, lw=0.5))
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, end)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value) if value else "0")
    left = f"; the first {len(shown)} of {len(rows)} rows" if len(rows) > len(shown) else ""
    numbers = "; numbers: micro-batches" if axes.texts else ""
    axes.set_xlabel(f"time from the start of the step{numbers}{left}")
    bare(axes, "x")
    axes.set_title(f"{title}: {seconds(end)}{_idle(events, end)}", loc="left", fontsize=TITLE)
    used = [kind for kind, boxes in bars.items() if boxes]
    figure.legend([Patch(facecolor=PASSES[kind][0]) for kind in used], used, ncols=len(used),
                  loc="outside lower left", frameon=False, fontsize=SMALL)  # fmt: skip
    return figure


def kind_of(event: Event) -> str:
    """What a bar shows: a key of PASSES.

    >>> kind_of(Event(0, "compute", "B3.1", 0.0, 1.0)), kind_of(Event(0, "p2p", "x", 0.0, 1.0))
    ('backward', 'communication')
    """
    if event.stream in ON_ONE:
        return ON_ONE[event.stream]
    if event.name == "optimizer":
        return "optimizer"
    if event.stream != "compute":
        return "communication"
    if event.name.startswith("W"):
        return "gradients of weights"
    return "backward" if re.match(r"[BD]\d|backward", event.name) else "forward"


def _computes(event: Event) -> bool:
    return event.stream in ON_ONE or event.stream == "compute"


def _key(event: Event) -> tuple[int, str, str]:
    """What decides the row of an event: stage, stream, and on one device the op."""
    on_one = event.stream in ON_ONE
    return event.stage, event.stream, event.name.split(" [")[0] if on_one else ""


def _by_op(events: Sequence[Event]) -> dict[tuple[int, str, str], tuple[str, int]]:
    """A row for each of the longest ops, in the order in which they run first; and the rest."""
    long: dict[str, float] = {}
    for e in events:
        name = _key(e)[2]
        long[name] = long.get(name, 0.0) + e.duration
    kept = sorted(long, key=lambda name: -long[name])[:OPS]
    short = short_names(kept)
    first = {name: i for i, name in enumerate(long)}
    rows = {_key(e): (short.get(_key(e)[2], OTHERS), 0) for e in events}
    order = {short[name]: first[name] for name in kept} | {OTHERS: len(first)}
    return dict(sorted(rows.items(), key=lambda item: order[item[1][0]]))


def _by_stage(events: Sequence[Event]) -> dict[tuple[int, str, str], tuple[str, int]]:
    """Of each stage a row of what it computes, and one of what it sends; of a single stage, one
    for each kind of traffic.
    """
    several = len({e.stage for e in events}) > 1
    keys = sorted({_key(e) for e in events}, key=lambda k: (k[0], k[1] != "compute", k[1]))
    found = {}
    for key in keys:
        stage, stream, _ = key
        name = stream if not several else f"stage {stage + 1}" if stream == "compute" else "sends"
        found[key] = (name, stage)
    return found


def _idle(events: Sequence[Event], end: float) -> str:
    """The share of the step in which a stage computes nothing, where there is one."""
    stages = {e.stage for e in events}
    busy = sum(e.duration for e in events if _computes(e))
    idle = 1 - busy / (end * len(stages))
    return f", compute idle {percent(idle)} of the time" if idle > 0.001 else ""
