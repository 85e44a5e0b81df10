"""roofcast memory"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from roofcast.reports.answers import answer
from roofcast.reports.options import Sectioned, print_json, scenario_options, scenarios, to_json

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast

_KEYS = (
    "model", "device", "batch", "precision", "parameters", "trainable_parameters", "lora",
    "adapted", "weights", "memory", "layers", "assumptions",
)  # fmt: skip
_PARALLEL_KEYS = ("devices", "system", "layout", "ranks")


@click.command("memory", cls=Sectioned)
@scenario_options(several=True, length=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(as_json: bool, **asked: Any) -> None:
    """Memory at peak by kind, by op or pipeline stage, and the largest batch that fits.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx or .keras file, or my_net.py:MyNet (PyTorch with --input, or Keras). Loading a .py runs
    it; the others are only read. With --mode infer the cache of keys and values of --batch
    sequences of --seq tokens is counted.
    Several --on print a table that compares the devices.
    """
    from roofcast.simulator.forecast.cache import with_cache

    forecasts = [with_cache(answer(each), each) for each in scenarios(**asked)]
    if as_json:
        found = [_fields(forecast) for forecast in forecasts]
        print_json(found[0] if len(found) == 1 else {"forecasts": found})
        return
    from roofcast.reports.pages.memory import print_memory

    if len(forecasts) == 1:
        print_memory(forecasts[0])
        return
    from roofcast.reports.pages.comparison import print_memories

    print_memories(forecasts)


def _fields(forecast: Forecast) -> dict[str, Any]:
    """What --json prints of a forecast."""
    fields = to_json(forecast)
    keys = _KEYS + (_PARALLEL_KEYS if forecast.layout else ())
    return {key: fields[key] for key in keys}
