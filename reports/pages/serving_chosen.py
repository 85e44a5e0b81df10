"""What to rent or buy for a server, for reading."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from roofcast.reports.console import Justify, fitted_table, fitting, page, say, section, show
from roofcast.reports.format import binary, digits, money, percent, seconds
from roofcast.reports.pages.price import price_words
from roofcast.reports.pages.serving_search import more_options, refused
from roofcast.reports.parts import Console
from roofcast.simulator.serving.hardware_chosen import ServingChoice, ServingChosen

_NAMED = 160  # characters of a list of devices
GOALS = {"cost": "cheapest first", "devices": "fewest devices first"}
SPARE = ("memory", "80 % TPOT", "$/M out", "purchase", "load")  # left out where it is narrow


def print_chosen(found: ServingChosen) -> None:
    """Print the choices, and what was left out."""
    with page() as out:
        _head(out, found)
        section(out, "Choices, one per kind of device")
        _table(out, found)
        best = found.choices[0]
        if best.price is not None:
            say(out, price_words(best.price), first="the first at ")
        say(out, serving_line(found, best), first="the first alone: ")
        refused(out, found.reasons, found.left_out)
        _devices(out, "without a price", found.without_price)
        _devices(out, "of unknown memory", found.without_memory)
        section(out, "Assumed")
        for line in found.assumptions:
            say(out, line, first="- ")


def _devices(out: Console, why: str, names: Sequence[str]) -> None:
    """Print devices that were left out."""
    if not names:
        return
    text = ", ".join(names)
    if len(text) > _NAMED:
        text = f"{text[:_NAMED].rsplit(',', 1)[0]} ..."
    say(out, f"{len(names)} devices ({text})", first=f"{why}: ")


def _head(out: Console, found: ServingChosen) -> None:
    load, stack = found.asked.load, found.choices[0].forecast.stack
    title = f"{found.asked.model}: hardware for a server, {GOALS[found.objective]}"
    say(out, title, indent=0, style="bold")
    what = f"{digits(load.amount)} requests/s that arrive at random"
    if load.kind != "rate":
        what = f"{load.amount:,.0f} sequence{'s' if load.amount > 1 else ''} at once"
    say(out, f"{what}; {load.input_len:,} tokens in, {load.output_len:,} out; {stack}")
    if found.slo:
        say(out, f"to hold: {found.slo}")
    if found.limit_usd is not None:
        say(out, f"budget {money(found.limit_usd)}{'' if found.buy else ' per hour'}")
    priced = found.considered - len(found.without_price) - len(found.without_memory)
    say(
        out,
        f"considered: {priced:,} kinds of devices, {found.layouts:,} layouts of a replica; the"
        f" replicas of {found.counted:,} were counted, and lower bounds rule out the others",
    )


def _table(out: Console, found: ServingChosen) -> None:
    paid = "purchase" if found.buy else "per hour"
    columns: list[tuple[str, Justify]] = [
        ("devices", "left"), ("layout", "fold"), ("weights", "left"), ("cache", "left"),
        (paid, "right"), ("$/M out", "right"), ("TTFT", "right"), ("TPOT", "right"),
        ("80 % TPOT", "right"), ("load", "right"), ("memory", "right"),
    ]  # fmt: skip
    percentile = found.choices[0].forecast.ttft_s.p90 is not None
    if percentile:
        columns = [(f"{t} p90" if t in ("TTFT", "TPOT") else t, j) for t, j in columns]
    cells = [_cells(c, found) for c in found.choices]
    titles = [title for title, _ in columns]
    asked = {"weights": any(c.weights for c in found.choices),
             "cache": any(c.kv for c in found.choices)}  # fmt: skip
    kept = [k for k, t in enumerate(titles) if asked.get(t, True) and any(row[k] for row in cells)]
    columns, cells = [columns[k] for k in kept], [[row[k] for k in kept] for row in cells]
    spare = [t for t in SPARE if t in {title for title, _ in columns} and t != paid]
    show(out, fitted_table(out.width - 2, columns, cells, spare))
    shown = {columns[k][0] for k in fitting(out.width - 2, columns, cells, spare)}
    meaning = {
        "$/M out": "all cost on a million output tokens",
        "80 % TPOT": "interval of the mean",
        "load": "of the most that these can hold",
        "memory": "peak of a device",
    }
    words = [f"{t}: {text}" for t, text in meaning.items() if t in shown]
    say(out, "; ".join([*words, "every choice fits"]), style="dim")


def _cells(c: ServingChoice, found: ServingChosen) -> list[str]:
    f = c.forecast
    usd = c.purchase_usd if found.buy else c.usd_per_hour
    ttft, tpot = f.ttft_s, f.tpot_s
    per_user = tpot.mean > 0
    between = (
        f"{seconds(tpot.low)} to {seconds(tpot.high)}" if per_user and tpot.low is not None else ""
    )
    return [
        f"{c.devices:,} × {c.device}",
        _layout(c),
        f.weights,
        f.kv,
        money(usd) if usd is not None else "no price",
        money(f.usd_per_million_output_all)
        if f.usd_per_million_output_all and not found.buy
        else "",
        seconds(ttft.mean if ttft.p90 is None else ttft.p90),
        seconds(tpot.mean if tpot.p90 is None else tpot.p90) if per_user else "",
        between,
        percent(f.use) if f.use is not None and found.asked.load.kind == "rate" else "",
        binary(f.memory.peak_bytes),
    ]


def _layout(c: ServingChoice) -> str:
    words = [f"{name} {n}" for name, n in c.layout.items() if n > 1]
    if c.replicas > 1:
        words.append(f"{c.replicas} replicas")
    return ", ".join(words) or "one device"


def serving_line(found: ServingChosen, c: ServingChoice) -> str:
    """The command that forecasts a choice alone."""
    load = found.asked.load
    words = [f"roofcast serving {found.asked.model} --on {c.device} --devices {c.devices}"]
    words.append(f"--tp {c.layout['tp']}")
    words += [f"--{name} {c.layout[name]}" for name in ("pp", "ep", "dp") if c.layout[name] > 1]
    words += [f"--{name} {v}" for name in ("weights", "kv") if (v := getattr(c, name))]
    words += [shlex.join(more)] if (more := more_options(found.asked)) else []
    words.append(f"--input-len {load.input_len} --output-len {load.output_len}")
    words.append(f"--{load.kind} {load.amount:g}")
    return " ".join(words)
