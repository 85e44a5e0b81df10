"""The layers of a forecast as a table that sums to the step: their forward and backward passes, and
what lies outside these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from roofcast.reports.console import Justify, plain_table, unbroken
from roofcast.reports.format import binary, percent, seconds, short_names, si
from roofcast.reports.pages.layout import Loss, losses
from roofcast.reports.parts import Table
from roofcast.simulator.forecast.result import Forecast, LayerForecast

_LONGEST = 12  # layers with a row of their own; the rest share one
_WIDEST = 100
_NARROW = 70  # columns of the terminal below which only times are shown
_TIMES = ("op", "×", "time", "share", "bound by")
_OTHERS = {8: 57, 7: 47, 5: 30}  # width of all columns but the first, by the number of columns
_GROUPS = ("optimizer", "communication", "waiting", "overlapped")  # of time outside the layers
_HOST = "waiting for the host"
_ALL = "--json lists all"
_BOUNDS = (
    "bound by: matrix or vector units, memory bandwidth, latency (fixed cost of small kernels) or"
    " host (launches take longer than the kernels)"
)


def layer_table(forecast: Forecast, width: int) -> Table:
    """The longest layers, the sum of the others, what lies outside the layers, and the total.

    On one device the fifth column is what a layer saves for the backward pass, on several what it
    sends to other devices. width: of the terminal, without the indentation.
    """
    several = forecast.devices > 1
    columns = _columns(forecast, width)
    table = plain_table(*columns)
    table.wide = min(width, _WIDEST)
    add = _adder(table, forecast, [title for title, _ in columns])
    short = short_names([layer.name for layer in forecast.layers])
    rows = passes(forecast)
    named, rest = _named(rows)
    room = min(width, _WIDEST) - _OTHERS[len(columns)]
    for layer in named:
        add(_fit(short[layer.name], room), str(layer.count), _sums(forecast, [layer]), layer.bound)
    if rest:
        add(_others(rest, room), "", _sums(forecast, rest), "", "dim")
    lost = _outside(forecast)
    for loss in lost:
        bound = "host" if loss.name == _HOST else _update_bound(forecast, loss)
        add(loss.name, "", (loss.flops, loss.moved, loss.sent, loss.time), bound, "dim")
    add("total", "", _total(forecast, rows, lost, several), "", "bold")
    return table


def _update_bound(forecast: Forecast, loss: Loss) -> str:
    """What binds the optimizer's kernels, all of one kind; "" for any other row."""
    updates = [p for p in forecast.points if p.phase == "update"]
    if loss.name != "optimizer" or not updates:
        return ""
    moved, computed = (sum(getattr(p, field) for p in updates) for field in ("bytes", "flops"))
    return "memory" if moved > computed else ""  # every device computes more than it moves


def passes(forecast: Forecast) -> list[LayerForecast]:
    """The layers without their optimizer updates, which on one device are part of them, the longest
    first.
    """
    updates = {p.name: p for p in forecast.points if p.phase == "update"}
    rows = []
    for layer in forecast.layers:
        update = updates.get(layer.name) if layer.update_s > 0 else None
        row = msgspec.structs.replace(
            layer,
            time_s=layer.forward_s + layer.backward_s,
            flops=layer.flops - (update.flops if update else 0.0),
            bytes=layer.bytes - (update.bytes if update else 0.0),
        )
        rows.append(row)
    return sorted(rows, key=lambda row: -row.time_s)


def _named(rows: list[LayerForecast]) -> tuple[list[LayerForecast], list[LayerForecast]]:
    """The layers with a row of their own, and those that share one."""
    named = rows if len(rows) <= _LONGEST + 1 else rows[:_LONGEST]
    return named, rows[len(named) :]


def _others(rest: Sequence[LayerForecast], room: int) -> str:
    """The name of the row that the shorter layers share; where they are listed, if that fits."""
    full = f"{len(rest)} other rows ({_ALL})"
    return full if len(full) <= room else f"{len(rest)} other rows"


def _outside(forecast: Forecast) -> list[Loss]:
    """What lies outside the layers' forward and backward passes; with them it sums to the step."""
    lost = losses(forecast)
    left = forecast.step_time_s - sum(r.forward_s + r.backward_s for r in forecast.layers)
    left -= sum(loss.time for loss in lost)
    if abs(left) > 0.0005 * forecast.step_time_s:
        lost.append(Loss(_left(forecast, left), left))
    return lost


def table_note(forecast: Forecast, width: int) -> str:
    """What the rows and columns of a table of that width mean."""
    parts = []
    several = forecast.devices > 1
    if several:
        pipelined = forecast.layout is not None and forecast.layout.pp > 1
        stages = ", mean over the pipeline stages" if pipelined else ""
        unit = "step" if forecast.mode == "train" else "pass"
        parts.append(f"numbers of one device: its share of a {unit}, all micro-batches{stages}")
    passes = ", forward and backward" if forecast.mode == "train" else ""
    summed = "" if several else f"; a row sums all of them{passes}, small ops included"
    parts.append(f"×: how often the op occurs in the model{summed}")
    if width >= _NARROW:
        parts += _column_notes(forecast)
    if several:
        parts += _row_notes([loss.name for loss in _outside(forecast)])
    parts.append(_BOUNDS)
    _, rest = _named(list(forecast.layers))
    room = min(width, _WIDEST) - _OTHERS[len(_columns(forecast, width))]
    if rest and not _others(rest, room).endswith(")"):
        parts.append(f"{_ALL} rows")
    return "; ".join(parts)


