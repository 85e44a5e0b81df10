"""What a forecast was asked and what it had to assume, for reading; every page of a forecast says
both.
"""

from __future__ import annotations

from rich.console import Console

from roofcast.reports.console import say, section
from roofcast.simulator.forecast.result import Forecast


def what(forecast: Forecast) -> str:
    """What was asked, but for model and device.

    batch 1 × 8192 tokens, bf16, adamw, flash attention, pytorch-eager
    """
    parts = [f"batch {forecast.batch:,}{_size(forecast)}", forecast.precision]
    if forecast.mode == "train":
        parts.append(forecast.optimizer or "no optimizer")
        parts.append(f"recompute {forecast.recompute}")
    if any(layer.op == "attention" for layer in forecast.layers):
        parts.append(f"{forecast.attention} attention")
    return ", ".join([*parts, forecast.stack])


def _size(forecast: Forecast) -> str:
    """How large a sample is; a volume, or a slice of one, as the model says it."""
    if forecast.sequence:
        return f" × {forecast.sequence} tokens"
    said = (
        each.partition(", ")[0].split(" of ")
        for each in forecast.assumptions
        if each.startswith(("volumes of ", "slices of "))
    )
    for _, sides in said:
        return f" × {sides.replace('x', '×')} {'voxels' if sides.count('x') > 1 else 'pixels'}"
    return f" × {forecast.image}×{forecast.image} pixels" if forecast.image else ""


def assumptions(out: Console, forecast: Forecast) -> None:
    """What had to be assumed."""
    if forecast.assumptions:
        section(out, "Assumed")
        for each in forecast.assumptions:
            say(out, each, first="- ")
