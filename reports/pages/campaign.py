"""The whole training, for reading: duration or dates, goodput, where the time goes, invoice."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, plain_table, say, section, show
from roofcast.reports.format import (
    digits,
    duration,
    energy,
    hourly,
    money,
    percent,
    seconds,
    si,
    words,
)  # fmt: skip
from roofcast.reports.parts import Console, Table
from roofcast.simulator.campaign.money import decimals
from roofcast.simulator.campaign.result import Campaign

DAY = 86400.0
INVOICE: tuple[tuple[str, Justify], ...] = (
    ("invoice", "left"), ("quantity", "right"), ("rate", "right"), ("USD", "right"),
)  # fmt: skip
STAGES: tuple[tuple[str, Justify], ...] = (
    ("stage", "left"), ("steps", "right"), ("batch", "right"), ("sequence", "right"),
    ("step", "right"), ("time", "right"), ("energy", "right"), ("USD", "right"),
)  # fmt: skip
SHOWN = 5e-5  # parts of the time are listed from this share on


def campaign_section(out: Console, c: Campaign, as_if: str = "") -> None:
    """Print the whole training. as_if: that it does not fit, and what would."""
    section(out, "The whole training")
    if as_if:
        say(out, as_if, style="bold red")
    say(out, _when(c), style="bold")
    for line in _chances(c):
        say(out, line)
    say(out, _goodput(c))
    if c.stages:
        show(out, _stages(out, c))
        say(out, "a stage's time, energy and USD hold its share of all that follows", style="dim")
    show(out, _parts(c))
    say(out, _checkpoints(c))
    say(out, _failures(c))
    if c.input_limited:
        say(out, "the input limits the step: data loaders give fewer samples than it could take")
    if c.energy_j is not None:
        say(out, f"energy {_joules(c)} (scope: {c.energy_scope})")
    _invoice(out, c, bool(as_if))


def share(part: float) -> str:
    """A share with one decimal.

    >>> share(0.9692)
    '96.9 %'
    """
    return f"{100 * part:.1f} %"


def _when(c: Campaign) -> str:
    low, high = (duration(days * DAY, like=c.time_s) for days in (c.days_low, c.days_high))
    if c.start is None or c.end is None:
        return f"{duration(c.time_s)} expected; 80 % interval {low} to {high}"
    return (
        f"from {c.start} to {c.end}: {duration(c.time_s)} expected; 80 % interval {low} to {high},"
        f" ending {c.end_low} to {c.end_high}"
    )


def _chances(c: Campaign) -> list[str]:
    """By when, and for how much at most, with 95 % probability; and the chance of a deadline."""
    late = f"within {duration(c.days_95 * DAY, like=c.time_s)}"
    late = f"by {c.end_95}, {late}" if c.end_95 else late
    cost = f", for at most {money(c.cost_95_usd)}" if c.cost_95_usd is not None else ""
    lines = [f"with 95 % probability done {late}{cost}"]
    if c.deadline_probability is not None:
        day = c.deadline or "the deadline"
        lines.append(f"probability of being done by {day}: {percent(c.deadline_probability)}")
    return lines


def _goodput(c: Campaign) -> str:
    """The share of the time that goes into the steps."""
    return (
        f"{share(c.goodput)} of that time goes into training steps (goodput; 80 % interval"
        f" {share(c.goodput_low)} to {share(c.goodput_high)}): {words(round(c.steps))}"
        f" {'step' if round(c.steps) == 1 else 'steps'} of {seconds(c.step_s)}"
        f"{' in the mean' if c.stages else ''}, {duration(c.steps_s)}"
    )


def _stages(out: Console, c: Campaign):
    """A row per stage."""
    rows = [
        (
            each.name, words(round(each.steps)), words(each.batch),
            f"{each.sequence:,}" if each.sequence else "",
            seconds(each.step_s), duration(each.time_s),
            energy(each.energy_j) if each.energy_j is not None else "",
            f"{each.cost_usd:,.2f}" if each.cost_usd is not None else "",
        )
        for each in c.stages
    ]  # fmt: skip
    return fitted_table(out.width - 2, STAGES, rows, ("sequence", "batch", "energy", "steps"))


def parts(c: Campaign) -> list[tuple[str, str, str]]:
    """The parts of the time, the largest first: name, time, share."""
    found = {
        "steps": c.steps_s,
        "slower steps (stragglers)": c.slow_s,
        "evaluation": c.eval_s,
        "saving checkpoints": c.checkpoint_s,
        "work redone after failures": c.lost_s,
        "noticing failures": c.detection_s,
        "waiting for capacity": c.wait_s,
        "restarts after failures": c.restart_s,
        "starting the job": c.start_s,
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


CHOSEN = {"given": "as given", "shortest mean run": "which makes the expected run shortest"}


def _checkpoints(c: Campaign) -> str:
    k = c.checkpoints
    text = f"checkpoints: {si(k.bytes, 'B')}; the run stops {duration(k.stall_s)} for each"
    if k.save_s > k.stall_s:
        text += f" ({duration(k.save_s)} to storage, overlapped)"
    if k.count == 1:
        return f"{text}; one at the end"
    how = CHOSEN.get(k.chosen, k.chosen)
    return f"{text}, every {duration(k.every_s)} ({words(round(k.every_steps))} steps), {how}"


def _failures(c: Campaign) -> str:
    f = c.failures
    if f.hours_between is None:
        return "failures: none"
    rate = f"{digits(f.per_1000_node_days)} failures per 1000 node-days"
    between = duration(f.hours_between * 3600)
    if f.preemptions:
        return (
            f"interruptions: {digits(f.expected)} expected, {digits(f.preemptions)} of them"
            f" preemptions of spot capacity; one per {between} ({rate})"
        )
    return f"failures: {digits(f.expected)} expected, one per {between} ({rate})"


def _joules(c: Campaign) -> str:
    assert c.energy_j is not None
    text = energy(c.energy_j)
    if c.energy_low_j is not None and c.energy_high_j is not None:
        text += f", 80 % interval {energy(c.energy_low_j)} to {energy(c.energy_high_j)}"
    return text


def invoice(c: Campaign, as_if: bool = False) -> list[tuple[str, str, str, str]]:
    """The lines of the invoice and their sum: what, quantity, rate, USD; none without a price."""
    if c.cost_usd is None or not c.invoice:
        return []
    rows = []
    for each in c.invoice:
        quantity = f"{each.quantity:,.{decimals(each.quantity)}f} {each.unit}"
        rows.append((each.what, quantity, hourly(each.rate_usd)[1:], f"{each.usd:,.2f}"))
    dated = f" (price of {c.price_date})" if c.price_date else ""
    dated += ", as if it fitted" if as_if else ""
    return [*rows, (f"total{dated}", "", "", f"{c.cost_usd:,.2f}")]


def told(c: Campaign) -> list[str]:
    """When it ends, what it costs, its failures and its energy, in sentences."""
    lines = [f"{_when(c)}.", *(f"{line}." for line in _chances(c))]
    lines.append(f"{_checkpoints(c)}; {_failures(c)}.")
    if c.cost_usd is not None and c.cost_low_usd is not None and c.cost_high_usd is not None:
        low, high = money(c.cost_low_usd), money(c.cost_high_usd)
        lines.append(f"Cost {money(c.cost_usd)}; 80 % interval {low} to {high}.")
    if c.energy_j is not None:
        lines.append(f"Energy {_joules(c)} (scope: {c.energy_scope}).")
    return [line[0].upper() + line[1:] for line in lines]


def _invoice(out: Console, c: Campaign, as_if: bool) -> None:
    if c.cost_usd is None or not c.invoice:
        say(out, "invoice: price unknown (--price sets one)")
        return
    show(out, fitted_table(out.width - 2, INVOICE, invoice(c, as_if), ("rate", "quantity")))
    if c.cost_low_usd is not None and c.cost_high_usd is not None:
        low, high = money(c.cost_low_usd), money(c.cost_high_usd)
        say(out, f"80 % interval of the total: {low} to {high}")