def _row_notes(names: Sequence[str]) -> list[str]:
    """What the rows outside the layers mean that a step over several devices has."""
    notes = {
        "comm": "comm: the time of communication that compute does not overlap, and the bytes that"
        " belong to no op; an op's own bytes stand in its row, those of a gather that several"
        " ops share in the first",
        _HOST: "waiting for the host: beyond the time of the rows above",
        "pipeline bubble": "pipeline bubble: idle while the pipeline fills and drains",
        "uneven stages": "uneven stages: the slowest pipeline stage minus the mean",
    }
    return [text for name, text in notes.items() if any(n.startswith(name) for n in names)]


def _column_notes(forecast: Forecast) -> list[str]:
    """What the columns of FLOP and bytes mean."""
    attention = any(layer.op == "attention" for layer in forecast.layers)
    square = ", attention as if it had no mask" if attention else ""
    of_mfu = "matrix products and convolutions"
    if attention:
        of_mfu = "matrix products, convolutions and what the mask leaves of attention"
    again = ", no recomputation" if forecast.mode == "train" else ""
    parts = [f"FLOP: all arithmetic{square}; MFU counts only {of_mfu}{again}"]
    sums = ", sums of gradients at branches included" if forecast.mode == "train" else ""
    parts.append(f"traffic: bytes that the kernels of a row read and write in device memory{sums}")
    if forecast.devices > 1:
        parts.append("sent: to other devices")
    elif forecast.mode == "train":
        before = ", before recomputation" if forecast.recompute != "none" else ""
        once = "a tensor of several ops counts at the first of them in the model"
        parts.append(f"saved: activations kept for backward{before}; {once}")
    return parts


def _fifth(forecast: Forecast) -> str:
    """The title of the fifth column."""
    return "sent" if forecast.devices > 1 else "saved"


def _columns(forecast: Forecast, width: int) -> list[tuple[str, Justify]]:
    """The columns that a forecast and the width of the terminal leave room for."""
    fifth = _fifth(forecast)
    titles = ["op", "×", "FLOP", "traffic", fifth, "time", "share", "bound by"]
    if width < _NARROW:
        titles = [title for title in titles if title in _TIMES]
    elif fifth == "saved" and forecast.mode != "train":
        titles.remove(fifth)
    return [(title, "left" if title in ("op", "bound by") else "right") for title in titles]


Numbers = tuple[float | None, float | None, float | None, float]  # FLOP, traffic, fifth column, s


def _adder(table: Table, forecast: Forecast, titles: Sequence[str]) -> Callable[..., None]:
    """A function that adds a row: name, count, numbers, bound, style."""
    every = ("op", "×", "FLOP", "traffic", _fifth(forecast), "time", "share", "bound by")

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
    fields = ("flops", "bytes", "sent_bytes" if forecast.devices > 1 else "saved_bytes", "time_s")
    flops, moved, fifth, time = (sum(getattr(layer, f) for layer in layers) for f in fields)
    return flops, moved, fifth, time


def _total(
    forecast: Forecast, rows: Sequence[LayerForecast], lost: Sequence[Loss], several: bool
) -> Numbers:
    """The same of the whole step."""
    flops, moved, fifth, _ = _sums(forecast, rows)
    flops = (flops or 0.0) + sum(loss.flops or 0.0 for loss in lost)
    moved = (moved or 0.0) + sum(loss.moved or 0.0 for loss in lost)
    fifth = (fifth or 0.0) + (sum(loss.sent or 0.0 for loss in lost) if several else 0.0)
    return flops, moved, fifth, forecast.step_time_s


def _left(forecast: Forecast, seconds_left: float) -> str:
    """A name for the time of the step that no other row has."""
    if seconds_left < 0:
        return "overlapped"
    return "other" if forecast.layout else _HOST


def _fit(name: str, room: int) -> str:
    """A module path in at most `room` characters: cut from the left, or in the middle of its last
    part where that is longer, since both ends tell such names apart.

    >>> _fit("encoder.layer.attention.self.query", 17), _fit("h.post_attention_layernorm", 17)
    ('…ntion.self.query', 'post_att…ayernorm')
    """
    room, last = max(room, 8), name.rpartition(".")[2]
    if len(name) <= room:
        return name
    if len(last) < room:
        return "…" + name[1 - room :]
    head = room // 2
    return last if len(last) == room else f"{last[:head]}…{last[head + 1 - room :]}"


def by_kind(forecast: Forecast) -> str:
    """Share of the step by kind of op, largest first; those below 1 % together. With the optimizer,
    communication and waiting they sum to the step.
    """
    shares: dict[str, float] = {}
    times = [(layer.op, layer.forward_s + layer.backward_s) for layer in forecast.layers]
    times += [(_group(loss.name), loss.time) for loss in _outside(forecast)]
    for kind, time in times:
        shares[kind] = shares.get(kind, 0.0) + time / forecast.step_time_s
    shown = {kind for kind, share in shares.items() if share >= 0.01 or kind in _GROUPS}
    named = sorted(((shares[kind], kind) for kind in shown), reverse=True)
    rest = sum(share for kind, share in shares.items() if kind not in shown)
    others = [f"all others {percent(rest)}"] if rest > 0.0005 else []
    return ", ".join(map(unbroken, [f"{op} {percent(share)}" for share, op in named] + others))


def _group(loss: str) -> str:
    """What a row outside the layers counts as among the kinds of op."""
    if loss in _GROUPS:
        return loss
    return "communication" if loss.startswith(("comm:", "host-device")) else "waiting"
