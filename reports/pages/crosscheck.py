"""Forecasts beside measurements of this machine, as tables."""

from __future__ import annotations

from roofcast.reports.console import Justify, page, plain_table, say, section, show
from roofcast.reports.format import percent, seconds
from roofcast.reports.parts import Console
from roofcast.simulator.machine.crosscheck import kernels as kernel_check
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.steps import Ran, Trained, median, ranked

WITHIN = 0.25  # the share of networks with at most this error is printed
_TIMES: tuple[tuple[str, Justify], ...] = (
    ("predicted", "right"),
    ("measured", "right"),
    ("error", "right"),
    ("noise", "right"),
)


def print_crosscheck(
    name: str, kernels: list[Ran], trained: list[Trained], bare: list[Ran]
) -> None:
    """Print kernels and training steps of a device; bare: the kernels by the ceilings alone."""
    with page() as out:
        threads = [*(r.threads for r in kernels), *(r.threads for r in trained)]
        clock = "wall time" if max(threads) > 1 else "CPU time"
        out.print(f"{name}: forecast and measured, {clock}", style="bold")
        if kernels:
            _kernels(out, kernels, bare)
        if trained:
            _training(out, trained)


def _kernels(out: Console, rows: list[Ran], bare: list[Ran]) -> None:
    """Each kernel, the classes of ops, and the median over all."""
    section(out, "Kernels")
    table = plain_table(("op", "left"), ("size", "fold"), *_TIMES)
    for r in rows:
        table.add_row(r.op, r.size, *_times(r))
    show(out, table)
    out.print()
    table = plain_table(
        ("class of ops", "left"),
        ("points", "right"),
        ("median error", "right"),
        ("by ceilings alone", "right"),
        ("noise", "right"),
    )
    plain = {op: error for op, _, error, _ in kernel_check.by_class(bare)}
    for op, count, error, noise in kernel_check.by_class(rows):
        table.add_row(op, str(count), percent(error), percent(plain[op]), percent(noise))
    show(out, table)
    own = kernel_check.checked(rows)
    if not own:
        say(out, "Every point here measures a ceiling: there is no forecast to compare.")
        return
    fitted, ceilings = (
        percent(median(abs(r.error) for r in kernel_check.checked(each))) for each in (rows, bare)
    )
    text = f"Median error {fitted} over the {len(own)} points that do not measure a ceiling"
    text += f" ({ceilings} by the ceilings alone); noise {percent(median(r.noise for r in own))}."
    say(out, text)


def _training(out: Console, rows: list[Trained]) -> None:
    """Each training step, the errors over all, and notes on single networks."""
    section(out, "Training steps")
    table = plain_table(("net", "left"), ("batch", "right"), ("optimizer", "left"), *_TIMES)
    for r in rows:
        table.add_row(measure.key(r.net), str(r.net.batch), r.net.optimizer, *_times(r))
    show(out, table)
    errors = [abs(r.error) for r in rows]
    right, pairs = ranked(rows)
    within = percent(sum(e <= WITHIN for e in errors) / len(errors))
    text = f"Median error {percent(median(errors))}, {within} of the nets within"
    text += f" {percent(WITHIN)}; noise {percent(median(r.noise for r in rows))}."
    if pairs:
        text += f" Of {pairs} pairs whose times differ by more than 20 %, {right}"
        text += f" ({percent(right / pairs)}) are forecast in the right order."
    say(out, text)
    for note in dict.fromkeys(r.net.note for r in rows if r.net.note):
        nets = ", ".join(measure.key(r.net) for r in rows if r.net.note == note)
        say(out, f"{nets}: {note}.")


def _times(r: Ran | Trained) -> tuple[str, str, str, str]:
    """The cells of _TIMES."""
    error = f"{'+' if r.error >= 0 else '-'}{percent(abs(r.error))}"
    return seconds(r.predicted_s), seconds(r.measured_s), error, percent(r.noise)
