"""What each number of the hardware is worth, for reading."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, page, say, show
from roofcast.reports.format import seconds, si
from roofcast.reports.pages.asked import edited, pass_or_step, what
from roofcast.reports.pages.layout import layout_line, on_what
from roofcast.simulator.choose.sensitivity import Effect, Sensitivity

LEGEND = (
    "+1 %: change of the step time if the number grows by 1 %; twice as good: time that double the"
    " rate saves, or half the latency or host time, all else equal, and its share of the step;"
    " then: the step time after that. The savings do not add up: another limit takes over"
)


def print_sensitivity(found: Sensitivity) -> None:
    """Print one row per number to stdout, largest effect first."""
    step = found.forecast
    columns: list[tuple[str, Justify]] = [("number", "left"), ("now", "right")]
    columns += [("+1 %", "right"), ("twice as good", "right"), ("then", "right")]
    with page() as out:
        title = f"{step.model} on {on_what(step)}{edited(step)}"
        say(out, f"{title}: what each number of the hardware is worth", indent=0, style="bold")
        say(out, what(step))
        if step.layout is not None:
            say(out, layout_line(step.layout))
        out.print()
        say(out, f"{seconds(step.step_time_s)} per {pass_or_step(step.mode)}")
        out.print()
        if not found.effects:
            say(out, "no number of the hardware changes the step time by as much as 0.05 %")
            return
        rows = [_row(effect, step.step_time_s) for effect in found.effects]
        show(out, fitted_table(out.width - 2, columns, rows, spare=("now", "then")))
        out.print()
        say(out, LEGEND)
        for line in found.assumptions:
            say(out, line)


def _row(effect: Effect, step_s: float) -> list[str]:
    value = "" if effect.value is None else _value(effect)
    saved = seconds(effect.better_s) if effect.better_s > 0 else "0 s"
    share = f"{100 * effect.better_s / step_s:.2g} %"
    places = 2 if abs(effect.elasticity) >= 0.01 else 4
    change = f"{effect.elasticity:+.{places}f} %"
    return [effect.number, value, change, f"{saved}  {share:>5}", seconds(step_s - effect.better_s)]


def _value(effect: Effect) -> str:
    assert effect.value is not None
    if effect.unit == "s":
        return seconds(effect.value)
    return si(effect.value, effect.unit.partition(" ")[0])
