"""The whole training, for reading: duration or dates, goodput, where the time goes, invoice."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from roofcast.reports.console import Justify, fitted_table, plain_table, say, section, show
from roofcast.reports.format import digits, duration, energy, money, percent, si, words
from roofcast.simulator.campaign.result import Campaign

DAY = 86400.0
INVOICE: tuple[tuple[str, Justify], ...] = (
    ("invoice", "left"), ("quantity", "right"), ("rate", "right"), ("USD", "right"),
)  # fmt: skip
SHOWN = 5e-5  # parts of the time are listed from this share on


def campaign_section(out: Console, c: Campaign) -> None:
    """Print the whole training."""
    section(out, "The whole training")
    say(out, _when(c), style="bold")
    goodput = (
        f"goodput {share(c.goodput)} (80 %: {share(c.goodput_low)} to {share(c.goodput_high)})"
    )
    say(out, f"{goodput}: {words(round(c.steps))} steps take {duration(c.steps_s)} of that")
    if c.deadline_probability is not None:
        day = c.deadline or "the deadline"
        say(out, f"by {day}: {percent(c.deadline_probability)}")
    show(out, _parts(c))
    say(out, _checkpoints(c))
    say(out, _failures(c))
    if c.input_limited:
        say(out, "the input limits the step: data loaders give fewer samples than it could take")
    if c.energy_j is not None:
        say(out, f"energy {_joules(c)} (scope: {c.energy_scope})")
    _invoice(out, c)


def share(part: float) -> str:
    """A share with one decimal.

    >>> share(0.9692)
    '96.9 %'
    """
    return f"{100 * part:.1f} %"


def _when(c: Campaign) -> str:
    days = f"{duration(c.time_s)} (80 %: {duration(c.days_low * DAY)} to"
    days += (
        f" {duration(c.days_high * DAY)}; with 95 % probability within {duration(c.days_95 * DAY)})"
    )
    if c.start is None or c.end is None:
        return days
    ends = f"(80 %: {c.end_low} to {c.end_high}; with 95 % probability by {c.end_95})"
    return f"from {c.start} to {c.end} {ends}: {days}"


def parts(c: Campaign) -> list[tuple[str, str, str]]:
    """The parts of the time, the largest first: name, time, share."""
    found = {
        "steps": c.steps_s,
        "longer steps": c.slow_s,
        "evaluation": c.eval_s,
        "checkpoints": c.checkpoint_s,
        "work done again": c.lost_s,
        "detection": c.detection_s,
        "restarts": c.restart_s,
        "start": c.start_s,
    }
    return [
        (name, duration(seconds), share(seconds / c.time_s))
        for name, seconds in sorted(found.items(), key=lambda each: -each[1])
        if seconds > SHOWN * c.time_s or name == "steps"
    ]


def _parts(c: Campaign) -> Table:
    table = plain_table(("where the time goes", "left"), ("time", "right"), ("share", "right"))
    for row in parts(c):
        table.add_row(*row)
    return table


def _checkpoints(c: Campaign) -> str:
    k = c.checkpoints
    text = f"checkpoints: {si(k.bytes, 'B')}, {duration(k.stall_s)} each"
    if k.save_s > k.stall_s:
        text += f" ({duration(k.save_s)} to storage, overlapped)"
    if k.count == 1:
        return f"{text}, one at the end"
    return f"{text}, every {duration(k.every_s)} ({words(round(k.every_steps))} steps; {k.chosen})"


def _failures(c: Campaign) -> str:
    f = c.failures
    if f.hours_between is None:
        return "failures: none"
    return (
        f"failures: {digits(f.expected)} expected, one per {duration(f.hours_between * 3600)}"
        f" ({digits(f.per_1000_node_days)} per 1000 node-days)"
    )


def _joules(c: Campaign) -> str:
    assert c.energy_j is not None
    text = energy(c.energy_j)
    if c.energy_low_j is not None and c.energy_high_j is not None:
        text += f", 80 %: {energy(c.energy_low_j)} to {energy(c.energy_high_j)}"
    return text


def invoice(c: Campaign) -> list[tuple[str, str, str, str]]:
    """The lines of the invoice and their sum: what, quantity, rate, USD; none without a price."""
    if c.cost_usd is None or not c.invoice:
        return []
    rows = []
    for each in c.invoice:
        many = f"{each.quantity:,.1f}" if each.quantity >= 100 else digits(each.quantity)
        quantity = f"{many} {each.unit}"
        rows.append((each.what, quantity, digits(each.rate_usd, 4), f"{each.usd:,.2f}"))
    dated = f" (price of {c.price_date})" if c.price_date else ""
    return [*rows, (f"total{dated}", "", "", f"{c.cost_usd:,.2f}")]


def told(c: Campaign) -> list[str]:
    """When it ends, what it costs, its failures and its energy, in sentences."""
    lines = [f"{_when(c)}.", f"{_checkpoints(c)}; {_failures(c)}."]
    if c.cost_usd is not None and c.cost_low_usd is not None and c.cost_high_usd is not None:
        most = money(c.cost_95_usd) if c.cost_95_usd is not None else ""
        by = f"by {c.end_95}" if c.end_95 else f"within {duration(c.days_95 * DAY)}"
        text = (
            f"Cost {money(c.cost_usd)} (80 %: {money(c.cost_low_usd)} to {money(c.cost_high_usd)})"
        )
        lines.append(
            f"{text}; with 95 % probability done {by} for at most {most}." if most else text
        )
    if c.energy_j is not None:
        lines.append(f"Energy {_joules(c)} (scope: {c.energy_scope}).")
    return [line[0].upper() + line[1:] for line in lines]


def _invoice(out: Console, c: Campaign) -> None:
    if c.cost_usd is None or not c.invoice:
        say(out, "invoice: price unknown (--price sets one)")
        return
    show(out, fitted_table(out.width - 2, INVOICE, invoice(c), ("rate", "quantity")))
    if c.cost_95_usd is not None and c.cost_low_usd is not None and c.cost_high_usd is not None:
        say(
            out,
            f"80 %: {money(c.cost_low_usd)} to {money(c.cost_high_usd)}; with 95 % probability at"
            f" most {money(c.cost_95_usd)}",
        )
