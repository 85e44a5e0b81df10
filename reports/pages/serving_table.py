"""Forecasts of one server under several loads, for reading: a row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import binary, digits, money, rate, seconds
from roofcast.reports.pages.serving import on_devices, places, waiting
from roofcast.reports.parts import Console
from roofcast.simulator.serving.result import REPLAY, ServingForecast

REPLAYED = re.compile(r"(?:means and )?percentiles of ([\d,]+) (replayed requests.*)")


def print_table(found: Sequence[ServingForecast]) -> None:
    """Print forecasts of one server under several loads, a row each."""
    first = found[0]
    columns: list[tuple[str, Justify]] = [
        (_unit(first), "right"), ("TTFT", "right"), ("TPOT", "right"), ("end to end", "right"),
        ("tokens/s", "right"), ("per device", "right"), ("per user", "right"),
        ("peak memory", "right"), ("J/token", "right"), ("$/M out", "right"),
    ]  # fmt: skip
    rows = [
        [
            _amount(f) + (" *" if waiting(f) else ""),
            seconds(f.ttft_s.mean),
            seconds(f.tpot_s.mean),
            seconds(f.e2e_s.mean),
            rate(f.output_tokens_per_s),
            rate(f.output_tokens_per_s_per_device),
            rate(f.tokens_per_s_per_user),
            binary(f.memory.peak_bytes) + _mark(f),
            digits(f.energy_j_per_output_token) if f.energy_j_per_output_token else "",
            money(f.usd_per_million_output_all) if f.usd_per_million_output_all else "",
        ]
        for f in found
    ]
    with page() as out:
        say(out, f"{first.model} served on {on_devices(first)}", indent=0, style="bold")
        lengths = f"{number_of(first.input_len, 'token')} in, {first.output_len:,} out"
        say(out, f"{first.stack}, weights {first.weights}, KV cache {first.kv}; {lengths}")
        out.print()
        spare = ("peak memory", "J/token", "end to end", "per device", "$/M out")
        show(out, fitted_table(out.width - 2, columns, rows, spare))
        say(out, f"{_means(found)}; $/M out: all cost on the output tokens", style="dim")
        if not all(f.memory.fits for f in found):
            say(out, "!: more than the memory of the device", style="dim")
        if near := [f for f in found if _doubtful(f)]:
            say(out, f"?: may not fit, by measured peaks of memory: {_rows(near)}", style="dim")
        _wait_notes(out, found)
        if first.price_said:
            say(out, first.price_said[0], style="dim")
        _intervals(out, found)
        section(out, "Assumed")
        for each in _assumed(found):
            say(out, each, first="- ")


def _mark(f: ServingForecast) -> str:
    """Behind a peak of memory: whether it is too much."""
    return " ?" if _doubtful(f) else "" if f.memory.fits else " !"


def _doubtful(f: ServingForecast) -> bool:
    """Whether measured peaks leave open if a load fits."""
    return f.memory.fits and f.memory.fitting_share is not None


def _intervals(out: Console, found: Sequence[ServingForecast]) -> None:
    """The 80 % intervals of the rows, and what they are as wide as."""
    columns: list[tuple[str, Justify]] = [
        (_unit(found[0]), "right"), ("TTFT", "right"), ("TPOT", "right"), ("end to end", "right"),
        ("tokens/s", "right"), ("peak memory", "right"),
    ]  # fmt: skip
    rows = []
    for f in found:
        ends = [(t.low, t.high, seconds) for t in (f.ttft_s, f.tpot_s, f.e2e_s)]
        ends.append((*(f.output_tokens_per_s_range or (None, None)), rate))
        ends.append((f.memory.peak_bytes_low, f.memory.peak_bytes_high, binary))
        rows.append([_amount(f), *(_between(*each) for each in ends)])
    if not any(any(row[1:]) for row in rows):
        return
    section(out, "80 % intervals of the means")
    show(out, fitted_table(out.width - 2, columns, rows, ("peak memory", "end to end", "TTFT")))
    if found[0].interval_basis:
        say(out, found[0].interval_basis, style="dim")


def _between(low: float | None, high: float | None, words: Callable[[float], str]) -> str:
    """Both ends of an interval; nothing where there is none."""
    return "" if low is None or high is None else f"{words(low)} to {words(high)}"


def _assumed(found: Sequence[ServingForecast]) -> list[str]:
    """Assumptions of all rows; replays that differ in the number of requests alone in one line."""
    lines: dict[str, list[int]] = {}
    for line in (line for f in found for line in f.assumptions):
        counted = REPLAYED.match(line)
        text = f"means of # {counted[2]}" if counted else line
        lines.setdefault(text, []).append(int(counted[1].replace(",", "")) if counted else 0)
    ranges = {text: sorted({min(of), max(of)}) for text, of in lines.items()}
    return [
        text.replace("#", " to ".join(f"{n:,}" for n in of)) if of[-1] else text
        for text, of in ranges.items()
    ]


def _means(found: Sequence[ServingForecast]) -> str:
    """What the mean times and rates of rows are from."""
    some = [f for f in found if f.means == REPLAY]
    if not some:
        return "mean values in closed form"
    if len(some) == len(found):
        return "means of replayed requests"
    return f"means of replayed requests for {_rows(some)}, of the others in closed form"


def _rows(some: Sequence[ServingForecast]) -> str:
    """Rows by their users, or what else they differ in."""
    *first, last = map(_amount, some)
    numbers = f"{', '.join(first)} and {last}" if first else last
    if some[0].load == "concurrency":
        return f"{numbers} {'user' if numbers == '1' else 'users'}"
    return f"{_unit(some[0])} {numbers}"


def _amount(f: ServingForecast) -> str:
    """Users, requests per second or sequences of a row."""
    return f"{f.amount or 0:,.4g}" if f.load == "rate" else f"{f.amount or 0:,.0f}"


def _unit(f: ServingForecast) -> str:
    """What the rows of a table differ in."""
    return {"concurrency": "users", "rate": "requests/s", "batch": "batch"}.get(f.load, f.load)


def _wait_notes(out: Console, found: Sequence[ServingForecast]) -> None:
    """What a star means, and what the time to the first token is made of."""
    first = found[0]
    if any(map(waiting, found)):
        say(out, f"*: more users than the {places(first)}: some wait", style="dim")
    parts = {name: value for name, value in first.ttft_parts_s.items() if value > 0.0}
    if len(parts) > 1:
        made = " + ".join(f"{name} {seconds(value)}" for name, value in parts.items())
        say(out, f"TTFT of the first row = {made}", style="dim")
