"""The report of forecasts as one HTML file, and as Markdown for a pull request."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import replacing
from roofcast.reports.format import (
    binary,
    duration,
    energy,
    hourly,
    money,
    percent,
    seconds,
    si,
    words,
)  # fmt: skip
from roofcast.reports.html.data import Answer, document
from roofcast.reports.pages import campaign
from roofcast.reports.pages.asked import interval_basis, pass_or_step, trained, what
from roofcast.reports.pages.causes import of_time
from roofcast.reports.pages.hardware import figures, source, value
from roofcast.reports.pages.layer_table import by_kind, passes
from roofcast.reports.pages.layout import layout_line, on_what
from roofcast.reports.pages.memory import doubtful, kinds, verdict
from roofcast.reports.pages.nearest import none_is_near
from roofcast.reports.pages.price import rent_words
from roofcast.scenarios.files import text
from roofcast.simulator.choose.sensitivity import Sensitivity
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

ROWS = 25  # ops in the table of a page


def write(answers: Sequence[Answer], path: str | Path, command: str) -> int:
    """Write a report of forecasts as .html or .md, by suffix; the number of its bytes.

    command: the command line that makes it again.
    """
    date = datetime.date.today().isoformat()
    shape = html if Path(path).suffix.lower() == ".html" else markdown
    content = shape(answers, command, date).encode("utf-8", "replace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def html(answers: Sequence[Answer], command: str, date: str) -> str:
    """One HTML file that needs nothing else: text, tables, data, and the script of its pictures.

    command: the command line that makes it again; date: shown at the end.
    """
    return (
        environment()
        .get_template("report.html")
        .render(
            **_told(answers),
            command=command,
            date=date,
            data=embedded(document(answers)),
            style=asset("report.css"),
            script=asset("report.js"),
        )
    )


def markdown(answers: Sequence[Answer], command: str, date: str) -> str:
    """The report as Markdown: headline, longest ops, memory, assumptions."""
    template = environment(escape=False).get_template("report.md")
    return template.render(**_told(answers), command=command, date=date)


def _told(answers: Sequence[Answer]) -> dict[str, Any]:
    """All that is text, of every forecast and of their differences from the first."""
    return {
        "title": _title(answers),
        "cards": [_card(answer) for answer in answers],
        "sections": [_section(answer) for answer in answers],
        "differences": [_difference(answers[0], answer) for answer in answers[1:]],
    }


def _difference(base: Answer, other: Answer) -> dict[str, Any]:
    """Why a step takes longer than the first one: the time of both by limit."""
    by = other.forecast.step_time_s - base.forecast.step_time_s
    titles = [f"{each.forecast.model} on {on_what(each.forecast)}" for each in (base, other)]
    return {
        "titles": titles,
        "by": signed(by),
        "rows": [
            (c.name, seconds(c.base), seconds(c.other), signed(c.difference))
            for c in of_time(base.forecast, other.forecast)
        ],
    }


def signed(value: float) -> str:
    """A difference of times.

    >>> signed(0.12), signed(-0.0012)
    ('+120 ms', '-1.20 ms')
    """
    return f"{'-' if value < 0 else '+'}{seconds(abs(value))}"


def embedded(data: dict[str, Any]) -> str:
    """JSON that no text in it can end the script element of.

    >>> embedded({"name": "</script><b>"})
    '{"name":"\\\\u003c/script>\\\\u003cb>"}'
    """
    try:
        held = msgspec.json.encode(data, enc_hook=float).decode()
    except UnicodeEncodeError as error:  # a file name that is not UTF-8
        raise BadInput("a name of the scenario is not UTF-8; rename the file") from error
    return held.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def asset(name: str) -> str:
    """The text of a file beside this one."""
    return resources.files("roofcast.reports.html").joinpath(name).read_text(encoding="utf-8")


@cache
def environment(escape: bool = True) -> Environment:
    """Templates; escape: for HTML."""
    found = Environment(
        autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(asset),
    )  # fmt: skip
    found.filters["cell"] = _cell
    return found


def _cell(text: str) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _title(answers: Sequence[Answer]) -> str:
    models = list(dict.fromkeys(a.forecast.model for a in answers))
    devices = list(dict.fromkeys(on_what(a.forecast) for a in answers))
    return f"{', '.join(models)} on {', '.join(devices)}"


def _card(answer: Answer) -> dict[str, Any]:
    """The headline of one forecast: label -> text."""
    f = answer.forecast
    unit = "step" if f.mode == "train" else "pass"
    rate = (
        f"{f.tokens_per_s:,.0f} tokens/s" if f.tokens_per_s else f"{f.samples_per_s:,.4g} samples/s"
    )
    rows = [("throughput", rate)]
    if f.low_s is not None and f.high_s is not None:
        rows.insert(
            0, (f"80 % interval of the {unit}", f"{seconds(f.low_s)} to {seconds(f.high_s)}")
        )
    rows.append(("roofline lower bound", seconds(f.lower_bound_s)))
    if f.mfu is not None:
        rows.append(("MFU", percent(f.mfu)))
    peak = binary(f.memory.peak_bytes)
    if f.memory.capacity_bytes:
        peak = f"{peak} of {binary(f.memory.capacity_bytes)}"
    rows.append(("peak memory", peak))
    if f.power_w is not None and f.power_scope == "board":
        rows.append(("power", f"{si(f.power_w, 'W')} per board"))
    head = f"{seconds(f.step_time_s)} per {unit}"
    if f.time_to_train_s is not None:
        rows = [*_whole(f), (f"one {unit}", seconds(f.step_time_s)), *rows]
        run = f.campaign.time_s if f.campaign else f.time_to_train_s
        head = f"{duration(run)}{f', {money(cost)}' if (cost := _cost(f)) is not None else ''}"
    as_if = "" if f.memory.fits is not False else ", as if it fitted"
    return {
        "title": f"{f.model} on {on_what(f)}",
        "time": head + as_if,
        "rows": rows,
        "fits": f.memory.fits and not (f.teacher is not None and f.teacher.fits is False),
        "verdict": _verdict(f),
    }


def _cost(f: Forecast) -> float | None:
    """USD of the whole run."""
    return f.campaign.cost_usd if f.campaign else f.cost_usd


def _whole(f: Forecast) -> list[tuple[str, str]]:
    """The whole run on a card: days, dollars and probability with their intervals, energy."""
    c, cost = f.campaign, _cost(f)
    at = f"; {hourly(f.price.usd_per_hour)} per device-hour" if f.price else ""
    rows = []
    if c is not None:
        low, high = (duration(days * campaign.DAY, c.time_s) for days in (c.days_low, c.days_high))
        rows.append(("80 % interval of the run", f"{low} to {high}"))
        if c.cost_low_usd is not None and c.cost_high_usd is not None:
            at = f"80 % interval {money(c.cost_low_usd)} to {money(c.cost_high_usd)}{at}"
        if c.deadline_probability is not None:
            by = f"done {'by' if c.start else 'within'} {c.deadline}"
            rows.append((by, f"with {percent(c.deadline_probability)}"))
    if cost is not None:
        rows.append(("cost", at.lstrip("; ") or money(cost)))
    if c is not None and c.energy_j is not None:
        rows.append((f"energy ({c.energy_scope})", energy(c.energy_j)))
    elif f.energy_j is not None:
        rows.append(("energy of the boards", energy(f.energy_j)))
    return rows


def _verdict(f: Forecast) -> str:
    if f.memory.fits is not False and f.teacher is not None and f.teacher.fits is False:
        return "the teacher does not fit"
    if f.memory.fits is None:
        return "memory capacity unknown"
    near = bool(doubtful(f))
    return {True: "may fit" if near else "fits", False: "may not fit" if near else "does not fit"}[
        f.memory.fits
    ]


def _section(answer: Answer) -> dict[str, Any]:
    """All of one forecast that is text."""
    f = answer.forecast
    return {
        "title": f"{f.model} on {on_what(f)}",
        "one": pass_or_step(f.mode),
        "what": what(f),
        "parameters": words(f.parameters),
        "trained": trained(f),
        "layout": layout_line(f.layout, f.system) if f.layout else "",
        "phases": _phases(f),
        "interval": interval_basis(f) if f.low_s is not None else "",
        "by_kind": by_kind(f),
        "ops": _ops(f),
        "more": max(len(f.layers) - ROWS, 0),
        **_memory(f),
        "diagnosis": f.diagnosis,
        "effects": _effects(answer.sensitivity),
        "run": _run(f),
        "near": none_is_near(f) if f.nearest else "",
        "nearest": _nearest(f),
        "assumptions": f.assumptions,
        "sources": _sources(answer.scenario, f),
        "scenario": text(answer.scenario),
    }


def _run(f: Forecast) -> dict[str, Any] | None:
    """The whole training: sentences, where its time goes, the invoice; None without a length."""
    c = f.campaign
    if c is None:
        return None
    return {"told": campaign.told(c), "parts": campaign.parts(c), "invoice": campaign.invoice(c)}


def _phases(f: Forecast) -> list[tuple[str, str, str]]:
    """Passes of the step: name, time, share."""
    passes = (("forward", f.forward_s), ("backward", f.backward_s), ("optimizer", f.update_s))
    return [
        (name, seconds(value), percent(value / f.step_time_s)) for name, value in passes if value
    ]


def _ops(f: Forecast) -> list[dict[str, Any]]:
    """The longest ops, forward and backward."""
    return [
        {
            "name": row.name,
            "count": row.count,
            "flops": si(row.flops, "FLOP"),
            "bytes": si(row.bytes, "B"),
            "saved": binary(row.saved_bytes),
            "time": seconds(row.time_s),
            "share": percent(row.time_s / f.step_time_s),
            "bound": row.bound,
        }
        for row in passes(f)[:ROWS]
    ]


def _memory(f: Forecast) -> dict[str, Any]:
    """Memory at peak by kind, and by pipeline stage where there are several."""
    whole = f.memory.capacity_bytes or f.memory.peak_bytes
    ranks = [
        (r.stage, r.layers, *map(binary, (r.parameters_bytes, r.activations_bytes, r.peak_bytes)))
        for r in f.ranks
    ]
    return {
        "memory": [(name, binary(value), percent(value / whole)) for name, value in kinds(f)],
        "verdict": verdict(f),
        "ranks": ranks if len(ranks) > 1 else [],
    }


def _effects(found: Sensitivity | None) -> list[dict[str, str]]:
    """What each number of the hardware is worth."""
    return [
        {
            "number": e.number,
            "elasticity": f"{e.elasticity:+.3f}",
            "better": seconds(e.better_s) if e.better_s > 0 else "none",
            "twice": "doubled" if e.rate else "halved",
        }
        for e in (found.effects if found else ())
    ]


def _nearest(f: Forecast) -> list[dict[str, str]]:
    """The measured runs most like it."""
    return [
        {
            "name": n.name,
            "device": f"{n.devices:,} × {n.device}" if n.devices > 1 else n.device,
            "stack": n.stack,
            "source": n.source,
            "measured": seconds(n.measured_s),
            "error": f"{100 * n.error:+.0f} %",
        }
        for n in f.nearest
    ]


def _sources(scenario: Scenario, f: Forecast) -> list[tuple[str, str, str, str]]:
    """Numbers of the device with their sources: key, value, status, source. Of its prices the one
    that the run is paid at, where there is one.
    """
    device = hwdb.device(scenario.device, scenario.set)
    rows = [
        (key, value(key, figure, unit).replace("\n", " "), figure.status, source(figure))
        for key, figure, unit in figures(device)
        if not key.startswith("price.")
    ]
    if f.price is not None:
        rate = f"{money(f.price.usd_per_hour)} per device-hour"
        rows.append(("price", rate, "used for the cost", rent_words(f.price)))
    return rows
