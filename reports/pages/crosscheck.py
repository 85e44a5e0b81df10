"""Forecasts beside measurements of this machine, as tables."""

from __future__ import annotations

from roofcast.reports.console import page, plain_table, say, section, show
from roofcast.reports.format import percent, seconds
from roofcast.simulator.machine.crosscheck import kernels as kernel_check
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.steps import Ran, Trained, median, ranked

WITHIN = 0.25  # share of the nets whose error is no larger is told


def print_crosscheck(
    name: str, kernels: list[Ran], trained: list[Trained], bare: list[Ran]
) -> None:
    """`bare`: the kernels by their ceilings alone."""
    with page() as out:
        clock = "wall time" if any(r.threads > 1 for r in kernels) else "CPU time"
        out.print(f"{name}: forecast and measured, {clock}", style="bold")
        if kernels:
            _kernels(out, kernels, bare)
        if trained:
            _training(out, trained)


def _kernels(out, rows: list[Ran], bare: list[Ran]) -> None:
    section(out, "Kernels")
    table = plain_table(
        ("op", "left"),
        ("size", "fold"),
        ("predicted", "right"),
        ("measured", "right"),
        ("error", "right"),
        ("noise", "right"),
    )
    for r in rows:
        table.add_row(
            r.op,
            r.size,
            seconds(r.predicted_s),
            seconds(r.measured_s),
            _signed(r.error),
            percent(r.noise),
        )
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
    say(
        out,
        f"Median error {percent(median(abs(r.error) for r in own))} over {len(own)} points that are"
        " no ceilings themselves,"
        f" {percent(median(abs(r.error) for r in kernel_check.checked(bare)))} by the ceilings"
        f" alone; noise {percent(median(r.noise for r in own))}.",
    )


def _training(out, rows: list[Trained]) -> None:
    section(out, "Training steps")
    table = plain_table(
        ("net", "left"),
        ("batch", "right"),
        ("optimizer", "left"),
        ("predicted", "right"),
        ("measured", "right"),
        ("error", "right"),
        ("noise", "right"),
    )
    for r in rows:
        table.add_row(
            measure.key(r.net),
            str(r.net.batch),
            r.net.optimizer,
            seconds(r.predicted_s),
            seconds(r.measured_s),
            _signed(r.error),
            percent(r.noise),
        )
    show(out, table)
    errors = [abs(r.error) for r in rows]
    right, asked = ranked(rows)
    within = sum(e <= WITHIN for e in errors) / len(errors)
    words = (
        f"Median error {percent(median(errors))}, {percent(within)} of the nets within"
        f" {percent(WITHIN)}; "
    )
    words += f"noise {percent(median(r.noise for r in rows))}."
    if asked:
        words += (
            f" Of {asked} pairs that differ by more than a fifth, {right} are ordered right"
            f" ({percent(right / asked)})."
        )
    say(out, words)
    for note in dict.fromkeys(r.net.note for r in rows if r.net.note):
        nets = ", ".join(measure.key(r.net) for r in rows if r.net.note == note)
        say(out, f"{nets}: {note}.")


def _signed(error: float) -> str:
    return f"{'+' if error >= 0 else '-'}{percent(abs(error))}"
