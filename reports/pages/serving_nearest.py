"""The measured servers most like a forecast one, and how far their own forecasts are off."""

from __future__ import annotations

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import say, section
from roofcast.reports.format import digits, percent
from roofcast.reports.parts import Console
from roofcast.simulator.serving.result import NearServer, ServingForecast

WHAT = {  # quantity -> how it is called, what a value above and below the measured one is
    "ttft": ("TTFT", "long", "short"),
    "tpot": ("TPOT", "long", "short"),
    "output": ("output tokens/s", "high", "low"),
    "prefill": ("prefill tokens/s", "high", "low"),
}
LOADS = {
    "batch": "static batches of {}",
    "concurrency": "{} users",
    "rate": "{} requests/s",
    "offline": "all requests queued",
}
FITTED = "fitted: constants of time were fitted to such runs, so yours may be farther off"


def show_nearest(out: Console, f: ServingForecast) -> None:
    """A line for each of the most similar measured servers."""
    if not f.nearest:
        return
    section(out, "Most similar measured servers (in model, device, software, format and load)")
    for near in f.nearest:
        say(out, words(near), first="- ")
    if any(near.fitted for near in f.nearest):
        say(out, FITTED, style="dim")


def words(near: NearServer) -> str:
    """A series of measured runs in one sentence."""
    on = f"{near.devices:,} × {near.device}" if near.devices > 1 else near.device
    alone = near.load == "batch" and near.amount == (1, 1)
    load = "one prompt at a time" if alone else LOADS[near.load].format(_range(*near.amount))
    lengths = f"{_range(*near.input_len)} in, {_range(*near.output_len)} out"
    what = f"{near.model}, {near.weights} weights, on {on}, {near.stack}, {load}, {lengths}"
    runs = f"{number_of(near.runs, 'run')}{', fitted' if near.fitted else ''}"
    return f"{what} ({near.source}; {runs}): forecasts {', '.join(_errors(near))}"


def _errors(near: NearServer) -> list[str]:
    """The median error of each quantity; of a rate that says the same as TPOT, none."""
    shown = [q for q in WHAT if q in near.errors]
    if "tpot" in shown and "output" in shown:
        shown.remove("output")
    if "ttft" in shown and "prefill" in shown:
        shown.remove("ttft")
    found = []
    for quantity in shown:
        name, above, below = WHAT[quantity]
        error = near.errors[quantity]
        how = f"{percent(abs(error))} too {above if error > 0 else below}" if error else "right"
        found.append(f"of {name} {how}")
    return [f"{found[0]} in the median", *found[1:]]


def _range(least: float, most: float) -> str:
    """
    >>> _range(1.0, 64.0), _range(1024, 1024), _range(0.5, 2.5)
    ('1 to 64', '1,024', '0.500 to 2.50')
    """
    if least == most:
        return _number(least)
    return f"{_number(least)} to {_number(most)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else digits(value)
