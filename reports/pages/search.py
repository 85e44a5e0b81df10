"""What a search over layouts found, for reading."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from roofcast.hwdb.errors import RoofcastError, number_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import binary, percent, seconds
from roofcast.reports.option_tuning import TUNED
from roofcast.reports.pages.asked import pass_or_step, trained, what
from roofcast.reports.pages.layout import layout_line, losses
from roofcast.reports.pages.memory import doubtful
from roofcast.reports.parts import Console
from roofcast.simulator.choose.explore import Explored
from roofcast.simulator.choose.nearest import nearest_fit
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.result import Fitting, Forecast
from roofcast.simulator.forecast.scenario import Scenario

_SHOWN_FRONT = 8
_SHOWN_LOSSES = 2
_SHOWN_REASONS = 6
GIVEN = (  # fields of a step
    "sequence", "image", "precision", "optimizer", "attention", "stack", "mode", "memory_format",
    *TUNED, "lengths", "packing",
)  # fmt: skip
_USUAL = {"zero": 0, "micro_batch": None, "devices": None}  # defaults; of other degrees 1


def print_search(found: Explored, best: Sequence[Forecast]) -> None:
    """Print the best layouts, the front of time against memory, and what was refused.

    best: forecasts of found.best(..), in that order.
    """
    with page() as out:
        s = found.scenario
        title = f"{s.model}: layouts of one {pass_or_step(s.mode)} on {found.devices:,} {s.device}"
        say(out, title, indent=0, style="bold")
        if best:
            _asked(out, best[0])
        fitting = int(found.fits.sum())
        say(
            out,
            f"{number_of(found.considered, 'layout')}: {number_of(fitting, 'fits', 'fit')},"
            f" {number_of(len(found.step_s) - fitting, 'needs', 'need')} more memory than there is"
            f" ({binary(found.capacity)}), {number_of(found.invalid, 'is', 'are')} invalid",
        )
        for line in found.assumptions:
            say(out, line)
        if best:
            section(out, "Fastest that fit")
            _best(out, found, best)
            say(out, f"roofcast predict {s.model} {options_line(found, 0)}", first="fastest: ")
        else:
            _nothing_fits(out, found)
        _front(out, found)
        _refused(out, found)
        _assumed(out, best)


def _asked(out: Console, f: Forecast) -> None:
    """What every layout computes; what each recomputes is in its row."""
    told = what(f).split(", ")
    say(out, ", ".join(part for part in told if "recomput" not in part))
    if trained(f):
        say(out, trained(f))


def options_line(found: Explored, rank: int) -> str:
    """The options of predict for the layout of this rank among the best."""
    i, asked = found.best(rank + 1)[rank], msgspec.to_builtins(found.scenario)
    return " ".join([f"--on {found.scenario.device}", *given_words(asked), option_words(found, i)])


def given_words(s: Mapping[str, Any]) -> list[str]:
    """What a scenario says of a step beside its batch and layout, as options of predict.

    >>> given_words({"sequence": 512, "lora": 8, "lengths": "400,2048", "packing": True})
    ['--seq 512', '--lora 8', '--lengths 400,2048', '--packing']
    """
    words = []
    for name in GIVEN:
        value = s.get(name)
        option = f"--{'seq' if name == 'sequence' else name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value not in (None, False):
            words.append(f"{option} {plain(value)}")
    return words


def plain(value: object) -> str:
    """A value as an option takes it."""
    return f"{value:g}" if isinstance(value, float) else shlex.quote(str(value))


def option_words(found: Explored, i: int) -> str:
    """The i-th layout as options of predict, with the batch."""
    batch = [f"--batch {found.scenario.batch}"] if found.scenario.batch else []
    return " ".join([*batch, words_of(found.options[i])])


def words_of(options: Mapping[str, Any]) -> str:
    """A layout as options of predict.

    >>> words_of({"devices": 8, "tp": 1, "dp": 8, "zero": 1, "sp": False, "recompute": "none"})
    '--devices 8 --dp 8 --zero 1 --no-sp'
    """
    words = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if name == "recompute" and value == "none":
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, tuple):
            words += [f"{option} {each}" for each in value]
        elif value != _USUAL.get(name, 1):
            words.append(f"{option} {value}")
    return " ".join(words)


def fitting(scenario: Scenario, found: Forecast) -> Fitting | None:
    """The nearest layout that fits, of a forecast that does not; None where there is none."""
    near = nearest_fit(scenario, found)
    also = _in_four_bits(scenario)
    if near is None:
        return also
    m = found.memory
    high = near.peak_bytes * (m.high_bytes or m.peak_bytes) / m.peak_bytes
    tokens = found.tokens_read
    one = found.steps is not None and not (found.campaign and found.campaign.stages)
    return Fitting(
        options=words_of(near.changes),
        verdict="may fit" if high > (m.capacity_bytes or 0.0) else "fits",
        batch=found.batch,
        step_time_s=near.step_s,
        samples_per_s=found.samples_read / near.step_s,
        tokens_per_s=tokens / near.step_s if tokens else None,
        peak_bytes=near.peak_bytes,
        time_to_train_s=(found.steps or 0.0) * near.step_s if one else None,
        also=_beside(also),
    )


def _beside(also: Fitting | None) -> str:
    """A second way that fits, in words; empty where there is none."""
    if also is None:
        return ""
    fast = f"{seconds(also.step_time_s)} per step, {binary(also.peak_bytes)}"
    return f"{also.options} {also.verdict} too ({fast})"


def _in_four_bits(scenario: Scenario) -> Fitting | None:
    """Adapters on frozen weights in 4 bits where these fit: as asked for, else with full
    recomputation, else with the fewest changes that such weights need. None where not, or where
    no adapters on whole weights were asked for.
    """
    if scenario.lora is None or scenario.weights is not None:
        return None
    small = msgspec.structs.replace(scenario, weights="nf4")
    try:
        plain, _, _ = without_interval(small)
        for changes in _ways(small, plain):
            f, _, _ = without_interval(msgspec.structs.replace(small, **changes))
            if f.memory.fits:
                break
        else:
            return None
    except RoofcastError:
        return None
    return Fitting(
        options=f"--weights nf4 {words_of(changes)}".strip(),
        verdict="may fit" if doubtful(f) else "fits",
        batch=f.batch,
        step_time_s=f.step_time_s,
        samples_per_s=f.samples_per_s,
        tokens_per_s=f.tokens_per_s,
        peak_bytes=f.memory.peak_bytes,
        time_to_train_s=f.time_to_train_s,
    )


def _ways(scenario: Scenario, found: Forecast) -> Iterator[Mapping[str, Any]]:
    """Changes that may make a step fit, the plainest first."""
    yield {}
    yield {"recompute": "full"}
    near = nearest_fit(scenario, found)
    if near is not None:
        yield near.changes


def _best(out: Console, found: Explored, best: Sequence[Forecast]) -> None:
    columns: list[tuple[str, Justify]] = [
        ("step", "right"), ("slower", "right"), ("MFU", "right"), ("peak memory", "right"),
        ("fits", "left"), ("layout", "fold"), ("largest losses", "fold"),
    ]  # fmt: skip
    rows = []
    for f in best:
        slower = f.step_time_s / best[0].step_time_s - 1
        rows.append(
            [
                seconds(f.step_time_s),
                percent(slower) if slower > 5e-5 else "",
                percent(f.mfu),
                binary(f.memory.peak_bytes),
                "maybe" if doubtful(f) else "yes",
                layout_words(f),
                lost(f),
            ]
        )
    show(out, fitted_table(out.width - 2, columns, rows, ("largest losses", "MFU", "slower")))
    if any(map(doubtful, best)):
        say(out, "maybe: the capacity lies within the 80 % interval of the peak")


def layout_words(f: Forecast) -> str:
    """A layout in a cell: degrees, micro-batch, recomputation."""
    assert f.layout is not None, "a search gives layouts"
    words = layout_line(f.layout)
    degrees = words.split("; ")[0]
    micro = f"micro-batch {f.layout.micro_batch}"
    recompute = f", recompute {f.recompute}" if f.recompute != "none" else ""
    return f"{degrees}, {micro}{recompute}"


def lost(f: Forecast) -> str:
    """What takes most of a step besides its first computation, as fractions of the step."""
    parts = {row.name.replace("comm: ", ""): row.time for row in losses(f) if row.time}
    executed = f.flops_forward + f.flops_backward + f.flops_recompute
    if f.flops_recompute and executed:
        parts["recomputation"] = f.step_time_s * f.flops_recompute / executed
    largest = sorted(parts.items(), key=lambda part: -part[1])[:_SHOWN_LOSSES]
    shown = [f"{name} {percent(time / f.step_time_s)}" for name, time in largest]
    return ", ".join(shown)


def _nothing_fits(out: Console, found: Explored) -> None:
    section(out, "Nothing fits")
    i = found.smallest()
    if i is not None:
        say(
            out,
            f"the layout with the lowest peak needs {binary(found.peak_bytes[i])} of"
            f" {binary(found.capacity)}: {option_words(found, i)}; use more devices, or devices"
            " with more memory",
        )
    else:
        say(out, "every layout is invalid; the reasons are below")


def _front(out: Console, found: Explored) -> None:
    """Layouts that no other beats in time and in memory."""
    every = found.front()
    fitting = [i for i in every if found.fits[i]] or every
    if len(fitting) < 2:
        return
    step = max(len(fitting) // (_SHOWN_FRONT - 1), 1)
    shown = list(dict.fromkeys([*fitting[::step][: _SHOWN_FRONT - 1], fitting[-1]]))
    section(out, f"Time against memory: {len(fitting)} layouts that no other beats in both")
    columns: list[tuple[str, Justify]] = [
        ("step", "right"), ("peak memory", "right"), ("options", "fold"),
    ]  # fmt: skip
    rows = [
        [seconds(found.step_s[i]), binary(found.peak_bytes[i]), _short(found, i)] for i in shown
    ]
    show(out, fitted_table(out.width - 2, columns, rows))


def _short(found: Explored, i: int) -> str:
    words = option_words(found, i).split(" --")
    dropped = ("--batch", "batch", "devices")
    kept = [w for w in words if not w.startswith(dropped)]
    return ", ".join(w.removeprefix("--") for w in kept)


def _assumed(out: Console, best: Sequence[Forecast]) -> None:
    """What the best layouts assume of software, hardware and links."""
    shown = [a for a in (best[0].assumptions if best else ()) if _of_all(a)]
    if shown:
        section(out, "Assumed")
    for line in shown:
        say(out, line, first="- ")


def _of_all(assumption: str) -> bool:
    """Whether an assumption is not about one layout."""
    return "at its power limit" not in assumption


def _refused(out: Console, found: Explored) -> None:
    section(out, "Not considered, and refused")
    say(out, "; ".join(found.left_out), first="left out of the grid: ")
    if found.varied:
        say(
            out,
            f"schedules, virtual stages, kinds of context parallelism, sharding groups, gathered"
            f" weights and offload were varied one at a time on the"
            f" {number_of(found.varied, 'best layout')}",
        )
    largest = sorted(found.reasons.items(), key=lambda each: -each[1])
    for text, count in largest[:_SHOWN_REASONS]:
        say(out, f"{count:,} such as {text}", first="invalid: ")
    rest = sum(count for _, count in largest[_SHOWN_REASONS:])
    if rest:
        say(out, f"{rest:,} for other reasons (--json lists all)", first="invalid: ")
