"""Choices of hardware for a server as rows."""

from __future__ import annotations

from typing import Any

from roofcast.reports.tables.serving import table
from roofcast.simulator.serving.hardware_chosen import ServingChosen

FIELDS = ("node", "usd_per_hour", "purchase_usd", "capacity_bytes")


def choices_table(found: ServingChosen) -> list[dict[str, Any]]:
    """A row for each choice: what it costs, and its forecast, in SI units and USD."""
    forecasts = table([c.forecast for c in found.choices])
    return [
        {"rank": i + 1, **{name: getattr(c, name) for name in FIELDS}, **row}
        for i, (c, row) in enumerate(zip(found.choices, forecasts, strict=True))
    ]
