"""roofcast predict"""

import click

from reports.options import answer, print_json, scenario_options, scenarios, to_json


@click.command("predict")
@scenario_options(several=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option("--save", metavar="FILE", help="Also write what was asked as a scenario file (.toml), for roofcast run.")
def command(as_json: bool, save: str | None, **asked) -> None:
    """Forecast one step of MODEL: a name (see roofcast models), a Hugging Face config.json or a .toml list of layers.

    With several --on, a table that compares the devices.
    """
    wanted = scenarios(**asked)
    if save:
        from reports.files import check_target

        check_target(save, (".toml",))
        if len(wanted) > 1:
            raise click.UsageError("--save writes one scenario; give one --on")
    forecasts = [answer(scenario) for scenario in wanted]
    if save:
        from scenarios.files import write

        write(wanted[0], save)
    if as_json:
        print_json(to_json(forecasts[0]) if len(forecasts) == 1 else {"forecasts": [to_json(each) for each in forecasts]})
        return
    from reports.text import print_comparison, print_forecast

    if len(forecasts) == 1:
        print_forecast(forecasts[0])
    else:
        print_comparison(forecasts)
