"""Memory for reading: bytes at peak by kind, against the capacity, and what would make it fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roofcast.reports.console import Justify, page, plain_table, say, section, show
from roofcast.reports.format import binary, many, of, percent, short_names, words
from roofcast.reports.pages.asked import assumptions, what
from roofcast.reports.pages.layout import layout_line, on_what, stages_section
from roofcast.simulator.forecast.result import Forecast, LayerForecast, MemoryForecast
from roofcast.simulator.parallel.layout import Layout

_EIGHTHS = " ▏▎▍▌▋▊▉"
_KINDS = (
    ("parameters", "parameters_bytes"),
    ("gradients", "gradients_bytes"),
    ("optimizer states", "optimizer_bytes"),
    ("activations", "activations_bytes"),
    ("transient", "transient_bytes"),
    ("framework", "framework_bytes"),
)
_LONGEST = 12  # layers with a row of their own; the rest share one


def kinds(memory: MemoryForecast) -> list[tuple[str, float]]:
    """Bytes at peak by kind, without empty kinds."""
    return [(name, getattr(memory, field)) for name, field in _KINDS if getattr(memory, field) > 0]


def bar(share: float, width: int) -> str:
    """A bar `width` characters wide, filled to `share`, in steps of an eighth of a character.

    >>> bar(0.5, 8), bar(0.3, 4), bar(2.0, 3)
    ('████░░░░', '█▎░░', '███')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width, "░")


def memory_section(out: Console, forecast: Forecast) -> None:
    """A bar per kind of memory, the peak and the capacity, and whether it fits.

    All bars have one scale: the larger of peak and capacity.
    """
    memory = forecast.memory
    capacity = memory.capacity_bytes
    scale = max(memory.peak_bytes, capacity or 0.0) or 1.0
    room = max(min(out.width - 41, 40), 8)
    rows = [*kinds(memory), ("peak", memory.peak_bytes)]
    for name, value in [*rows, ("capacity", capacity)] if capacity else rows:
        share = percent(value / capacity) if capacity else ""
        line = Text(f"  {name:<17}{binary(value):>9}  ", style="bold" if name == "peak" else "")
        colour = "red" if name == "peak" and memory.fits is False else "cyan"
        line.append(bar(value / scale, room), style="" if name == "capacity" else colour)
        line.append(f" {share:>8}")
        out.print(line)
    say(out, verdict(forecast), style="bold red" if memory.fits is False else "")


def verdict(forecast: Forecast) -> str:
    """Whether the step fits, the largest batch, and what would help if it does not fit."""
    memory = forecast.memory
    when = f"at peak ({memory.peak_moment})"
    if memory.capacity_bytes is None:
        return f"needs {binary(memory.peak_bytes)} {when}; the device's capacity is unknown"
    if memory.fits:
        batch = f"; {_largest(forecast)}" if memory.largest_batch is not None else ""
        return f"fits: {of(memory.peak_bytes, memory.capacity_bytes)} {when}{batch}"
    need = f"needs {binary(memory.peak_bytes)} {when}, the device has"
    need += f" {binary(memory.capacity_bytes)}"
    return f"does not fit: {need}; {cure(forecast)}"


def _largest(forecast: Forecast) -> str:
    """The largest batch that fits, over several devices also per micro-batch."""
    most, layout = forecast.memory.largest_batch or 0, forecast.layout
    parts = layout.micro_batches * layout.dp if layout else 1
    each = f" ({most // parts:,} per micro-batch)" if parts > 1 else ""
    return f"largest batch that fits: {most:,}{each}"


