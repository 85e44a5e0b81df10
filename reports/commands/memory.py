"""roofcast memory"""

from __future__ import annotations

from typing import Any

import click

from roofcast.reports.options import (
    Sectioned,
    answer,
    print_json,
    scenario_options,
    scenarios,
    to_json,
)

_KEYS = ("model", "device", "batch", "precision", "parameters", "memory", "layers", "assumptions")
_PARALLEL_KEYS = ("devices", "system", "layout", "ranks")


@click.command("memory", cls=Sectioned)
@scenario_options(length=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(as_json: bool, **asked: Any) -> None:
    """Memory at peak by kind, by layer or pipeline stage, and the largest batch that fits.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx file, or my_net.py:MyNet with --input. Loading a .py runs it; the others are only read.
    """
    (scenario,) = scenarios(**asked)
    forecast = answer(scenario)
    if as_json:
        fields = to_json(forecast)
        keys = _KEYS + (_PARALLEL_KEYS if forecast.layout else ())
        print_json({key: fields[key] for key in keys})
        return
    from roofcast.reports.pages.memory import print_memory

    print_memory(forecast)
