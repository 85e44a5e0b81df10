"""roofcast predict"""

from __future__ import annotations

from typing import Any

import click

from roofcast.reports.options import (
    RUNS,
    Sectioned,
    answer,
    print_answers,
    scenario_options,
    scenarios,
    with_best_layout,
)


@click.command("predict", cls=Sectioned)
@scenario_options(several=True)
@RUNS
@click.option(
    "--layout",
    type=click.Choice(("best",)),
    help="best: the fastest layout that fits on --devices, as roofcast search finds it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "--save", metavar="FILE", help="Also write the scenario to a .toml file, for roofcast run."
)
def command(as_json: bool, save: str | None, layout: str | None, **asked: Any) -> None:
    """Forecast one step of MODEL.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx or .keras file, or my_net.py:MyNet (PyTorch with --input, or Keras). Loading a .py runs
    it; the others are only read.
    Several --on print a table that compares the devices.
    """
    wanted = scenarios(**asked)
    if layout is not None:
        wanted = [with_best_layout(scenario) for scenario in wanted]
    if save is not None:
        from roofcast.reports.files import check_target

        check_target(save, (".toml",))
        if len(wanted) > 1:
            raise click.UsageError("--save writes one scenario; give one --on")
    forecasts = [answer(scenario) for scenario in wanted]
    if save is not None:
        from roofcast.scenarios.files import write

        write(wanted[0], save)
    print_answers(forecasts, as_json)
