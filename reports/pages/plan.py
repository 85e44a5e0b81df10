"""`roofcast plan` for reading: the model, its training, and what the law says of it."""

from __future__ import annotations

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import digits, duration, energy, hourly, money, percent, seconds, words
from roofcast.reports.pages.search import words_of
from roofcast.reports.parts import Console
from roofcast.simulator.campaign.plan import Plan, Planned

FAR = 1.25  # over-training that is said


def print_planned(found: Planned) -> None:
    """Print the plan to stdout; of several devices all, the least loss first."""
    with page() as out:
        say(out, f"plan for {found.budget}", indent=0, style="bold")
        if len(found.plans) > 1:
            out.print()
            _table(out, found.plans)
        best = found.plans[0]
        section(out, f"Best: {best.devices:,} × {best.device}" if found.plans[1:] else "The plan")
        for first, line in _lines(best):
            say(out, line, first=first)
        for first, line in reproduced(found, best):
            say(out, line, first=first)
        section(out, "Assumed")
        for line in found.assumptions:
            say(out, line, first="- ")


def _lines(p: Plan) -> list[tuple[str, str]]:
    heads = f"{p.heads} heads, {p.kv_heads} of keys and values"
    interval = ""
    if p.time_low_s is not None and p.time_high_s is not None:
        low, high = (duration(each, like=p.time_s) for each in (p.time_low_s, p.time_high_s))
        interval = f", 80 % interval {low} to {high}"
    lines = [
        ("model: ", f"{words(p.parameters)} parameters, {p.family}: {p.layers} layers of width"
                    f" {p.width:,}, {heads}, feed-forward {p.feed_forward:,}, vocabulary"
                    f" {p.vocabulary:,}"),
        ("tokens: ", f"{words(p.tokens)}, {digits(p.tokens_per_parameter)} per parameter"
                     f" ({digits(p.training_flop)} FLOP)"),
        ("loss: ", f"{p.loss:.3f} nats per token, 80 % interval of the law {p.loss_low:.3f} to"
                   f" {p.loss_high:.3f}{_over(p)}"),
        ("optimum of the law: ", f"{words(p.optimal_parameters)} parameters for these FLOP, 80 %"
                                 f" interval {words(p.optimal_low)} to {words(p.optimal_high)}"),
        ("training: ", f"{duration(p.time_s)} on {p.devices:,} × {p.device}{interval}"),
        ("devices: ", f"{p.devices:,}, {p.why}"),
        ("step: ", f"{seconds(p.step_time_s)} for a batch of {number_of(p.batch, 'sequence')} of"
                   f" {p.sequence:,} tokens, MFU {percent(p.mfu)}; {words_of(p.options)}"),
    ]  # fmt: skip
    if p.cost_usd is not None and p.price_usd_per_hour is not None:
        text = f"{money(p.cost_usd)} at {hourly(p.price_usd_per_hour)} per device-hour"
        if p.inference_usd is not None:
            text += f"; {money(p.inference_usd)} for {words(p.inference_tokens)} tokens of use"
        lines.append(("cost: ", text))
    if p.energy_by_scope_j:
        text = ", ".join(f"{scope} {energy(j)}" for scope, j in p.energy_by_scope_j.items())
        lines.append(("energy: ", text))
    return lines


def reproduced(found: Planned, p: Plan) -> list[tuple[str, str]]:
    """The commands that forecast the plan in full."""
    path = file_of(p)
    command = (
        f"roofcast predict {path} --on {p.device} --seq {p.sequence} --batch {p.batch} --tokens"
        f" {p.tokens:.10g} {words_of(p.options)}"
    )
    if p.price_given and p.price_usd_per_hour is not None:
        command += f" --price {p.price_usd_per_hour:g}"
    return [("to forecast it in full: ", f"add --save {path}, then {command}")]


def file_of(p: Plan) -> str:
    """A file name for the config.json of a plan's model."""
    size = f"{p.parameters / 1e9:.3g}b" if p.parameters >= 1e9 else f"{p.parameters / 1e6:.3g}m"
    return f"{p.family}-{size}.json"


def _over(p: Plan) -> str:
    """Over-training, in loss."""
    if 1.0 / FAR <= p.over_trained <= FAR:
        return ""
    how = "over" if p.over_trained > 1 else "under"
    return (
        f"; {how}-trained: {digits(p.over_trained)} times the optimum's tokens per parameter, which"
        f" costs {p.loss - p.optimal_loss:.3f} beside the optimum of the same training FLOP"
    )


def _table(out: Console, plans: tuple[Plan, ...]) -> None:
    columns: list[tuple[str, Justify]] = [
        ("devices", "left"), ("parameters", "right"), ("tokens", "right"), ("loss", "right"),
        ("time", "right"), ("cost", "right"),
    ]  # fmt: skip
    rows = [
        [
            f"{p.devices:,} × {p.device}", words(p.parameters), words(p.tokens), f"{p.loss:.3f}",
            duration(p.time_s), money(p.cost_usd) if p.cost_usd is not None else "no price",
        ]
        for p in plans
    ]  # fmt: skip
    show(out, fitted_table(out.width - 2, columns, rows, ("time",)))
