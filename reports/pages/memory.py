"""Memory for reading: what needs how much, against what the device has, and what would help where
it is too much.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roofcast.reports.console import page, plain_table, say, section, show
from roofcast.reports.format import binary, many, of, percent, short_names, words
from roofcast.reports.pages.asked import assumptions, what
from roofcast.reports.pages.layout import layout_line, on_what, stages_section
from roofcast.simulator.forecast.result import Forecast, MemoryForecast

_EIGHTHS = " ▏▎▍▌▋▊▉"
_KINDS = (
    ("parameters", "parameters_bytes"),
    ("gradients", "gradients_bytes"),
    ("optimizer states", "optimizer_bytes"),
    ("activations", "activations_bytes"),
    ("transient", "transient_bytes"),
    ("framework", "framework_bytes"),
)
_LONGEST = 12


def kinds(memory: MemoryForecast) -> list[tuple[str, float]]:
    """What stands in memory at the fullest moment, by kind, empty kinds left out."""
    return [(name, getattr(memory, field)) for name, field in _KINDS if getattr(memory, field) > 0]


def bar(share: float, width: int) -> str:
    """A bar of so many characters' room, to an eighth of one.

    >>> bar(0.5, 8), bar(0.3, 4), bar(2.0, 3)
    ('████░░░░', '█▎░░', '███')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width, "░")


def memory_section(out: Console, forecast: Forecast) -> None:
    """A bar a kind, all on the scale of the capacity (of the need, where that is more), and whether
    it fits.
    """
    memory = forecast.memory
    scale = max(memory.peak_bytes, memory.capacity_bytes or 0.0) or 1.0
    room = max(min(out.width - 41, 40), 8)
    rows = [*kinds(memory), ("peak", memory.peak_bytes)]
    for name, value in rows:
        style = "bold" if name == "peak" else None
        share = percent(value / memory.capacity_bytes) if memory.capacity_bytes else ""
        line = Text(f"  {name:<17}{binary(value):>9}  ", style=style or "")
        line.append(
            bar(value / scale, room),
            style="red" if name == "peak" and memory.fits is False else "cyan",
        )
        line.append(f" {share:>8}")
        out.print(line)
    if memory.capacity_bytes:
        line = (
            f"  {'capacity':<17}{binary(memory.capacity_bytes):>9} "
            f" {bar(memory.capacity_bytes / scale, room)} {percent(1.0):>8}"
        )
        out.print(Text(line))
    say(out, verdict(forecast), style="bold red" if memory.fits is False else "")


def verdict(forecast: Forecast) -> str:
    """Whether it fits, the largest batch, and, where it does not fit, what would help."""
    memory = forecast.memory
    when = f"at the fullest moment ({memory.peak_moment})"
    if memory.capacity_bytes is None:
        return f"needs {binary(memory.peak_bytes)} {when}; the device's capacity is not known"
    if memory.fits:
        batch = f"; {_largest(forecast)}" if memory.largest_batch is not None else ""
        return f"fits: {of(memory.peak_bytes, memory.capacity_bytes)} {when}{batch}"
    return (
        f"does not fit: needs {of(memory.peak_bytes, memory.capacity_bytes)} {when};"
        f" {cure(forecast)}"
    )


def _largest(forecast: Forecast) -> str:
    """The largest batch, and over several devices what of it is one micro-batch."""
    most, layout = forecast.memory.largest_batch, forecast.layout
    parts = layout.micro_batches * layout.dp if layout else 1
    return f"the largest batch that fits is {most:,}" + (
        f", {most // parts} a micro-batch" if parts > 1 else ""
    )


