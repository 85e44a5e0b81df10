"""What a search or a choice found, as rows of a table."""

from __future__ import annotations

from typing import Any

from roofcast.simulator.choose.chosen import Chosen
from roofcast.simulator.choose.explore import Explored

PLAIN = (
    "device", "devices", "node", "time_s", "time_low_s", "time_high_s", "within_probability",
    "under_probability", "cost_usd", "cost_low_usd", "cost_high_usd", "purchase_usd",
    "break_even_months", "power_w", "energy_j", "step_time_s", "peak_bytes", "capacity_bytes",
    "mfu", "interval_class",
)  # fmt: skip


def choices_table(found: Chosen) -> list[dict[str, Any]]:
    """One row per choice, then one per point of the front that is not among them."""
    rows = []
    shown = {(c.device, c.devices) for c in found.choices}
    others = [c for c in found.front if (c.device, c.devices) not in shown]
    for rank, choice in enumerate((*found.choices, *others), 1):
        row: dict[str, Any] = {"rank": rank if rank <= len(found.choices) else None}
        row |= {name: getattr(choice, name) for name in PLAIN}
        if choice.price is not None:
            row |= {f"price_{k}": v for k, v in choice.price._asdict().items()}
        for name, value in choice.options.items():
            row[f"layout_{name}"] = "+".join(value) if isinstance(value, tuple) else value
        rows.append(row)
    return rows


def layouts_table(found: Explored) -> list[dict[str, Any]]:
    """One row per valid layout, the fastest first."""
    order = sorted(range(len(found.options)), key=lambda i: found.step_s[i])
    return [
        {
            **{n: "+".join(v) if isinstance(v, tuple) else v for n, v in found.options[i].items()},
            "step_time_s": float(found.step_s[i]),
            "peak_bytes": float(found.peak_bytes[i]),
            "fits": bool(found.fits[i]),
        }
        for i in order
    ]
