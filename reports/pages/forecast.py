"""A forecast for reading: headline, where the time goes, memory, what the training takes, one
sentence of diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roofcast.reports.console import page, plain_table, say, section, show
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
from roofcast.reports.pages.asked import assumptions, what
from roofcast.reports.pages.layout import between, devices_section, layout_line, losses, on_what
from roofcast.reports.pages.memory import memory_section
from roofcast.simulator.forecast.result import Forecast

_LONGEST = 14  # layers named; the rest share a line


def print_forecast(forecast: Forecast) -> None:
    """All of it, on stdout."""
    with page() as out:
        headline(out, forecast)
        section(out, "Where the time goes")
        show(out, layer_table(forecast, out.width - 2))
        if note := _table_note(forecast):
            say(out, note, style="dim")
        say(out, f"by kind of op: {by_kind(forecast)}")
        section(out, "Memory of the fullest device" if forecast.devices > 1 else "Memory")
        memory_section(out, forecast)
        if forecast.layout:
            devices_section(out, forecast)
        if forecast.time_to_train_s is not None:
            section(out, "The whole training")
            say(out, _length(forecast))
        if forecast.diagnosis:
            section(out, "Diagnosis")
            say(out, forecast.diagnosis)
        nearest_section(out, forecast)
        assumptions(out, forecast)


def nearest_section(out: Console, forecast: Forecast) -> None:
    """The measured runs that the interval leans on most, and how far their own forecasts were
    off.
    """
    if forecast.nearest:
        section(out, "Nearest measured runs")
        for run in forecast.nearest:
            off = f"forecast {percent(abs(run.error))} too {'long' if run.error > 0 else 'short'}"
            say(
                out,
                f"{run.name} on {run.device}, {run.stack} ({run.source}): {seconds(run.measured_s)}"
                f" measured, {off}",
                first="- ",
            )


def headline(out: Console, forecast: Forecast) -> None:
    """Model, device, what was asked; the step's time, rate and efficiency; the bound beside the
    estimate.
    """
    kind = "training" if forecast.mode == "train" else "inference"
    out.print(Text(f"{forecast.model} on {on_what(forecast)}: one {kind} step", style="bold"))
    say(out, f"{what(forecast)}; {words(forecast.parameters)} parameters")
    if forecast.layout:
        say(out, layout_line(forecast.layout, forecast.system))
    out.print()
    rates = [f"{seconds(forecast.step_time_s)} a step"]
    if forecast.tokens_per_s is not None:
        rates.append(f"{_rate(forecast.tokens_per_s)} tokens/s")
    if forecast.tokens_per_s_per_device is not None and forecast.devices > 1:
        rates.append(f"{_rate(forecast.tokens_per_s_per_device)} a device")
    rates.append(f"{_rate(forecast.samples_per_s)} samples/s")
    if forecast.mfu is not None:
        rates.append(f"MFU {percent(forecast.mfu)}")
    if forecast.hfu is not None and forecast.recompute != "none":
        rates.append(f"HFU {percent(forecast.hfu)}")
    say(out, "   ".join(rates), style="bold")
    say(out, _parts(forecast))
    ratio = forecast.step_time_s / forecast.lower_bound_s if forecast.lower_bound_s > 0 else None
    bound = f"no machine with the printed rates needs less than {seconds(forecast.lower_bound_s)}"
    say(out, bound + (f"; the estimate is {digits(ratio)} times that" if ratio else ""))
    if forecast.low_s is not None:
        say(
            out,
            f"80 % interval: {seconds(forecast.low_s)} to {seconds(forecast.high_s)}"
            f" ({forecast.interval_class})",
        )


def _rate(value: float) -> str:
    """A rate with thousands separated, three digits where small."""
    return f"{value:,.0f}" if value >= 1000 else digits(value)


def _parts(forecast: Forecast) -> str:
    parts = [f"forward {seconds(forecast.forward_s)}"]
    if forecast.mode == "train":
        parts += [
            f"backward {seconds(forecast.backward_s)}",
            f"optimizer {seconds(forecast.update_s)}",
        ]
    if forecast.host_s > 0:
        parts.append(f"beside them {seconds(forecast.host_s)} of the host to launch kernels")
    if forecast.between_steps_s > 0:
        parts.append(
            f"then {seconds(forecast.between_steps_s)} of the host between steps, which nothing"
            " hides"
        )
    return ", ".join(parts)


def layer_table(forecast: Forecast, width: int) -> Table:
    """The layers that take longest, what is left on one line, and the total, which is the step.

    What a layer keeps for backward stands in it on one device, what it sends on several.
    """
    training, several = forecast.mode == "train", forecast.devices > 1
    columns = [
        ("layer", "left"),
        ("×", "right"),
        ("FLOP", "right"),
        ("traffic", "right"),
        ("sent" if several else "saved", "right"),
        ("time", "right"),
        ("share", "right"),
        ("bound by", "left"),
    ]
    table = plain_table(*(column for column in columns if training or column[0] != "saved"))
    fifth = "sent_bytes" if several else "saved_bytes"
    table.width = min(width, 100)
    table.columns[0].ratio = 1

    def row(name, count, flops, moved, fifth, time, bound, style=None):
        other = (si(fifth, "B") if fifth else "") if several else binary(fifth)
        # as wide as the others
        share = percent(time / forecast.step_time_s).replace("< 0.1", "0.0")
        cells = [name, count, si(flops), si(moved, "B"), other, seconds(time), share, bound]
        if len(table.columns) < len(cells):
            del cells[4]
        table.add_row(*("" if cell == "—" else cell for cell in cells), style=style)

    def total(field, rows):
        return sum(getattr(r, field) for r in rows)

    short = short_names([layer.name for layer in forecast.layers])
    ordered = sorted(forecast.layers, key=lambda layer: -layer.time_s)
    named = ordered if len(ordered) <= _LONGEST + 1 else ordered[:_LONGEST]
    for layer in named:
        row(
            _fit(short[layer.name], width - (57 if training or several else 47)),
            str(layer.count),
            layer.flops,
            layer.bytes,
            getattr(layer, fifth),
            layer.time_s,
            layer.bound,
        )
    rest = ordered[len(named) :]
    if rest:
        row(
            f"and {len(rest)} smaller",
            "",
            total("flops", rest),
            total("bytes", rest),
            total(fifth, rest),
            total("time_s", rest),
            "",
            "dim",
        )
    left = forecast.step_time_s - sum(layer.time_s for layer in forecast.layers)
    lost = losses(forecast) if forecast.layout else between(forecast)
    for loss in lost:
        row(loss.name, "", loss.flops, loss.moved, loss.sent, loss.time, "", "dim")
        left -= loss.time
    if abs(left) > 0.0005 * forecast.step_time_s:
        why = _left(forecast, left)
        row(why, "", None, None, None, left, "host" if why.endswith("host") else "", "dim")
    row(
        "total",
        "",
        total("flops", ordered) + sum(loss.flops or 0.0 for loss in lost),
        total("bytes", ordered) + sum(loss.moved or 0.0 for loss in lost),
        total(fifth, ordered) + (sum(loss.sent or 0.0 for loss in lost) if several else 0.0),
        forecast.step_time_s,
        "",
        "bold",
    )
    return table


def _left(forecast: Forecast, seconds_left: float) -> str:
    """What the rest of a step is that no row says."""
    if seconds_left < 0:
        return "overlapped"
    return "in between" if forecast.layout else "waiting for the host"


def _table_note(forecast: Forecast) -> str:
    """What the numbers of the table are of, where that is not plain."""
    if forecast.devices > 1:
        return "of one device" + (
            ", the mean of the pipeline's stages" if forecast.layout.pp > 1 else ""
        )
    return (
        "saved: before recomputation, which keeps less of it"
        if forecast.recompute != "none"
        else ""
    )


def _fit(name: str, room: int) -> str:
    """A path cut from the left, where the model repeats itself.

    >>> _fit("encoder.layer.attention.self.query", 17)
    '…ntion.self.query'
    """
    return name if len(name) <= room else "…" + name[1 - max(room, 8) :]


def _length(forecast: Forecast) -> str:
    parts = [duration(forecast.time_to_train_s)]
    hour, each = ("a device and hour", " a device") if forecast.devices > 1 else ("an hour", "")
    if forecast.steps is not None:
        parts.append(f"{words(round(forecast.steps))} steps")
    if forecast.cost_usd is not None:
        price = (
            f" at {money(forecast.price_usd_per_hour)} {hour}"
            if forecast.price_usd_per_hour is not None
            else ""
        )
        parts.append(money(forecast.cost_usd) + price)
    elif forecast.price_usd_per_hour is None:
        parts.append("no price known (--price gives one)")
    if forecast.energy_j is not None:
        power = f" at {si(forecast.power_w, 'W')}{each}" if forecast.power_w is not None else ""
        parts.append(energy(forecast.energy_j) + power)
    return ", ".join(parts)


def by_kind(forecast: Forecast) -> str:
    """The share of each kind of op, largest first, those under a hundredth together."""
    shares: dict[str, float] = {}
    for layer in forecast.layers:
        shares[layer.op] = shares.get(layer.op, 0.0) + layer.time_s / forecast.step_time_s
    named = sorted(((share, op) for op, share in shares.items() if share >= 0.01), reverse=True)
    rest = sum(share for share in shares.values() if share < 0.01)
    others = [f"all others {percent(rest)}"] if rest > 0.0005 else []
    return ", ".join([f"{op} {percent(share)}" for share, op in named] + others)


def print_comparison(forecasts: Sequence[Forecast]) -> None:
    """One row a device."""
    first = forecasts[0]
    kind = "training" if first.mode == "train" else "inference"
    tokens = first.tokens_per_s is not None
    rate = "tokens/s" if tokens else "samples/s"
    columns = [
        ("device", "fold"),
        ("step", "right"),
        (rate, "right"),
        ("MFU", "right"),
        ("memory", "right"),
        ("fits", "left"),
    ]
    long = any(f.time_to_train_s is not None for f in forecasts)
    table = plain_table(*columns, *((("training", "right"), ("cost", "right")) if long else ()))
    for f in forecasts:
        cells = [
            on_what(f),
            seconds(f.step_time_s),
            _rate(f.tokens_per_s if tokens else f.samples_per_s),
            percent(f.mfu),
        ]
        cells += [binary(f.memory.peak_bytes), {True: "yes", False: "no", None: "—"}[f.memory.fits]]
        if long:
            cells += [
                duration(f.time_to_train_s),
                money(f.cost_usd) if f.cost_usd is not None else "—",
            ]
        table.add_row(*map(Text, cells))
    layouts = list(dict.fromkeys(layout_line(f.layout, f.system) for f in forecasts if f.layout))
    with page() as out:
        kinds = "kinds of devices" if any(f.devices > 1 for f in forecasts) else "devices"
        out.print(Text(f"{first.model}: one {kind} step on {len(forecasts)} {kinds}", style="bold"))
        for asked in dict.fromkeys(map(what, forecasts)):
            on = [on_what(f) for f in forecasts if what(f) == asked]
            say(out, asked if len(on) == len(forecasts) else f"{', '.join(on)}: {asked}")
        for line in layouts:
            say(out, line)
        out.print()
        show(out, table)