def cure(forecast: Forecast) -> str:
    """What would make the step fit, judged by the kind of memory that is largest."""
    memory = forecast.memory
    if forecast.layout:
        return _parallel_cure(forecast, forecast.layout)
    recomputable = forecast.mode == "train" and forecast.recompute != "full"
    if memory.largest_batch:
        less = "; --recompute full would reduce activations" if recomputable else ""
        return f"{_largest(forecast)}{less}"
    fixed = memory.parameters_bytes + memory.gradients_bytes
    fixed += memory.optimizer_bytes + memory.framework_bytes
    capacity = memory.capacity_bytes or 0.0
    if fixed < capacity and recomputable:
        return "--recompute full would reduce activations"
    any_batch = f"{binary(fixed)} do not depend on the batch"
    if forecast.mode == "train" and memory.optimizer_bytes > 0.3 * fixed:
        states = f"{any_batch}, of these {binary(memory.optimizer_bytes)} are optimizer states"
        if fixed - memory.optimizer_bytes < capacity:
            smaller = "an optimizer with smaller states"
            return f"{states}: use {smaller}, a device with more memory, or several devices"
        return (
            f"{states}: use a device with more memory, or several devices (an optimizer with"
            " smaller states would not be enough)"
        )
    return f"{any_batch}: use a lower --precision, a device with more memory, or several devices"


def _parallel_cure(forecast: Forecast, layout: Layout) -> str:
    """What would make a layout fit that it does not do already."""
    training, transformer = forecast.mode == "train", bool(forecast.sequence)
    less = []
    if layout.micro_batch > 1 and not forecast.memory.largest_batch:
        less.append("a smaller --micro-batch")
    if training and forecast.recompute != "full" and transformer:
        less.append("--recompute full")
    wider = []
    if transformer:
        wider.append("a larger --tp or --pp" if training else "a larger --tp")
    if training and layout.zero < 3 and layout.dp * layout.cp > 1:
        wider.append("--zero 3" if layout.pp == 1 or layout.zero else "--zero 1")
    elif not wider:
        wider.append("more devices with --zero 3")
    parts = [_largest(forecast)] if forecast.memory.largest_batch else []
    parts += [f"{' or '.join(less)} would reduce activations"] if less else []
    return "; ".join([*parts, f"{', or '.join(wider)} would shard the model further"])


def print_memory(forecast: Forecast) -> None:
    """Print memory by kind, and by layer or, over several devices, by pipeline stage."""
    training, several = forecast.mode == "train", forecast.devices > 1
    with page() as out:
        title = f"memory of one {'training' if training else 'inference'} step"
        out.print(Text(f"{forecast.model} on {on_what(forecast)}: {title}", style="bold"))
        say(out, f"{what(forecast)}; {words(forecast.parameters)} parameters")
        if forecast.layout:
            say(out, layout_line(forecast.layout, forecast.system))
        section(out, f"By kind, at peak{', most loaded device' if several else ''}")
        memory_section(out, forecast)
        if forecast.layout:
            stages_section(out, forecast)
        else:
            section(out, "By layer")
            show(out, _layer_table(forecast))
            note = "weights: parameters"
            if training:
                note += " with their gradients and optimizer states"
                note += "; saved: activations kept for backward"
            say(out, note, style="dim")
        assumptions(out, forecast)


def _layer_table(forecast: Forecast) -> Table:
    """The layers that hold most."""
    memory = forecast.memory
    states = memory.parameters_bytes + memory.gradients_bytes + memory.optimizer_bytes
    weight = states / max(forecast.parameters, 1)  # bytes per parameter
    columns: list[tuple[str, Justify]] = [("layer", "left"), ("×", "right")]
    columns += [("parameters", "right"), ("weights", "right"), ("saved", "right")]
    table = plain_table(*columns, ("share", "right"))
    short = short_names([layer.name for layer in forecast.layers])
    held = [layer for layer in forecast.layers if layer.parameters or layer.saved_bytes]
    held.sort(key=lambda layer: -layer.parameters * weight - layer.saved_bytes)
    total = sum(layer.parameters * weight + layer.saved_bytes for layer in held) or 1.0

    def add(name: str, count: str, layers: Sequence[LayerForecast], style: str = "") -> None:
        parameters = sum(layer.parameters for layer in layers)
        saved = sum(layer.saved_bytes for layer in layers)
        weights = sum(layer.parameters * weight for layer in layers)
        share = percent((weights + saved) / total)
        cells = (name, count, many(parameters), binary(weights), binary(saved), share)
        table.add_row(*map(Text, cells), style=style)

    named = held if len(held) <= _LONGEST + 1 else held[:_LONGEST]
    for layer in named:
        add(short[layer.name], str(layer.count), [layer])
    if rest := held[len(named) :]:
        add(f"{len(rest)} other layers", "", rest, "dim")
    return table
