"""The limits of a step told apart, and what each remedy would save."""

from __future__ import annotations

import shlex

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, say, section, show
from roofcast.reports.format import binary, percent, seconds
from roofcast.reports.pages.asked import pass_or_step
from roofcast.reports.pages.memory import doubtful
from roofcast.reports.parts import Console
from roofcast.simulator.forecast.result import Forecast, Limit, Remedy

NEAR_ZERO = 5e-4  # of the step: time that is shown as none
MANY_OPS = 1000  # rows of ops above which remedies are forecast only where they are asked for
LEAST = 0.005  # of the step: a limit or gain below it is left out
NOTE = (
    "share: of the step, by what bounds each kernel; used: time that the resource would need alone"
    " at its datasheet rate (compute: without what a mask hides), of that of the step; headroom:"
    " 1 - used; input: not modelled"
)
FREE = "; if free: what the step would save if the resource took no time"
MEANING = {
    "kernel latency": "kernel latency: fixed cost of small kernels, as of single time steps",
    "network": "network: communication that nothing hides; used: of the busiest links",
    "pipeline": "pipeline: stages that wait for others",
}


def limits_section(out: Console, f: Forecast) -> None:
    """A row for each limit: its share of the step, how much of it is used, what it is worth."""
    if not f.limits:
        return
    free = {r.limit: r for r in f.remedies or () if r.limit}
    rows = [limit for limit in f.limits if _is_shown(f, limit)]
    columns: list[tuple[str, Justify]] = [("limit", "left"), ("share", "right"), ("time", "right")]
    columns += [("used", "right"), ("headroom", "right")]
    columns += [("if free", "right")] if free else []
    section(out, f"Limits of the {pass_or_step(f.mode).split()[-1]}")
    table = [_row(f, limit, free.get(limit.name))[: len(columns)] for limit in rows]
    show(out, fitted_table(out.width - 2, columns, table, spare=("time", "used")))
    said = "; ".join(MEANING[limit.name] for limit in rows if limit.name in MEANING)
    if too_much(f):
        say(out, too_much(f), style="bold red")
    text = NOTE + (FREE if free else "") + (f"; {said}" if said else "")
    say(out, text, style="dim")


def too_much(f: Forecast) -> str:
    """That the peak exceeds the memory of the device, and by how much; empty where it does not."""
    m = f.memory
    if m.capacity_bytes is None or m.peak_bytes <= m.capacity_bytes:
        return ""
    verdict = "may not fit" if doubtful(f) else "does not fit"
    over = m.peak_bytes - m.capacity_bytes
    return (
        f"memory capacity: {verdict}, the forecast peak exceeds it by {binary(over)}"
        f" ({percent(over / m.capacity_bytes)} of it); times are as if it fitted"
    )


def _is_shown(f: Forecast, limit: Limit) -> bool:
    if limit.name in ("kernel latency", "pipeline"):
        return (limit.share or 0.0) >= LEAST
    if limit.name == "network":
        return f.devices > 1
    return limit.name != "input"


def _row(f: Forecast, limit: Limit, free: Remedy | None) -> list[str]:
    if limit.share is None:
        share = time = ""
    else:
        share, time = percent(limit.share), seconds(limit.share * f.step_time_s)
        if limit.share <= NEAR_ZERO:
            share, time = percent(0.0), "0 s"
    used = "" if limit.used is None else percent(limit.used)
    over = limit.name == "memory capacity" and bool(too_much(f))
    room = "" if limit.headroom is None else "none" if over else percent(limit.headroom)
    nothing = free is None or free.saved_s <= NEAR_ZERO * f.step_time_s
    saved = "" if free is None else "0 s" if nothing else seconds(free.saved_s)
    return [limit.name, share, time, used, room, saved]


def remedies_table(out: Console, f: Forecast) -> None:
    """What each change would save, the largest first; those that save nothing are left out."""
    gains = [r for r in f.remedies or () if not r.limit and r.saved_s >= LEAST * f.step_time_s]
    if not gains:
        if f.remedies is not None:
            say(out, "No remedy that Roofcast knows saves as much as 0.5 % of the step.")
        elif len(f.layers) > MANY_OPS:
            say(out, "Of so many ops remedies are forecast only with --remedies.")
        return
    columns: list[tuple[str, Justify]] = [("remedy", "fold"), ("option", "fold")]
    columns += [("saves", "right"), ("of step", "right"), ("fits", "right")]
    fits = [_fits(r, f) for r in gains]
    rows = [
        [_name(r), option_of(r), seconds(r.saved_s), percent(r.saved_s / f.step_time_s), word]
        for r, word in zip(gains, fits, strict=True)
    ]
    out.print()
    show(out, fitted_table(out.width - 2, columns, rows, spare=("option", "of step")))
    text = "each forecast on its own; kernels that another limit bounds may gain, too"
    if any(r.note.startswith("per ") for r in gains):
        samples = number_of(float(f"{f.samples_read:.4g}"), "sample")
        packed = " or packing" if any("packing" in r.options for r in gains) else ""
        text += f"; with a larger batch{packed}: saved in the time of {samples}"
    text += "; savings do not add up"
    if "maybe" in fits:
        text += "; maybe: the capacity lies within the 80 % interval of the peak"
    say(out, text, style="dim")


def option_of(r: Remedy) -> str:
    """The options of predict that make a change; "" where its name tells them (a layout).

    >>> option_of(Remedy(name="fused attention", options={"attention": "flash"}, saved_s=1.0,
    ...     step_time_s=1.0, fits=True))
    '--attention flash'
    >>> option_of(Remedy(name="twice the memory bandwidth", saved_s=1.0, step_time_s=1.0, fits=True,
    ...     options={"set": {"memory.bandwidth": "x2"}}))
    '--set memory.bandwidth=x2'
    """
    if r.note and not r.note.startswith("per "):
        return ""
    words = []
    for name, value in r.options.items():
        if name == "set":
            words += [f"--set {shlex.quote(f'{key}={text}')}" for key, text in value.items()]
        elif value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value not in (None, ()):
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def _name(r: Remedy) -> str:
    return f"{r.name}: {r.note}" if r.note and not r.note.startswith("per ") else r.name


def _fits(r: Remedy, f: Forecast) -> str:
    """Whether the step with a remedy fits; maybe, where measured runs leave that open."""
    m = f.memory
    if r.fits is None or r.peak_bytes is None or m.capacity_bytes is None:
        return {True: "yes", False: "no", None: "?"}[r.fits]
    low, high = (
        r.peak_bytes * (side or m.peak_bytes) / m.peak_bytes for side in (m.low_bytes, m.high_bytes)
    )
    return "maybe" if low <= m.capacity_bytes <= high else "yes" if r.fits else "no"
