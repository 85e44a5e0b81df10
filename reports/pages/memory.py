"""Memory for reading: bytes at peak by kind, against the capacity, and what would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import (
    binary,
    duration,
    many,
    of,
    percent,
    rate,
    seconds,
    short_names,
    words,
)
from roofcast.reports.pages.asked import assumptions, pass_or_step, trained, what
from roofcast.reports.pages.layout import layout_line, offloaded, on_what, stages_section
from roofcast.reports.parts import Console, Table, Text
from roofcast.simulator.forecast.memory_error import share_below
from roofcast.simulator.forecast.result import Fitting, Forecast, LayerForecast
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.precision import fewest_weight_bytes, weight_bytes

_EIGHTHS = " ▏▎▍▌▋▊▉"
_KINDS = (
    ("parameters", "parameters_bytes"),
    ("gradients", "gradients_bytes"),
    ("optimizer states", "optimizer_bytes"),
    ("activations", "activations_bytes"),
    ("transient", "transient_bytes"),
    ("framework", "framework_bytes"),
)
KINDS = (*(name for name, _ in _KINDS[:-1]), "communication buffers", "KV cache", "framework")
_STATES = ("parameters", "gradients", "optimizer states")  # do not depend on the batch
_LEAST = 1.25  # bytes per weight, over the fewest possible, from which a lower precision helps
_LONGEST = 12  # layers with a row of their own; the rest share one


def kinds(forecast: Forecast) -> list[tuple[str, float]]:
    """Bytes at peak by kind, without empty kinds.

    Over several devices, buffers for communication are a kind of their own, not transient.
    """
    ranks = forecast.ranks
    buffers = max(ranks, key=lambda rank: rank.peak_bytes).buffers_bytes if ranks else 0.0
    found = {name: getattr(forecast.memory, field) for name, field in _KINDS}
    found["transient"] -= buffers
    found["communication buffers"] = buffers
    found["KV cache"] = forecast.memory.kv_cache_bytes or 0.0
    found["framework"] = found.pop("framework")  # the last one
    return [(name, value) for name, value in found.items() if value > 0]


def bar(share: float, width: int) -> str:
    """A bar `width` characters wide, filled to `share`, in steps of an eighth of a character.

    >>> bar(0.5, 8), bar(0.3, 4), bar(2.0, 3)
    ('████░░░░', '█▎░░', '███')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width, "░")


def memory_section(out: Console, forecast: Forecast) -> None:
    """A heading, a bar per kind of memory, the peak and the capacity, and whether it fits.

    All bars have one scale: the larger of peak and capacity.
    """
    section(out, _heading(forecast))
    memory = forecast.memory
    capacity = memory.capacity_bytes
    scale = max(memory.peak_bytes, capacity or 0.0) or 1.0
    rows = [*kinds(forecast), ("peak", memory.peak_bytes)]
    names = max(len("optimizer states"), *(len(name) for name, _ in rows)) + 1
    room = min(out.width - 24 - names, 40)
    for name, value in [*rows, ("capacity", capacity)] if capacity else rows:
        share = percent(value / capacity) if capacity else ""
        line = Text(
            f"  {name:<{names}}{binary(value):>9}  ", style="bold" if name == "peak" else ""
        )
        colour = "red" if name == "peak" and memory.fits is False else "cyan"
        line.append(
            bar(value / scale, room if room >= 8 else 0), style="" if name == "capacity" else colour
        )
        line.append(f" {share:>8}")
        out.print(line)
    say(out, verdict(forecast), style="bold red" if memory.fits is False else "")
    if forecast.offloaded_bytes:
        say(out, offloaded(forecast))
    if note := _note(forecast):
        say(out, note, style="dim")


def _heading(forecast: Forecast) -> str:
    """The title of the bars: of which device, and at which moment of the step."""
    if forecast.devices == 1:
        return f"Memory at peak ({forecast.memory.peak_moment})"
    if len(forecast.ranks) < 2:
        return f"Memory at peak, per device ({forecast.memory.peak_moment})"
    fullest, stages = max(forecast.ranks, key=lambda rank: rank.peak_bytes), len(forecast.ranks)
    names = {
        0: f"first of {stages} pipeline stages",
        stages - 1: f"last of {stages} pipeline stages",
    }
    stage = names.get(fullest.stage, f"pipeline stage {fullest.stage} of 0 to {stages - 1}")
    return f"Memory at peak, most loaded device ({stage})"