def cure(forecast: Forecast) -> str:
    """What would make it fit, from what there is most of."""
    memory = forecast.memory
    if forecast.layout:
        return _spread_cure(forecast)
    if memory.largest_batch:
        smaller = _largest(forecast)
        return (
            smaller
            if forecast.recompute == "full" or forecast.mode == "infer"
            else f"{smaller}; --recompute full would keep less"
        )
    fixed = (
        memory.parameters_bytes
        + memory.gradients_bytes
        + memory.optimizer_bytes
        + memory.framework_bytes
    )
    if fixed < memory.capacity_bytes and forecast.mode == "train" and forecast.recompute != "full":
        return "--recompute full would keep fewer activations"
    if forecast.mode == "train" and memory.optimizer_bytes > 0.3 * fixed:
        without = fixed - memory.optimizer_bytes
        would = "would do" if without < memory.capacity_bytes else "would help, yet not be enough"
        return (
            f"{binary(fixed)} of it are there at any batch, {binary(memory.optimizer_bytes)} of"
            f" them optimizer states: an optimizer with smaller states {would}; else a device with"
            " more memory"
        )
    return (
        f"{binary(fixed)} of it are there at any batch: lower --precision, or a device with more"
        " memory"
    )


def _spread_cure(forecast: Forecast) -> str:
    """What would make a layout fit, of what it does not do already."""
    layout, training = forecast.layout, forecast.mode == "train"
    less = []
    if layout.micro_batch > 1 and not forecast.memory.largest_batch:
        less.append("a smaller --micro-batch")
    if training and forecast.recompute != "full" and forecast.sequence:
        less.append("--recompute full")
    wider = (
        ["more --tp or --pp"]
        if training and forecast.sequence
        else ["more --tp"]
        if forecast.sequence
        else []
    )
    if training and layout.zero < 3 and layout.dp * layout.cp > 1:
        wider.append("--zero 3" if layout.pp == 1 or layout.zero else "--zero 1")
    elif not wider:
        wider.append("more devices under --zero 3")
    words = [_largest(forecast)] if forecast.memory.largest_batch else []
    words += [f"{' or '.join(less)} would keep fewer activations"] if less else []
    return "; ".join([*words, f"{', or '.join(wider)} would spread what is held"])


def print_memory(forecast: Forecast) -> None:
    """What of the model needs how much: by kind; by layer, or over several devices by stage."""
    kind = "training" if forecast.mode == "train" else "inference"
    with page() as out:
        out.print(
            Text(
                f"{forecast.model} on {on_what(forecast)}: memory of one {kind} step", style="bold"
            )
        )
        say(out, f"{what(forecast)}; {words(forecast.parameters)} parameters")
        if forecast.layout:
            say(out, layout_line(forecast.layout, forecast.system))
        section(
            out,
            "By kind, at the fullest"
            f" moment{' of the fullest device' if forecast.devices > 1 else ''}",
        )
        memory_section(out, forecast)
        if forecast.layout:
            stages_section(out, forecast)
        else:
            section(out, "By layer")
            show(out, _holders(forecast))
            say(
                out,
                "weights: parameters with their gradients and optimizer states; saved: kept from"
                " forward to backward",
                style="dim",
            )
        assumptions(out, forecast)


def _holders(forecast: Forecast) -> Table:
    """The layers that hold most."""
    memory = forecast.memory
    weight = (memory.parameters_bytes + memory.gradients_bytes + memory.optimizer_bytes) / max(
        forecast.parameters, 1
    )
    columns = (
        ("layer", "left"),
        ("×", "right"),
        ("parameters", "right"),
        ("weights", "right"),
        ("saved", "right"),
        ("share", "right"),
    )
    table = plain_table(*columns)
    short = short_names([layer.name for layer in forecast.layers])
    held = [
        (layer, layer.parameters * weight, layer.saved_bytes)
        for layer in forecast.layers
        if layer.parameters or layer.saved_bytes
    ]
    held.sort(key=lambda row: -row[1] - row[2])
    total = sum(weights + saved for _, weights, saved in held) or 1.0

    def row(name, count, parameters, weights, saved, style=None):
        cells = (
            name,
            count,
            many(parameters),
            binary(weights),
            binary(saved),
            percent((weights + saved) / total),
        )
        table.add_row(*map(Text, cells), style=style)

    named = held if len(held) <= _LONGEST + 1 else held[:_LONGEST]
    for layer, weights, saved in named:
        row(short[layer.name], str(layer.count), layer.parameters, weights, saved)
    rest = held[len(named) :]
    if rest:
        layers, weights, saved = zip(*rest, strict=True)
        row(
            f"and {len(rest)} smaller",
            "",
            sum(layer.parameters for layer in layers),
            sum(weights),
            sum(saved),
            "dim",
        )
    return table
