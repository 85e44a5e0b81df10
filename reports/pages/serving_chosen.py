"""What to rent or buy for a server, for reading."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from roofcast import hwdb
from roofcast.hwdb.errors import number_of
from roofcast.reports.console import page, say, section
from roofcast.reports.format import binary, digits, money, percent, seconds
from roofcast.reports.pages.choose_table import Column, show_blocks, sure
from roofcast.reports.pages.price import price_words
from roofcast.reports.pages.serving_search import more_options, refused
from roofcast.reports.parts import Console
from roofcast.simulator.serving.asked import PERCENTILE, SHARES
from roofcast.simulator.serving.hardware_chosen import ServingChoice, ServingChosen
from roofcast.simulator.serving.pricing import price_of
from roofcast.simulator.serving.result import ServingForecast, Spread

_NAMED = 160  # characters of a list of devices
GOALS = {"cost": "cheapest first", "devices": "fewest devices first"}
MEANING = {
    "$/M out": "all cost on a million output tokens",
    "holds": "probability that real servers hold the times above, by errors of measured ones"
    " (--sure chooses by it)",
    "80 % TPOT": "interval of the mean",
    "load": "of the most that these can hold",
    "memory": "peak of a device",
}


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
        rent = "" if found.buy else "; --price DEVICE=USD gives one"
        _devices(out, "without a price", found.without_price, rent)
        _devices(out, "of unknown memory", found.without_memory)
        section(out, "Assumed")
        for line in found.assumptions:
            say(out, line, first="- ")


def _devices(out: Console, why: str, names: Sequence[str], more: str = "") -> None:
    """Print devices that were left out."""
    if not names:
        return
    text = ", ".join(names)
    if len(text) > _NAMED:
        text = f"{text[:_NAMED].rsplit(',', 1)[0]} ..."
    say(out, f"{number_of(len(names), 'device')} ({text}){more}", first=f"{why}: ")


def _head(out: Console, found: ServingChosen) -> None:
    load = found.asked.load
    stack = ", ".join(dict.fromkeys(c.forecast.stack for c in found.choices))
    title = f"{found.asked.model}: hardware for a server, {GOALS[found.objective]}"
    say(out, title, indent=0, style="bold")
    what = f"{digits(load.amount)} requests/s that arrive at random"
    if load.kind != "rate":
        what = f"{number_of(load.amount, 'sequence')} at once"
    say(out, f"{what}; {number_of(load.input_len, 'token')} in, {load.output_len:,} out; {stack}")
    if found.slo:
        say(out, f"to hold: {found.slo}")
    if found.limit_usd is not None:
        say(out, f"budget {money(found.limit_usd)}{'' if found.buy else ' per hour'}")
    rest = ", and lower bounds rule out the others" if found.counted < found.layouts else ""
    priced = found.considered - len(found.without_price) - len(found.without_memory)
    say(
        out,
        f"considered: {number_of(priced, 'kind of device', 'kinds of devices')},"
        f" {number_of(found.layouts, 'layout')} of a replica; the replicas of"
        f" {found.counted:,} were counted{rest}",
    )


def _table(out: Console, found: ServingChosen) -> None:
    """Print the choices: columns that do not fit beside each other continue below."""
    columns = [c for c in _columns(found) if any(c[2])]
    show_blocks(out, columns)
    said = [f"{name} {next(iter(values))}" for name, values in _formats(found) if len(values) == 1]
    if said:
        say(out, f"all: {', '.join(said)}")
    shown = {title for title, _, _ in columns}
    words = [f"{title}: {text}" for title, text in MEANING.items() if title in shown]
    say(out, "; ".join([*words, "every choice fits"]), style="dim")


def _formats(found: ServingChosen) -> list[tuple[str, set[str]]]:
    """The formats of weights and cache of all choices."""
    every = [c.forecast for c in found.choices]
    return [("weights", {f.weights for f in every}), ("cache", {f.kv for f in every})]


def _columns(found: ServingChosen) -> list[Column]:
    every = [c.forecast for c in found.choices]
    several = {name for name, values in _formats(found) if len(values) > 1}
    at = next(p for p in SHARES if p >= (found.slo_percent or PERCENTILE))
    percentile = every[0].ttft_s.p90 is not None
    of = f" p{at}" if percentile else ""
    columns: list[Column] = [
        ("devices", "left", [f"{c.devices:,} × {c.device}" for c in found.choices]),
        ("layout", "left", [_layout(c) for c in found.choices]),
        ("weights", "left", [f.weights if "weights" in several else "" for f in every]),
        ("cache", "left", [f.kv if "cache" in several else "" for f in every]),
    ]
    columns += [
        (
            "purchase" if found.buy else "per hour",
            "right",
            [_paid(c, found) for c in found.choices],
        ),
        ("$/M out", "right", [_per_token(f, found) for f in every]),
        ("holds", "right", [_sure(c) for c in found.choices]),
        (f"TTFT{of}", "right", [seconds(_time(f.ttft_s, at)) for f in every]),
        (f"TPOT{of}", "right", [_tpot(_time(f.tpot_s, at)) for f in every]),
        ("80 % TPOT", "right", [_between(f.tpot_s) for f in every]),
    ]
    rated = found.asked.load.kind == "rate"
    use = [percent(f.use) if f.use is not None and rated else "" for f in every]
    columns += [
        ("load", "right", use),
        ("memory", "right", [binary(f.memory.peak_bytes) for f in every]),
    ]
    return columns


def _paid(c: ServingChoice, found: ServingChosen) -> str:
    usd = c.purchase_usd if found.buy else c.usd_per_hour
    return money(usd) if usd is not None else "no price"


def _per_token(f: ServingForecast, found: ServingChosen) -> str:
    usd = f.usd_per_million_output_all
    return money(usd) if usd and not found.buy else ""


def _sure(c: ServingChoice) -> str:
    return "" if c.slo_probability is None else sure(c.slo_probability)


def _time(s: Spread, at: int) -> float:
    """A time at a percentile; its mean where it has none."""
    found = {50: s.p50, 90: s.p90, 99: s.p99}[at]
    return s.mean if found is None else found


def _tpot(value: float) -> str:
    return seconds(value) if value > 0 else ""


def _between(s: Spread) -> str:
    if s.low is None or s.high is None or not s.mean > 0:
        return ""
    return f"{seconds(s.low)} to {seconds(s.high)}"


def _layout(c: ServingChoice) -> str:
    words = [f"{name} {n}" for name, n in c.layout.items() if n > 1]
    if c.replicas > 1:
        words.append(f"{c.replicas:,} replicas")
    return ", ".join(words) or "one device"


def serving_line(found: ServingChosen, c: ServingChoice) -> str:
    """The command that forecasts a choice alone."""
    load = found.asked.load
    named = shlex.join(["roofcast", "serving", found.asked.model, "--on", c.device])
    words = [f"{named} --devices {c.devices}"]
    words.append(f"--tp {c.layout['tp']}")
    words += [f"--{name} {c.layout[name]}" for name in ("pp", "ep", "dp") if c.layout[name] > 1]
    words += [f"--{name} {v}" for name in ("weights", "kv") if (v := getattr(c, name))]
    words += [shlex.join(more)] if (more := more_options(found.asked)) else []
    usd = c.forecast.price_usd_per_hour
    if usd is not None and usd != price_of(hwdb.device(c.device), None).usd_per_hour:
        words.append(f"--price {usd:.10g}")
    words.append(f"--input-len {load.input_len} --output-len {load.output_len}")
    words.append(f"--{load.kind} {load.amount:g}")
    return " ".join(words)
