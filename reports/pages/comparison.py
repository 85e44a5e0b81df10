"""Forecasts of one model on several devices, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.reports.console import Justify, fitted_table, page, say, section, show, wrapped
from roofcast.reports.format import binary, duration, money, percent, rate, seconds
from roofcast.reports.pages.asked import edited, pass_or_step, what
from roofcast.reports.pages.choose_table import sure
from roofcast.reports.pages.layout import layout_line, on_what
from roofcast.reports.pages.memory import KINDS, doubtful, kinds
from roofcast.reports.parts import Console
from roofcast.simulator.forecast.result import Forecast

_FITS = {True: "yes", False: "no", None: "—"}
_MAYBE = "maybe"  # measured runs leave it open
_INTERVAL = "80 % interval"
_RUN = "whole run"
_IN_TIME = "in time"
_FOLLOWING = ("fits", "cost", _IN_TIME)  # columns in one table with the column before
_NAME = 12  # columns that the name of a device needs at least


def print_comparison(forecasts: Sequence[Forecast]) -> None:
    """Print one row per device to stdout."""
    first = forecasts[0]
    counts = {f.devices for f in forecasts}
    alike = counts.pop() if len(counts) == 1 else 0
    many = f"{len(forecasts)} {'kinds' if alike > 1 else 'devices'}{edited(first)} compared"
    where = f" on {alike:,} devices" if alike > 1 else ""
    title = f"one {pass_or_step(first.mode)}{where}, {many}"
    with page() as out:
        say(out, f"{first.model}: {title}", indent=0, style="bold")
        _asked(out, forecasts)
        out.print()
        _comparison(out, forecasts, bool(alike))
        _assumed(out, forecasts)


def _comparison(out: Console, forecasts: Sequence[Forecast], alike: bool) -> None:
    """The table. alike: the number of devices is the same in each row, and is left out."""
    names = [f.device if alike else on_what(f) for f in forecasts]
    tokens = forecasts[0].tokens_per_s is not None
    title = "tokens/s" if tokens else "samples/s"
    unit = "step" if forecasts[0].mode == "train" else "pass"
    columns: list[tuple[str, Justify]] = [(unit, "right"), (title, "right"), ("MFU", "right")]
    columns += [("peak memory", "right"), ("fits", "left")]
    rows = []
    for f in forecasts:
        throughput = f.tokens_per_s if f.tokens_per_s is not None else f.samples_per_s
        cells = [seconds(f.step_time_s), rate(throughput), percent(f.mfu)]
        cells.append(binary(f.memory.peak_bytes))
        rows.append([*cells, _fits(f)])
    if any(f.low_s is not None for f in forecasts):
        columns.insert(1, (_INTERVAL, "right"))
        for row, f in zip(rows, forecasts, strict=True):
            row.insert(1, _spread(f))
    if any(f.time_to_train_s is not None for f in forecasts):
        columns += [(_RUN, "right"), ("cost", "right")]
        rows = [[*row, *_run(f)] for row, f in zip(rows, forecasts, strict=True)]
    chances = [f.campaign.deadline_probability if f.campaign else None for f in forecasts]
    if any(chance is not None for chance in chances):
        columns += [(_IN_TIME, "right")]
        rows = [[*row, sure(chance)] for row, chance in zip(rows, chances, strict=True)]
    _device_tables(out, names, columns, rows)
    _doubts(out, forecasts)
    if columns[1][0] == _INTERVAL:
        say(out, f"{_INTERVAL}: of the {unit}", style="dim")
    if any(f.campaign for f in forecasts):
        say(out, f"{_RUN}, cost: of the whole training, checkpoints and failures included"
            + (f"; {_IN_TIME}: probability of the deadline" if columns[-1][0] == _IN_TIME else ""),
            style="dim")  # fmt: skip


def _spread(f: Forecast) -> str:
    """The 80 % interval of the step."""
    known = f.low_s is not None and f.high_s is not None
    return f"{seconds(f.low_s)} to {seconds(f.high_s)}" if known else "—"


def _run(f: Forecast) -> list[str]:
    """Duration and cost of the whole training where it is forecast, else of its steps."""
    usd = f.whole_run.cost_usd
    return [duration(f.whole_run.time_s), "—" if usd is None else money(usd)]


def _fits(forecast: Forecast) -> str:
    """Whether it fits, with a mark where measured runs leave that open."""
    return _MAYBE if doubtful(forecast) else _FITS[forecast.memory.fits]


def _doubts(out: Console, forecasts: Sequence[Forecast]) -> None:
    """What the mark beside a verdict means, where there is one."""
    if any(map(doubtful, forecasts)):
        say(out, "maybe: the capacity lies within the 80 % interval of the peak")


def _device_tables(
    out: Console,
    names: Sequence[str],
    columns: Sequence[tuple[str, Justify]],
    rows: Sequence[Sequence[str]],
) -> None:
    """Tables with a row per device, one below the other where one would be wider than the terminal.

    Every table has the names of the devices, and no number is cut.
    """
    widths = [max(map(len, (title, *(row[i] for row in rows)))) + 2
              for i, (title, _) in enumerate(columns)]  # fmt: skip
    room = out.width - 2
    titles = [title for title, _ in columns]
    most = max(sum(widths[part]) for part in _parts(titles, widths, 0))
    name = min(max(map(len, ("device", *names))), max(room - most, _NAME))
    for n, part in enumerate(_parts(titles, widths, room - name)):
        if n:
            out.print()
        cells = [[wrapped(name_, name), *row[part]] for name_, row in zip(names, rows, strict=True)]
        show(out, fitted_table(room, [("device", "left"), *columns[part]], cells))


def _parts(titles: Sequence[str], widths: Sequence[int], room: int) -> list[slice]:
    """Which columns share a table: all if there is room; else those of the whole run apart."""
    if sum(widths) <= room:
        return [slice(0, len(titles))]
    starts = [i for i, title in enumerate(titles) if title not in _FOLLOWING] + [len(titles)]
    parts, first = [], 0
    for i, following in zip(starts[1:], [*starts[2:], 0], strict=True):
        if not following or titles[i] == _RUN or sum(widths[first:following]) > room:
            parts.append(slice(first, i))
            first = i
    return parts


def print_memories(forecasts: Sequence[Forecast]) -> None:
    """Print the memory of one step on several devices, one row per device, to stdout."""
    first = forecasts[0]
    with page() as out:
        one = f"memory at peak of one {pass_or_step(first.mode)}"
        say(out, f"{first.model}: {one}, per device", indent=0, style="bold")
        _asked(out, forecasts)
        held = {name for f in forecasts for name, _ in kinds(f)}
        shown = [name for name in KINDS if name in held]
        columns: list[tuple[str, Justify]] = [
            ("peak", "right"), ("capacity", "right"), ("fits", "left"), ("largest batch", "right")
        ]  # fmt: skip
        rows = []
        for f in forecasts:
            most, surely = f.memory.largest_batch, f.memory.largest_batch_surely
            sure = "" if most in (surely, None) or surely is None else f"{surely:,} to "
            cells = [binary(f.memory.peak_bytes), binary(f.memory.capacity_bytes)]
            cells += [_fits(f), "—" if most is None else f"{sure}{most:,}"]
            rows.append([*cells, *(binary(dict(kinds(f)).get(name)) for name in shown)])
        columns += [(name, "right") for name in shown]
        out.print()
        _device_tables(out, [on_what(f) for f in forecasts], columns, rows)
        _doubts(out, forecasts)
        _assumed(out, forecasts)


def _asked(out: Console, forecasts: Sequence[Forecast]) -> None:
    """What each step is, devices with the same one together, and the layouts."""
    for asked in dict.fromkeys(map(what, forecasts)):
        on = [on_what(f) for f in forecasts if what(f) == asked]
        say(out, asked if len(on) == len(forecasts) else f"{', '.join(on)}: {asked}")
    for line in dict.fromkeys(layout_line(f.layout, f.system) for f in forecasts if f.layout):
        say(out, line)


def _assumed(out: Console, forecasts: Sequence[Forecast]) -> None:
    """Assumptions about what was asked: without the defaults, which its lines show, and without
    those about one device. Of some forecasts alone, with their devices' names.
    """
    lines: dict[str, list[str]] = {}
    for f in forecasts:
        for line in f.assumptions:
            if "(not given)" not in line and not line.startswith((f"{f.device} ", f"{f.device}:")):
                lines.setdefault(line, []).append(on_what(f))
    if lines:
        section(out, "Assumed")
    for line, on in lines.items():
        text = line if len(on) == len(forecasts) else f"{', '.join(on)}: {line}"
        say(out, text, first="- ")
    if any(f.assumptions for f in forecasts):
        more = "further assumptions" if lines else "assumptions"
        say(out, f"{more}: those of each device, printed with one --on alone")
