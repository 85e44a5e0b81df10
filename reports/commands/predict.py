"""roofcast predict"""

from __future__ import annotations

from typing import Any

import click

from roofcast.reports.answers import answer
from roofcast.reports.files import PICTURES, check_target
from roofcast.reports.option_campaign import campaign_options, gathered
from roofcast.reports.option_layout import BEST_LAYOUT, with_best_layout
from roofcast.reports.options import RUNS, Sectioned, print_answers, scenario_options, scenarios


@click.command("predict", cls=Sectioned)
@scenario_options(several=True)
@campaign_options
@RUNS
@BEST_LAYOUT
@click.option(
    "--remedies",
    is_flag=True,
    help=(
        "Forecast what each remedy would save, also with --json or for nets of over 1,000 ops."
        " Default: on the text page of smaller nets."
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "--save",
    metavar="FILE",
    help="Also write the scenario to a .toml file, which roofcast run and compare read.",
)
@click.option("--plot", metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
def command(
    as_json: bool,
    save: str | None,
    plot: str | None,
    layout: str | None,
    remedies: bool,
    **asked: Any,
) -> None:
    """Forecast one step of MODEL.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx or .keras file, or my_net.py:MyNet (PyTorch with --input, or Keras). Loading a .py runs
    it; the others are only read.
    Several --on print a table that compares the devices.
    """
    wanted = scenarios(campaign=gathered(asked), **asked)
    if remedies and len(wanted) > 1 and not as_json:
        raise click.UsageError("--remedies: a table of devices has no room for them; add --json")
    if layout is not None:
        wanted = [with_best_layout(scenario) for scenario in wanted]
    if save is not None:
        check_target(save, (".toml",))
        if len(wanted) > 1:
            raise click.UsageError("--save writes one scenario; give one --on")
    if plot is not None:
        check_target(plot, PICTURES)
    # a comparison of devices has no room for them
    gains = remedies or (None if not as_json and len(wanted) == 1 else False)
    forecasts = [answer(scenario, gains) for scenario in wanted]
    if save is not None:
        from roofcast.scenarios.files import write

        write(wanted[0], save)
    if plot is not None:
        from roofcast.reports.console import tell
        from roofcast.reports.pictures.step import draw
        from roofcast.reports.pictures.style import write as write_picture

        write_picture(plot, lambda: draw(forecasts))
    print_answers(forecasts, as_json)
    if plot is not None and not as_json:
        tell(f"wrote {plot}")
