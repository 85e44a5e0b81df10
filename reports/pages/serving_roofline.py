"""The kernels of one step of a server, for reading."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import binary, digits, percent, seconds, si
from roofcast.reports.pages.forecast import rate
from roofcast.reports.pages.serving import WORDS
from roofcast.reports.parts import Console
from roofcast.simulator.serving.points import StepForecast

_SHOWN = 0.002  # of the step: kernels below are summed up


def print_step(f: StepForecast) -> None:
    """Print a step: its parts, its kernels, and what it moves."""
    with page() as out:
        _head(out, f)
        section(out, "Kernels, on one device")
        _kernels(out, f)
        if f.assumptions:
            section(out, "Assumed")
            for line in f.assumptions:
                say(out, line, first="- ")


def _head(out: Console, f: StepForecast) -> None:
    cut = ", ".join(f"{name} {n}" for name, n in f.layout.items() if n > 1)
    on = f"{f.devices} {f.device} ({cut})" if f.devices > 1 else f.device
    what = "decode step" if f.phase == "decode" else "prefill"
    say(out, f"{f.model} on {on}: one {what}", indent=0, style="bold")
    many = "s" if f.batch > 1 else ""
    said = (
        f"{f.batch:,} sequence{many} with {f.tokens:,} tokens in the cache"
        if f.phase == "decode"
        else f"{f.batch:,} prompt{many} of {f.tokens:,} tokens"
    )
    say(out, f"{said}; {f.stack}, weights {f.weights}, cache {f.kv}")
    out.print()
    tokens = f.batch * (1 if f.phase == "decode" else f.tokens)
    say(out, f"{seconds(f.step_time_s)}   {rate(tokens / f.step_time_s)} tokens/s", style="bold")
    parts = [
        f"{WORDS.get(name, name)} {percent(t / f.step_time_s)}"
        for name, t in f.parts_s.items()
        if t > 0
    ]
    say(out, ", ".join(parts))
    say(
        out,
        f"held by a device: weights {binary(f.weights_bytes)}, cache of these sequences"
        f" {binary(f.cache_bytes)}",
    )
    if f.usable_bytes is not None and f.weights_bytes + f.cache_bytes > f.usable_bytes:
        limit = f"more than the {binary(f.usable_bytes)} that {f.stack} uses"
        say(out, f"does not fit: {limit}; times are as if it did", style="bold red")


def _kernels(out: Console, f: StepForecast) -> None:
    columns: list[tuple[str, Justify]] = [
        ("kernel", "fold"), ("launches", "right"), ("time", "right"), ("share", "right"),
        ("FLOP/B", "right"), ("FLOP/s", "right"), ("B/s", "right"), ("bytes", "right"),
    ]  # fmt: skip
    shown = [r for r in f.rows if r.time_s >= _SHOWN * f.step_time_s]
    rest = [r for r in f.rows if r.time_s < _SHOWN * f.step_time_s]
    rows = [
        [
            r.name.removeprefix("model.").replace("layers.", ""),
            f"{r.launches:,}",
            seconds(r.time_s),
            percent(r.time_s / f.step_time_s),
            digits(r.flops / r.bytes) if r.bytes and r.flops else "",
            si(r.flops / r.time_s, "", 2) if r.time_s and r.flops else "",
            si(r.bytes / r.time_s, "", 2) if r.time_s else "",
            binary(r.bytes),
        ]
        for r in shown
    ]
    for name, took in (("exchanges", "exchanges between devices"), ("host", "host")):
        if f.parts_s.get(name, 0.0) > 0:
            t = f.parts_s[name]
            rows.append([took, "", seconds(t), percent(t / f.step_time_s), "", "", "", ""])
    if rest:
        t = sum(r.time_s for r in rest)
        rows.append(
            [f"{len(rest)} others", f"{sum(r.launches for r in rest):,}", seconds(t),
             percent(t / f.step_time_s), "", "", "", binary(sum(r.bytes for r in rest))]
        )  # fmt: skip
    show(out, fitted_table(out.width - 2, columns, rows, ("launches", "bytes", "FLOP/s")))
    say(
        out,
        "FLOP/B, FLOP/s, B/s: executed FLOP and bytes of memory traffic, as forecast; a product"
        " reads its weights, attention the cache",
        style="dim",
    )