def _note(forecast: Forecast) -> str:
    """What the kinds of memory mean whose names do not tell."""
    transient = "gradients of activations, recomputed layers, temporary buffers of the optimizer"
    if forecast.mode != "train":
        transient = "inputs and outputs of the largest op"
    texts = {
        "transient": f"transient: {transient}",
        "communication buffers": "communication buffers: gathered weights, gradient buckets",
        "framework": "framework: device context (such as CUDA's), libraries, allocator overhead",
    }
    shown = [name for name, _ in kinds(forecast)]
    said = [text for name, text in texts.items() if name in shown]
    if forecast.mode == "train" and "gradients" not in shown:
        said.insert(0, "gradients: none, those of parameters do not exist yet at this moment")
    elif forecast.layout is not None and "parameters" in forecast.layout.offload:
        said.insert(0, "gradients: of two layers, before they leave for the host")
    elif forecast.devices > 1 and forecast.mode == "train":
        said.insert(0, "gradients: of all parameters, summed over micro-batches")
    if forecast.memory.capacity_bytes:
        said.insert(0, "percent: of the capacity")
    m = forecast.memory
    if m.installed_bytes:
        said[0] += f", which is what programs can allocate of {binary(m.installed_bytes)}"
    if doubtful(forecast) or m.largest_batch_surely not in (None, m.largest_batch):
        said.append("may fit: the capacity lies within the 80 % interval of the peak")
    return "; ".join(said)


def shortage(forecast: Forecast) -> str:
    """How much memory a step that does not fit needs, beside the capacity."""
    memory = forecast.memory
    needed = f"needs {binary(memory.peak_bytes)} per device"
    return f"{needed}, capacity {binary(memory.capacity_bytes)}{doubtful(forecast)}"


def teacher_shortage(forecast: Forecast) -> str:
    """That a teacher does not fit devices of its own, as the same is said of a step; empty where it
    does.
    """
    teacher = forecast.teacher
    if teacher is None or teacher.fits is not False or teacher.capacity_bytes is None:
        return ""
    many = f"{teacher.devices} x {teacher.device}" if teacher.devices > 1 else teacher.device
    return (
        f"teacher {teacher.model} on {many} does not fit: needs {binary(teacher.peak_bytes)} per"
        f" device, capacity {binary(teacher.capacity_bytes)}; times are as if it did"
    )


def doubtful(forecast: Forecast) -> str:
    """Where measured runs leave open whether the step fits: where 80 % of their peaks lie."""
    m = forecast.memory
    if m.low_bytes is None or m.high_bytes is None or m.capacity_bytes is None:
        return ""
    below = share_below(m.low_bytes, m.high_bytes, m.capacity_bytes)
    if below is None:
        return ""
    low, high = (side / m.peak_bytes for side in (m.low_bytes, m.high_bytes))
    return (
        f" (80 % interval: {binary(m.low_bytes)} to {binary(m.high_bytes)}, as measured peaks were"
        f" {low:.2f} to {high:.2f} times their forecast: about {10.0 * below:.0f} of 10 such runs"
        " fit)"
    )


def peak(forecast: Forecast) -> str:
    """The peak of a step that fits, in a line for the headline."""
    memory = forecast.memory
    near = ": may fit" if doubtful(forecast) else ": fits"
    return f"peak memory {of(memory.peak_bytes, memory.capacity_bytes or 0.0)}{near}"


def verdict(forecast: Forecast) -> str:
    """Whether the step fits, the largest batch, and what would help if it does not fit."""
    memory = forecast.memory
    if memory.capacity_bytes is None:
        return f"needs {binary(memory.peak_bytes)}; the device's capacity is unknown"
    if memory.fits:
        batch = f"; {_largest(forecast)}" if memory.largest_batch is not None else ""
        used = of(memory.peak_bytes, memory.capacity_bytes)
        near = doubtful(forecast)
        return f"{'may fit' if near else 'fits'}: {used}{near}{batch}"
    does_not = "may not fit" if doubtful(forecast) else "does not fit"
    return f"{does_not}: {shortage(forecast)}; {cure(forecast)}"


