"""roofcast memory"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from roofcast.reports.answers import answer
from roofcast.reports.console import tell
from roofcast.reports.files import PICTURES, check_target
from roofcast.reports.options import Sectioned, print_json, scenario_options, scenarios, to_json

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast
    from roofcast.simulator.forecast.scenario import Scenario

_KEYS = (
    "model", "device", "batch", "precision", "parameters", "trainable_parameters", "lora",
    "adapted", "weights", "memory", "fitting", "layers",
    "assumptions",
)  # fmt: skip
_PARALLEL_KEYS = ("devices", "system", "layout", "ranks")


@click.command("memory", cls=Sectioned)
@scenario_options(several=True, length=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option("--plot", metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
def command(as_json: bool, plot: str | None, **asked: Any) -> None:
    """Memory at peak by kind, by op or pipeline stage, and the largest batch that fits.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx or .keras file, or my_net.py:MyNet (PyTorch with --input, or Keras). Loading a .py runs
    it; the others are only read. With --mode infer the cache of keys and values of --batch
    sequences of --seq tokens is counted.
    Several --on print a table that compares the devices.
    """
    from roofcast.simulator.forecast.cache import with_cache

    if plot is not None:
        check_target(plot, PICTURES)
    wanted = scenarios(**asked)
    forecasts = [with_cache(answer(each), each) for each in wanted]
    if plot is not None:
        _draw(forecasts, wanted, plot)
    if as_json:
        found = [_fields(forecast) for forecast in forecasts]
        print_json(found[0] if len(found) == 1 else {"forecasts": found})
        return
    from roofcast.reports.pages.memory import print_memory

    if len(forecasts) == 1:
        print_memory(forecasts[0])
    else:
        from roofcast.reports.pages.comparison import print_memories

        print_memories(forecasts)
    if plot is not None:
        tell(f"wrote {plot}")


def _draw(forecasts: list[Forecast], wanted: list[Scenario], path: str) -> None:
    """Through the step on one device; by pipeline stage; or devices side by side."""
    from roofcast.reports.pictures.memory import draw
    from roofcast.reports.pictures.style import write
    from roofcast.simulator.forecast.timeline import moments

    found = moments(wanted[0]) if len(wanted) == 1 else ()
    write(path, lambda: draw(forecasts, found))


def _fields(forecast: Forecast) -> dict[str, Any]:
    """What --json prints of a forecast."""
    fields = to_json(forecast)
    keys = _KEYS + (_PARALLEL_KEYS if forecast.layout else ())
    return {key: fields[key] for key in keys}
