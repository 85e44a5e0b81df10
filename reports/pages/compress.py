"""One net in its compressed forms, for reading."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import binary, energy, seconds, words
from roofcast.reports.pages.asked import assumptions, what
from roofcast.reports.pages.memory import doubtful
from roofcast.reports.parts import Console
from roofcast.simulator.choose.compress import NOT_SAID, Compressed, Variant, reasons
from roofcast.simulator.forecast.result import Forecast

_FITS = {True: "yes", False: "no", None: "—"}
SHORT = {"memory bandwidth": "memory", "kernel latency": "latency"}
_SPARE = ("parameters", "energy", "options", "weights")  # columns that a narrow page does without


def print_compressed(found: Compressed) -> None:
    """Print a table with a row per form, what each needs, what is refused or not forecast."""
    whole = found.whole
    with page() as out:
        say(out, f"{whole.model} on {whole.device}: compressed forms", indent=0, style="bold")
        say(out, f"one inference pass, {what(whole)}; {words(whole.parameters)} parameters")
        _forms(out, found)
        _needs(out, found)
        refused = reasons(found)
        if refused:
            section(out, "Refused")
        for why, names in refused.items():
            own = why.startswith("sparsity 2:4")  # says itself what is refused
            say(out, why if own else f"{'; '.join(names)}: {why}", first="- ")
        section(out, "Not forecast")
        for line in NOT_SAID:
            say(out, line, first="- ")
        assumptions(out, whole)


def _forms(out: Console, found: Compressed) -> None:
    columns: list[tuple[str, Justify]] = [
        ("form", "fold"), ("parameters", "right"), ("weights", "right"), ("peak", "right"),
        ("fits", "left"), ("pass", "right"), ("faster", "right"), ("bound by", "left"),
        ("energy", "right"), ("options", "fold"),
    ]  # fmt: skip
    rows, whole = [], found.whole
    for v in found.variants:
        f = v.forecast
        if f is None:
            continue
        rows.append(
            [
                v.name,
                words(f.parameters),
                binary(f.memory.parameters_bytes),
                binary(f.memory.peak_bytes),
                "maybe" if doubtful(f) else _FITS[f.memory.fits],
                seconds(f.step_time_s),
                f"{whole.step_time_s / f.step_time_s:.2f}x",
                _bound(f),
                energy(f.step_energy_j) if f.step_energy_j is not None else "—",
                option_words(v),
            ]
        )
    out.print()
    table = fitted_table(out.width - 2, columns, rows, _SPARE)
    show(out, table)
    say(
        out,
        "weights: those in memory; peak: with activations and what the framework adds; faster:"
        " against the first row; bound by: the limit of most of its time; options: of roofcast"
        " predict --mode infer (--precision, --weights, --sparsity, --prune)",
    )
    if "energy" not in [header for header, _ in table.columns]:
        say(out, "energy of each form: on a wider page, in --json, or in -o FILE.csv")


def _bound(f: Forecast) -> str:
    """The limit that bounds the largest part of a pass."""
    first = max(f.limits, key=lambda limit: limit.share or 0.0)
    return SHORT.get(first.name, first.name)


def option_words(v: Variant) -> str:
    """A form as options of predict.

    >>> option_words(Variant("2:4", {"sparsity": "2:4"}, "", None))
    '--sparsity 2:4'
    """
    return " ".join(f"--{name} {value}" for name, value in v.options.items())


def _needs(out: Console, found: Compressed) -> None:
    """What the forms need of the device, those that need the same together."""
    section(out, "What each needs")
    by_need: dict[str, list[str]] = {}
    for v in found.variants:
        if v.forecast is not None:
            by_need.setdefault(v.needs, []).append(v.name)
    for need, names in by_need.items():
        say(out, f"{'; '.join(names)}: {need}", first="- ")
