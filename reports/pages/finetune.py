"""Measured fine-tuning beside its forecasts, as `roofcast validate --finetune` prints it."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.parts import Console, Table, Text
from roofcast.reports.tables.finetune import (
    Checked,
    Line,
    answered,
    by_measure,
    by_method,
    by_source,
    lines,
    refusals,
)

REASONS = 25  # that are printed
LABEL = {"peak_mem_gib": "peak memory", "samples_per_s": "samples/s", "tokens_per_s": "tokens/s"}
LEGEND = (
    "median / mean: of |predicted / measured - 1|. bias: median of predicted / measured - 1. worst:"
    " the row with the largest error."
)
MEASURES = (
    "allocated: tensors. reserved: what PyTorch's allocator holds, with its rounding. device: the"
    " context too, as nvidia-smi shows it. A maximum over varying lengths is that of a whole run,"
    " in which the allocator's reserve grows with every new length."
)


def print_finetune(checked: list[Checked]) -> None:
    """Print errors by source, by method and by what was measured; refusals and assumptions."""
    with page() as out:
        out.print(Text("Fine-tuning: errors in percent", style="bold"))
        say(out, LEGEND, 0)
        show(out, _table(lines(checked, by_source), out.width - 2))
        section(out, "By method")
        show(out, _table(lines(checked, by_method), out.width - 2))
        section(out, "By what was measured")
        memory = [line for line in lines(checked, by_measure) if line.quantity == "peak_mem_gib"]
        show(out, _table(memory, out.width - 2))
        say(out, MEASURES, 0)
        _print_left_out(out, checked)


def _print_left_out(out: Console, checked: list[Checked]) -> None:
    found, all_ = answered(checked), len(checked)
    say(out, f"{found} of {all_} rows have a forecast ({100 * found / all_:.0f} %).", 0)
    reasons = refusals(checked)
    if reasons:
        section(out, f"{all_ - found} rows without a forecast")
        for reason, number in reasons[:REASONS]:
            say(out, reason, first=f"{number:5d}  ")
    said = dict.fromkeys(text for c in checked if not c.refused for text in c.run.assumed)
    if said:
        section(out, "Assumed where a row does not say")
        for text in said:
            say(out, text, first="  - ")


def _table(found: list[Line], width: int) -> Table:
    columns: list[tuple[str, Justify]] = [("", "fold"), ("of", "left")]
    columns += [(name, "right") for name in ("rows", "median / mean", "bias")]
    columns.append(("worst", "left"))
    rows = [
        [
            line.group,
            LABEL[line.quantity],
            str(line.rows),
            f"{100 * line.median:.1f} / {100 * line.mean:.1f}",
            f"{100 * line.bias:+.1f}",
            line.worst,
        ]
        for line in found
    ]
    return fitted_table(width, columns, rows, ("worst",))
