"""The layers of a forecast as a table that sums to the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from roofcast.reports.console import Justify, plain_table, unbroken
from roofcast.reports.format import binary, percent, seconds, short_names, si
from roofcast.reports.pages.layout import Loss, between, losses
from roofcast.simulator.forecast.result import Forecast, LayerForecast

_LONGEST = 14  # layers with a row of their own; the rest share one
_WIDEST = 100
_NARROW = 70  # columns of the terminal below which only times are shown
_TIMES = ("layer", "×", "time", "share", "bound by")
_OTHERS = {8: 57, 7: 47, 5: 30}  # width of all columns but the first, by the number of columns
_SUMMED = ("flops", "bytes", "time_s")


def layer_table(forecast: Forecast, width: int) -> Table:
    """The longest layers, the sum of the others, what lies outside the layers, and the total.

    On one device the fifth column is what a layer saves for the backward pass, on several what it
    sends to other devices. width: of the terminal, without the indentation.
    """
    several = forecast.devices > 1
    columns = _columns(forecast, width)
    table = plain_table(*columns)
    table.width = min(width, _WIDEST)
    table.columns[0].ratio = 1
    add = _adder(table, forecast, [title for title, _ in columns])
    short = short_names([layer.name for layer in forecast.layers])
    ordered = sorted(forecast.layers, key=lambda layer: -layer.time_s)
    named = ordered if len(ordered) <= _LONGEST + 1 else ordered[:_LONGEST]
    room = min(width, _WIDEST) - _OTHERS[len(columns)]
    for layer in named:
        add(_fit(short[layer.name], room), str(layer.count), _sums(forecast, [layer]), layer.bound)
    if rest := ordered[len(named) :]:
        add(f"{len(rest)} other layers", "", _sums(forecast, rest), "", "dim")
    lost = losses(forecast) if forecast.layout else between(forecast)
    for loss in lost:
        add(loss.name, "", (loss.flops, loss.moved, loss.sent, loss.time), "", "dim")
    left = forecast.step_time_s - sum(row.time_s for row in forecast.layers)
    left -= sum(loss.time for loss in lost)
    if abs(left) > 0.0005 * forecast.step_time_s:
        why = _left(forecast, left)
        add(why, "", (None, None, None, left), "host" if why.endswith("host") else "", "dim")
    add("total", "", _total(forecast, lost, several), "", "bold")
    return table


def table_note(forecast: Forecast, width: int) -> str:
    """What the columns of a table of that width mean."""
    parts = ["×: number of such layers, summed in the row"]
    several = forecast.devices > 1
    if several:
        pipelined = forecast.layout is not None and forecast.layout.pp > 1
        parts.insert(0, f"per device{', mean over the pipeline stages' if pipelined else ''}")
    if width >= _NARROW:
        parts.append("traffic: of device memory")
        if several:
            parts.append("sent: to other devices")
        elif forecast.mode == "train":
            before = ", before recomputation" if forecast.recompute != "none" else ""
            parts.append(f"saved: activations kept for backward{before}")
    if several:
        parts.append("comm: communication that compute does not overlap")
    return "; ".join(parts)


def _fifth(forecast: Forecast) -> str:
    """The title of the fifth column."""
    return "sent" if forecast.devices > 1 else "saved"


def _columns(forecast: Forecast, width: int) -> list[tuple[str, Justify]]:
    """The columns that a forecast and the width of the terminal leave room for."""
    fifth = _fifth(forecast)
    titles = ["layer", "×", "FLOP", "traffic", fifth, "time", "share", "bound by"]
    if width < _NARROW:
        titles = [title for title in titles if title in _TIMES]
    elif fifth == "saved" and forecast.mode != "train":
        titles.remove(fifth)
    return [(title, "left" if title in ("layer", "bound by") else "right") for title in titles]


Numbers = tuple[float | None, float | None, float | None, float]  # FLOP, traffic, fifth column, s


def _adder(table: Table, forecast: Forecast, titles: Sequence[str]) -> Callable[..., None]:
    """A function that adds a row: name, count, numbers, bound, style."""
    every = ("layer", "×", "FLOP", "traffic", _fifth(forecast), "time", "share", "bound by")

    def add(name: str, count: str, numbers: Numbers, bound: str, style: str | None = None) -> None:
        flops, moved, fifth, time = numbers
        other = binary(fifth) if forecast.devices == 1 else si(fifth, "B") if fifth else ""
        # as wide as the other shares
        share = percent(time / forecast.step_time_s).replace("< 0.1", "0.0")
        texts = (name, count, si(flops), si(moved, "B"), other, seconds(time), share, bound)
        cells = dict(zip(every, texts, strict=True))
        table.add_row(*(cells[title].replace("—", "") for title in titles), style=style)

    return add


def _sums(forecast: Forecast, layers: Sequence[LayerForecast]) -> Numbers:
    """FLOP, traffic, saved or sent bytes, and seconds of layers together."""
    flops, moved, time = (sum(getattr(layer, field) for layer in layers) for field in _SUMMED)
    fifth = "sent_bytes" if forecast.devices > 1 else "saved_bytes"
    return flops, moved, sum(getattr(layer, fifth) for layer in layers), time


def _total(forecast: Forecast, lost: Sequence[Loss], several: bool) -> Numbers:
    """The same of the whole step."""
    flops, moved, fifth, _ = _sums(forecast, forecast.layers)
    flops = (flops or 0.0) + sum(loss.flops or 0.0 for loss in lost)
    moved = (moved or 0.0) + sum(loss.moved or 0.0 for loss in lost)
    fifth = (fifth or 0.0) + (sum(loss.sent or 0.0 for loss in lost) if several else 0.0)
    return flops, moved, fifth, forecast.step_time_s


def _left(forecast: Forecast, seconds_left: float) -> str:
    """A name for the time of the step that no other row has."""
    if seconds_left < 0:
        return "overlapped"
    return "other" if forecast.layout else "waiting for the host"


def _fit(name: str, room: int) -> str:
    """A module path, cut from the left to `room` characters.

    >>> _fit("encoder.layer.attention.self.query", 17)
    '…ntion.self.query'
    """
    return name if len(name) <= room else "…" + name[1 - max(room, 8) :]


def by_kind(forecast: Forecast) -> str:
    """Share of the step by kind of op, largest first; those below 1 % together."""
    shares: dict[str, float] = {}
    for layer in forecast.layers:
        shares[layer.op] = shares.get(layer.op, 0.0) + layer.time_s / forecast.step_time_s
    named = sorted(((share, op) for op, share in shares.items() if share >= 0.01), reverse=True)
    rest = sum(share for share in shares.values() if share < 0.01)
    others = [f"all others {percent(rest)}"] if rest > 0.0005 else []
    return ", ".join(map(unbroken, [f"{op} {percent(share)}" for share, op in named] + others))
