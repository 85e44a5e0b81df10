"""A forecast in about ten lines, as Python prints it, and as a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from textwrap import fill

from roofcast.reports.console import breakable, joined
from roofcast.reports.format import (
    binary,
    digits,
    duration,
    energy,
    money,
    percent,
    seconds,
    short_names,
    si,
    words,
)
from roofcast.reports.pages.asked import edited, pass_or_step
from roofcast.reports.pages.memory import doubtful
from roofcast.simulator.forecast.result import Forecast

WIDTH = 100
_VERDICTS = {True: ": fits", False: ": DOES NOT FIT"}
SHOWN = 3  # ops named, the longest first


def lines(f: Forecast) -> Iterator[tuple[str, str]]:
    """What is said, line by line: a label, and the text."""
    size = (
        f" x {f.sequence} tokens"
        if f.sequence
        else f" images of {f.image} x {f.image}"
        if f.image
        else ""
    )
    recipe = [f"batch {f.batch}{size}", f.precision, f.optimizer, f.stack]
    yield "scenario", ", ".join(part for part in recipe if part)
    unit = "step" if f.mode == "train" else "pass"
    rate = (
        f"{f.tokens_per_s:,.0f} tokens/s"
        if f.tokens_per_s
        else f"{f.samples_per_s:,.0f} samples/s"
        if f.samples_per_s >= 1000
        else f"{digits(f.samples_per_s)} samples/s"
    )
    yield f"{unit} time", f"{seconds(f.step_time_s)}, {rate}, MFU {percent(f.mfu)}"
    bound = f"roofline lower bound {seconds(f.lower_bound_s)}"
    if f.low_s is not None and f.high_s is not None:
        bound = f"80 % interval {seconds(f.low_s)} to {seconds(f.high_s)}; {bound}"
    yield "range", bound
    passes = f"forward {seconds(f.forward_s)}"
    passes += f", backward {seconds(f.backward_s)}" if f.mode == "train" else ""
    passes += f", optimizer {seconds(f.update_s)}" if f.update_s else ""
    left = f.step_time_s - f.forward_s - f.backward_s - f.update_s
    waiting = "communication and waiting" if f.devices > 1 else "waiting for the host"
    yield (
        "passes",
        passes + (f", {waiting} {seconds(left)}" if left > 0.005 * f.step_time_s else ""),
    )
    if f.power_w is not None and f.step_energy_j is not None and f.power_scope == "board":
        joules = f"{si(f.step_energy_j, 'J')} per {unit}"
        yield "power", f"{si(f.power_w, 'W')} per board, {joules}, without hosts"
    m = f.memory
    capacity = f" of {binary(m.capacity_bytes)}" if m.capacity_bytes else ""
    near = doubtful(f)
    words_of = {True: ": may fit", False: ": may not fit"} if near else _VERDICTS
    verdict = "" if m.fits is None else words_of[m.fits]
    yield "peak memory", f"{binary(m.peak_bytes)}{capacity}{verdict}{near}"
    yield "longest ops (bound)", ", ".join(_longest(f))
    if f.time_to_train_s is not None:
        run = [duration(f.time_to_train_s)]
        run += [money(f.cost_usd)] if f.cost_usd is not None else []
        run += [f"{energy(f.energy_j)} of the boards"] if f.energy_j is not None else []
        site = f.energy_by_scope_j.get("site")
        run += [f"{energy(site)} at the site (PUE {f.pue:g})"] if site is not None else []
        yield "whole run", ", ".join(run)
    if f.diagnosis:
        yield "diagnosis", f.diagnosis
    if f.assumptions:
        yield "assumed", f"{len(f.assumptions)} defaults and assumptions, listed in .assumptions"


def _longest(f: Forecast) -> Iterator[str]:
    """Ops by the time of their forward and backward passes: name, share of the step, bound."""
    short = short_names([layer.name for layer in f.layers])
    ops = sorted(f.layers, key=lambda r: r.forward_s + r.backward_s, reverse=True)
    for op in ops[:SHOWN]:
        share = percent((op.forward_s + op.backward_s) / f.step_time_s)
        yield f"{short[op.name]} {share} ({op.bound})"


def _title(f: Forecast) -> str:
    on = f"{f.devices} x {f.device}" if f.devices > 1 else f.device
    one = f"one {pass_or_step(f.mode)}"
    return f"{f.model} ({words(f.parameters)} parameters) on {on}{edited(f)}: {one}"


def summary(f: Forecast) -> str:
    """The forecast as text, at most WIDTH columns wide."""
    said = list(lines(f))
    indent = 4 + max(len(label) for label, _ in said)
    rows = [_title(f)]
    for label, text in said:
        first = f"  {label}".ljust(indent)
        line = fill(joined(text), WIDTH, initial_indent=first, subsequent_indent=" " * indent)
        rows.append(breakable(line))
    return "\n".join(rows)


def html(f: Forecast) -> str:
    """The forecast as an HTML table."""
    rows = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{escape(label)}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for label, text in lines(f)
    )
    title = f'<caption style="text-align:left;font-weight:bold">{escape(_title(f))}</caption>'
    return f"<table>{title}<tbody>{rows}</tbody></table>"
