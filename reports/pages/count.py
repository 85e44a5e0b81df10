"""Counts of a step for reading: totals, and a tree of layers that sums to them."""

from __future__ import annotations

from collections.abc import Callable

from roofcast.reports.console import Justify, fitted_table, page, plain_table, say, section, show
from roofcast.reports.format import binary, many, si, words
from roofcast.reports.pages.asked import pass_or_step, trained
from roofcast.reports.pages.tree import Branch, fitting_depth, height, tree, walk
from roofcast.reports.parts import Console, Table, Text
from roofcast.simulator.forecast.counts import Counts

_TOTALS = (
    ("parameters", "parameters", words),
    ("parameters that one token uses", "active_parameters", words),
    ("FLOP forward", "flops_forward", si),
    ("FLOP backward", "flops_backward", si),
    ("other operations forward", "flops_other_forward", si),
    ("other operations backward", "flops_other_backward", si),
    ("saved for backward: activations [B]", "saved_bytes", binary),
    ("saved for backward: inputs [B]", "saved_input_bytes", binary),
    ("saved for backward: copies of weights [B]", "saved_weight_copy_bytes", binary),
    ("traffic forward [B]", "bytes_forward", lambda value: si(value, "B")),
    ("traffic backward [B]", "bytes_backward", lambda value: si(value, "B")),
)
_UNUSUAL = ("active_parameters", "saved_weight_copy_bytes")  # left out where there are none
_FORMS: tuple[Callable[[float], str], ...] = (
    many, si, si, binary, lambda value: si(value, "B")
)  # fmt: skip
_NARROW = 68  # columns below which only parameters, forward FLOP and traffic are shown
_WIDE = 96  # columns of the terminal from which on the kind of op is shown


def print_counts(counts: Counts, depth: int | None) -> None:
    """Print the counts to stdout, the tree `depth` levels deep (None: about 50 rows)."""
    whole = tree(counts)
    shown = min(depth or fitting_depth(whole), height(whole))
    with page() as out:
        one = f"one {pass_or_step(counts.mode)}"
        out.print(Text(f"{counts.model}: counts of {one}", style="bold"))
        say(out, _what(counts))
        if trained(counts):
            say(out, trained(counts))
        section(out, "Totals")
        _totals(out, counts)
        section(out, "By module")
        show(out, _table(whole, shown, counts.mode == "train", out.width - 2))
        note = "each row is the sum of the rows indented under it"
        if any(branch.times > 1 for _, branch in walk(whole, shown)):
            note += "; ×N: sum over N identical blocks"
        if shown < height(whole):
            note += f"; --depth {height(whole)} shows all levels"
        say(out, note, style="dim")
        if counts.assumptions:
            section(out, "Assumed")
            for each in counts.assumptions:
                say(out, each, first="- ")


def _what(counts: Counts) -> str:
    """What was counted, as one line."""
    size = (
        f" × {counts.sequence} tokens"
        if counts.sequence
        else f" × {counts.image}×{counts.image} pixels"
        if counts.image
        else ""
    )
    parts = [f"batch {counts.batch}{size}", counts.precision]
    if any(layer.op == "attention" for layer in counts.layers):
        parts.append(f"{counts.attention} attention")
    return ", ".join([*parts, counts.stack])


def _totals(out: Console, counts: Counts) -> None:
    """Each total in full and abbreviated."""
    training = counts.mode == "train"
    rows = []
    for name, key, short in _TOTALS:
        value = getattr(counts, key)
        if (training or "backward" not in name) and (value or key not in _UNUSUAL):
            rows.append([name, f"{value:,}", short(value)])
    columns: list[tuple[str, Justify]] = [("", "fold"), ("", "right"), ("in short", "right")]
    table = fitted_table(out.width - 2, columns, rows, ("in short",))
    table.show_header = False
    show(out, table)
    note = "FLOP: matrix products, convolutions and attention, as PyTorch's FlopCounterMode counts"
    note += " them (a multiply-add is 2); other operations: pointwise and special functions, which"
    note += " FlopCounterMode does not count; traffic: bytes that all kernels move in device memory"
    if training and counts.saved_input_bytes:
        note += "; inputs: those of the step itself, in no layer's row"
    say(out, note, style="dim")


def _table(whole: Branch, depth: int, training: bool, width: int) -> Table:
    """The tree, a row per branch."""
    columns: list[tuple[str, Justify]] = [
        ("module or op", "left"),
        ("kind", "left"),
        ("params", "right"),
        ("fwd FLOP", "right"),
        ("bwd FLOP", "right"),
    ]
    columns += [("saved", "right"), ("traffic", "right")]
    left_out = {"kind"} if width < _WIDE else set()
    left_out |= set() if training and width >= _NARROW else {"bwd FLOP", "saved"}
    table = plain_table(*(column for column in columns if column[0] not in left_out))
    table.wide = min(width, 120)
    for level, branch in walk(whole, depth):
        s = branch.sums
        name = "  " * level + branch.name + (f" ×{branch.times}" if branch.times > 1 else "")
        values = (
            s["parameters"],
            s["flops_forward"],
            s["flops_backward"],
            s["saved_bytes"],
            s["bytes_forward"] + s["bytes_backward"],
        )
        cells = [
            name,
            branch.op,
            *(form(value) if value else "" for form, value in zip(_FORMS, values, strict=True)),
        ]
        table.add_row(
            *(
                Text(cell)
                for cell, (title, _) in zip(cells, columns, strict=True)
                if title not in left_out
            )
        )
    return table
