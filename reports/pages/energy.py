"""Power and energy by scope: watts of a device, energy of the run, carbon."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, say, section, show
from roofcast.reports.format import digits, energy, si
from roofcast.reports.parts import Console
from roofcast.simulator.forecast.result import Forecast

MEANING = {
    "board": "the device alone",
    "accelerator": "with its share of host, NICs, fans",
    "node": "at the plug",
    "site": "with the building",
}
PACKAGE = "the processor package alone"
TONNE = 1000.0  # kg


def energy_section(out: Console, f: Forecast, cpu: bool) -> None:
    """A row per scope, where the run's length or its site is asked for."""
    if not f.power_by_scope_w or not (f.energy_by_scope_j or _asked(f)):
        return
    section(out, "Power and energy")
    unit = "step" if f.mode == "train" else "pass"
    rows = []
    for scope, watts in f.power_by_scope_w.items():
        meaning = PACKAGE if cpu and scope == "board" else MEANING[scope]
        meaning += f", PUE {f.pue:g}" if scope == "site" else ""
        step, run = f.step_energy_by_scope_j[scope], f.energy_by_scope_j.get(scope)
        row = [scope, meaning, si(watts, "W"), si(step, "J")]
        rows.append([*row, energy(run)] if run is not None else row)
    columns: list[tuple[str, Justify]] = [
        ("scope", "left"),
        ("what it holds", "left"),
        ("per device", "right"),
        (unit, "right"),
    ]
    columns += [("all steps", "right")] if f.energy_by_scope_j else []
    show(out, fitted_table(out.width - 2, columns, rows, ["what it holds"]))
    for line in carbon_lines(f):
        say(out, line)


def _asked(f: Forecast) -> bool:
    return f.site == "given" or f.carbon_g_per_kwh is not None or f.embodied_kg is not None


def carbon_lines(f: Forecast) -> list[str]:
    """Power of the node; carbon of the electricity, and of the hardware."""
    lines = []
    if f.node_power_w is not None and f.node_devices is not None and f.node_devices > 1:
        lines.append(
            f"a node of {f.node_devices} such devices: {si(f.node_power_w, 'W')} at the plug"
        )
    if f.carbon_kg is not None:
        where = f" ({f.region})" if f.region else ""
        lines.append(
            f"carbon of the site's electricity: {mass(f.carbon_kg)} CO2e at"
            f" {f.carbon_g_per_kwh:g} g/kWh{where}"
        )
    elif f.carbon_g_per_kwh is not None:
        lines.append(
            f"carbon: {f.carbon_g_per_kwh:g} g CO2e/kWh; --tokens gives the run its length"
        )
    if f.embodied_kg is not None:
        lines.append(
            f"embodied carbon, not in the line above: {mass(f.embodied_kg)} CO2e, the run's share"
            " of making the hardware"
        )
    return lines


def mass(kg: float) -> str:
    """A mass in kg or t.

    >>> mass(37020.0), mass(0.5)
    ('37.0 t', '0.500 kg')
    """
    return f"{digits(kg / TONNE)} t" if kg >= TONNE else f"{digits(kg)} kg"
