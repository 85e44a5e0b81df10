"""A forecast for reading: headline, time by layer, memory, the whole run, diagnosis."""

from __future__ import annotations

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.console import page, say, section, show, unbroken
from roofcast.reports.format import (
    digits,
    duration,
    energy,
    hourly,
    money,
    percent,
    rate,
    seconds,
    si,
    words,
)  # fmt: skip
from roofcast.reports.pages.asked import assumptions, interval_basis, pass_or_step, trained, what
from roofcast.reports.pages.campaign import campaign_section
from roofcast.reports.pages.energy import energy_section
from roofcast.reports.pages.layer_table import by_kind, layer_table, table_note
from roofcast.reports.pages.layout import devices_section, layout_line, on_what
from roofcast.reports.pages.limits import limits_section, remedies_table
from roofcast.reports.pages.memory import memory_section, peak, said_of, shortage, teacher_shortage
from roofcast.reports.pages.nearest import nearest_section
from roofcast.reports.pages.price import rent_words
from roofcast.reports.parts import Console
from roofcast.simulator.campaign.result import Campaign
from roofcast.simulator.forecast.result import Forecast

FULL = 0.995  # a lower mean clock is shown
SHOWN = 1e-4  # host time between steps is shown from this fraction of the step on


def print_forecast(forecast: Forecast) -> None:
    """Print all of a forecast to stdout."""
    with page() as out:
        headline(out, forecast)
        section(out, "Where the time goes")
        show(out, layer_table(forecast, out.width - 2))
        say(out, f"time by kind of op: {by_kind(forecast)}")
        say(out, table_note(forecast, out.width - 2), style="dim")
        limits_section(out, forecast)
        memory_section(out, forecast)
        if forecast.layout:
            devices_section(out, forecast)
        if forecast.campaign is not None:
            campaign_section(out, forecast.campaign, _as_if(forecast))
            say(out, f"the steps alone: {_whole_run(forecast, _rented(forecast.campaign))}")
        elif forecast.time_to_train_s is not None:
            section(out, "Whole run")
            say(out, _whole_run(forecast))
        energy_section(out, forecast, _is_cpu(forecast))
        if forecast.diagnosis:
            section(out, "Diagnosis")
            say(out, forecast.diagnosis)
            remedies_table(out, forecast)
        nearest_section(out, forecast)
        assumptions(out, forecast)


def _as_if(forecast: Forecast) -> str:
    """What is said before a whole training that does not fit; empty of one that does."""
    if forecast.memory.fits is not False:
        return ""
    return (
        f"does not fit: {shortage(forecast)}; all of this block is as if it did."
        f" {said_of(forecast.fitting)}"
    )


def headline(out: Console, forecast: Forecast) -> None:
    """Model, device and recipe; step time, rates and MFU; lower bound and interval."""
    one = f"one {pass_or_step(forecast.mode)}"
    say(out, f"{forecast.model} on {on_what(forecast)}: {one}", indent=0, style="bold")
    say(out, f"{what(forecast)}; {words(forecast.parameters)} parameters")
    if trained(forecast):
        say(out, trained(forecast))
    if forecast.layout:
        say(out, layout_line(forecast.layout, forecast.system))
    out.print()
    say(out, "   ".join(map(unbroken, _rates(forecast))), style="bold")
    if forecast.memory.fits:
        say(out, peak(forecast))
    if forecast.memory.fits is False:
        say(out, f"does not fit: {shortage(forecast)}; times are as if it did", style="bold red")
    if teacher_shortage(forecast):
        say(out, teacher_shortage(forecast), style="bold red")
    say(out, _phases(forecast))
    if forecast.step_energy_j is not None and forecast.power_scope == "board":
        say(out, _power(forecast))
    bound = "roofline lower bound of these kernels at datasheet peaks:"
    bound = f"{bound} {seconds(forecast.lower_bound_s)}"
    if forecast.lower_bound_s > 0:
        ratio = digits(forecast.step_time_s / forecast.lower_bound_s)
        bound += f" {unbroken(f'(the estimate is {ratio} times that)')}"
    say(out, bound)
    if forecast.low_s is not None:
        interval = (
            f"80 % prediction interval: {seconds(forecast.low_s)} to {seconds(forecast.high_s)}"
        )
        say(out, f"{interval} ({interval_basis(forecast)})")


def _power(forecast: Forecast) -> str:
    """Watts of a board, joules of a step, and the clock."""
    unit = "step" if forecast.mode == "train" else "pass"
    text = f"power {si(forecast.power_w, 'W')} per board,"
    text += f" {si(forecast.step_energy_j, 'J')} of the boards per {unit}"
    if forecast.clock_share is not None and forecast.clock_share < FULL:
        text += f"; mean clock {percent(forecast.clock_share)} of the boost clock"
    return text