def _largest(forecast: Forecast) -> str:
    """The largest batch that fits, over several devices also the size of a micro-batch."""
    most, layout = forecast.memory.largest_batch or 0, forecast.layout
    surely = forecast.memory.largest_batch_surely
    if layout is None or layout.micro_batches * layout.dp == 1:
        return f"largest batch that {_up_to(most, surely, '')}"
    n = layout.micro_batches
    parts = (
        f"{number_of(n, 'micro-batch', 'micro-batches')}{' per DP rank' if layout.dp > 1 else ''}"
    )
    each, sure = (b // (n * layout.dp) for b in (most, most if surely is None else surely))
    unit = f" sample{'' if each == 1 else 's'}"
    largest = f"largest micro-batch that {_up_to(each, sure, unit)}"
    return f"{largest} (global batch {most:,} with {parts})"


def _up_to(most: int, surely: int | None, unit: str) -> str:
    """Up to which size a batch fits, and up to which it may.

    >>> _up_to(4, 4, ""), _up_to(4, 3, ""), _up_to(2, 0, " samples")
    ('fits: 4', 'fits: 3; that may fit: 4', 'may fit: 2 samples')
    """
    if surely is None or surely == most:
        return f"fits: {most:,}{unit}"
    return f"{f'fits: {surely:,}; that ' if surely else ''}may fit: {most:,}{unit}"


def cure(forecast: Forecast) -> str:
    """What would make the step fit, judged by the kind of memory that is largest."""
    memory = forecast.memory
    if forecast.layout:
        return _parallel_cure(forecast, forecast.layout)
    recomputable = forecast.mode == "train" and forecast.recompute != "full"
    if memory.largest_batch:
        less = "; --recompute full would reduce activations" if recomputable else ""
        return f"{_largest(forecast)}{less}"
    states = [(name, value) for name, value in kinds(forecast) if name in _STATES]
    alone = sum(value for _, value in states)
    fixed, capacity = alone + memory.framework_bytes, memory.capacity_bytes or 0.0
    if fixed < capacity and recomputable:
        return "--recompute full would reduce activations"
    need = f"{listed([name for name, _ in states])} alone need {binary(alone)}"
    other = "a device with more memory, or several devices"
    if forecast.mode == "train" and memory.optimizer_bytes > 0.3 * fixed:
        enough = fixed - memory.optimizer_bytes < capacity
        return f"{need}: use {'an optimizer with smaller states, ' if enough else ''}{other}"
    training = forecast.mode == "train"
    least = weight_bytes(forecast.precision, training) <= _LEAST * fewest_weight_bytes(training)
    return f"{need}: use {'' if least else 'a lower --precision, '}{other}"


def listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _parallel_cure(forecast: Forecast, layout: Layout) -> str:
    """What would make a layout fit that it does not do already."""
    training, transformer = forecast.mode == "train", bool(forecast.sequence)
    less = []
    if layout.micro_batch > 1 and not forecast.memory.largest_batch:
        less.append("a smaller --micro-batch")
    if training and forecast.recompute != "full" and transformer:
        less.append("--recompute full")
    if _fixed(forecast) >= (forecast.memory.capacity_bytes or 0.0):
        less = []  # what does not depend on the batch does not fit
    wider = []
    experts = any(layer.op == "experts" for layer in forecast.layers)
    if experts and layout.ep * layout.etp < layout.tp * layout.cp * layout.dp:
        wider.append("a larger --ep or --etp")  # a larger --tp alone leaves experts whole
    elif transformer:
        more = "" if layout.dp > 1 else "more devices with "
        wider.append(f"{more}a larger --tp or --pp" if training else f"{more}a larger --tp")
    if training and layout.zero < 3 and layout.dp * layout.cp > 1:
        wider.append("--zero 3" if layout.pp == 1 or layout.zero else "--zero 1")
    elif not wider:
        wider.append("more devices with --zero 3")
    parts = [_largest(forecast)] if forecast.memory.largest_batch else []
    parts += [f"{' or '.join(less)} would reduce activations"] if less else []
    return "; ".join([*parts, f"{', or '.join(wider)} would shard the model further"])


def _fixed(forecast: Forecast) -> float:
    """Bytes that do not depend on the batch."""
    states = sum(value for name, value in kinds(forecast) if name in _STATES)
    return states + forecast.memory.framework_bytes


def print_memory(forecast: Forecast) -> None:
    """Print memory by kind, and by op or, over several devices, by pipeline stage."""
    with page() as out:
        title = f"memory of one {pass_or_step(forecast.mode)}"
        say(out, f"{forecast.model} on {on_what(forecast)}: {title}", indent=0, style="bold")
        say(out, f"{what(forecast)}; {words(forecast.parameters)} parameters")
        if trained(forecast):
            say(out, trained(forecast))
        if forecast.layout:
            say(out, layout_line(forecast.layout, forecast.system))
        memory_section(out, forecast)
        if forecast.memory.fits is False and forecast.fitting is not None:
            say(out, said_of(forecast.fitting))
        if forecast.layout:
            stages_section(out, forecast)
        else:
            section(out, "By op")
            show(out, _layer_table(forecast, out.width - 2))
            say(out, _layer_note(forecast), style="dim")
        assumptions(out, forecast)


def said_of(near: Fitting | None) -> str:
    """The nearest layout that fits, of a forecast that does not, in a sentence."""
    if near is None:
        return "No layout near this one fits; roofcast search tries all."
    unit = "tokens" if near.tokens_per_s else "samples"
    fast = f"{rate(near.tokens_per_s or near.samples_per_s)} {unit}/s"
    took = f"; {duration(near.time_to_train_s)} of steps" if near.time_to_train_s else ""
    return (
        f"The nearest that {near.verdict}, with the same batch: {near.options}"
        f" ({seconds(near.step_time_s)} per step, {fast}, {binary(near.peak_bytes)}{took})."
        + (f" {near.also}." if near.also else "")
    )


def _layer_note(forecast: Forecast) -> str:
    """What the columns of the table of layers mean."""
    if forecast.mode != "train":
        return "weights: parameters; share: of all weights and inputs"
    states = [name for name, _ in kinds(forecast) if name in _STATES]
    before = ", before recomputation" if forecast.recompute != "none" else ""
    return (
        f"weights: {listed(states)}; saved: activations kept for backward{before}, a tensor that"
        f" several ops use counted in one; share: of all weights and saved activations{before}"
    )


def _weights_of(forecast: Forecast) -> Callable[[LayerForecast], float]:
    """Bytes of a layer's weights, and of gradients and optimizer states at the mean of all."""
    memory, n = forecast.memory, max(forecast.parameters, 1)
    states = (memory.gradients_bytes + memory.optimizer_bytes) / n
    if any(layer.parameters_bytes for layer in forecast.layers):
        return lambda layer: layer.parameters_bytes + layer.parameters * states
    mean = memory.parameters_bytes / n + states  # a forecast of an older version
    return lambda layer: layer.parameters * mean


def _layer_table(forecast: Forecast, width: int) -> Table:
    """The layers that hold most; without counts where the terminal is narrow."""
    weights_of = _weights_of(forecast)
    columns: list[tuple[str, Justify]] = [("op", "left"), ("×", "right")]
    columns += [("parameters", "right"), ("weights", "right"), ("saved", "right")]
    columns.append(("share", "right"))
    rows: list[tuple[str, ...]] = []
    styles: list[str] = []
    short = short_names([layer.name for layer in forecast.layers])
    held = [layer for layer in forecast.layers if layer.parameters or layer.saved_bytes]
    held.sort(key=lambda layer: -weights_of(layer) - layer.saved_bytes)
    total = sum(weights_of(layer) + layer.saved_bytes for layer in held) or 1.0

    def add(name: str, count: str, layers: Sequence[LayerForecast], style: str = "") -> None:
        parameters = sum(layer.parameters for layer in layers)
        saved = sum(layer.saved_bytes for layer in layers)
        weights = sum(weights_of(layer) for layer in layers)
        share = percent((weights + saved) / total)
        rows.append((name, count, many(parameters), binary(weights), binary(saved), share))
        styles.append(style)

    named = held if len(held) <= _LONGEST + 1 else held[:_LONGEST]
    for layer in named:
        add(short[layer.name], str(layer.count), [layer])
    if rest := held[len(named) :]:
        add(f"{len(rest)} other rows", "", rest, "dim")
    return fitted_table(width, columns, rows, ("parameters", "×", "saved"), styles)