def _rates(forecast: Forecast) -> list[str]:
    """Step time, throughput and utilization, as the headline has them."""
    unit = "step" if forecast.mode == "train" else "pass"
    rates = [f"{seconds(forecast.step_time_s)} per {unit}"]
    if forecast.tokens_per_s is not None:
        rates.append(f"{rate(forecast.tokens_per_s)} tokens/s")
    if forecast.tokens_per_s_per_device is not None and forecast.devices > 1:
        rates.append(f"{rate(forecast.tokens_per_s_per_device)} tokens/s per device")
    rates.append(f"{rate(forecast.samples_per_s)} samples/s")
    if forecast.mfu is not None:
        rates.append(f"MFU {percent(forecast.mfu)}")
    if forecast.hfu is not None and forecast.recompute != "none":
        rates.append(f"HFU {percent(forecast.hfu)}")
    return rates


def _phases(forecast: Forecast) -> str:
    """Time of the phases, of communication and of the host."""
    parts = [f"forward {seconds(forecast.forward_s)}"]
    if forecast.mode == "train":
        parts.append(f"backward {seconds(forecast.backward_s)}")
        parts.append(f"optimizer {seconds(forecast.update_s)}")
    phases = forecast.forward_s + forecast.backward_s + forecast.update_s
    left = forecast.step_time_s - phases - forecast.between_steps_s
    if forecast.layout and left > 0.005 * forecast.step_time_s:
        waits = forecast.layout.pp > 1 or (forecast.waiting_for_host_s or 0.0) > 0.01 * left
        what = "exposed communication and waiting" if waits else "exposed communication"
        parts.append(f"{what} {seconds(left)}")
    text = ", ".join(parts)
    between = forecast.between_steps_s
    if between > SHOWN * forecast.step_time_s and forecast.host_s > forecast.step_time_s - between:
        # the launch of the step's one program takes longer than all that it overlaps with
        return (
            f"{text}; host launch time {seconds(forecast.host_s)}, the bottleneck:"
            f" {seconds(between)} not overlapped"
        )
    if forecast.host_s > 0:
        text += f"; host launch time {seconds(forecast.host_s)}{_overlap(forecast)}"
    if forecast.between_steps_s > SHOWN * forecast.step_time_s:
        text += f"; host time between steps {seconds(forecast.between_steps_s)}, not overlapped"
    return text


def _overlap(forecast: Forecast) -> str:
    """How far device work hides the launches of the host."""
    bound = sum(layer.time_s for layer in forecast.layers if layer.bound == "host")
    bound += forecast.waiting_for_host_s or 0.0
    if bound > 0.5 * forecast.step_time_s:
        return ", the bottleneck"
    if _is_cpu(forecast):
        return ", included in these"
    return ", partly overlapped" if bound > 0.005 * forecast.step_time_s else ", overlapped"


def _is_cpu(forecast: Forecast) -> bool:
    """Whether the host is the device itself, as far as the device's name tells."""
    try:
        return hwdb.device(forecast.device).kind == "cpu"
    except RoofcastError:
        return False


def _rented(campaign: Campaign) -> bool:
    """Whether the invoice is not that of devices that are owned."""
    return all(line.unit == "device-hours" for line in campaign.invoice)


def _whole_run(forecast: Forecast, rented: bool = True) -> str:
    """Duration, steps, cost and energy of the run; without a cost where nothing is rented."""
    unit = "steps" if forecast.mode == "train" else "passes"
    left_out = "data loading, evaluation and restarts" if unit == "steps" else "data loading"
    parts = [f"{duration(forecast.time_to_train_s)} of {unit} (without {left_out})"]
    if forecast.steps is not None:
        many = round(forecast.steps)
        parts.append(f"{words(many)} {unit if many != 1 else {'steps': 'step'}.get(unit, 'pass')}")
    price = forecast.price_usd_per_hour
    if rented and forecast.cost_usd is not None:
        at = f" at {hourly(price)} per device-hour" if price is not None else ""
        of = f" ({rent_words(forecast.price)})" if forecast.price is not None else ""
        parts.append(money(forecast.cost_usd) + at + of)
    elif rented and price is None:
        parts.append("price unknown (--price sets one)")
    site = forecast.energy_by_scope_j.get("site")
    if site is not None:
        parts.append(f"{energy(site)} at the site (PUE {forecast.pue:g})")
    elif forecast.energy_j is not None:
        parts.append(f"{energy(forecast.energy_j)} of the boards")
    return ", ".join(parts)
