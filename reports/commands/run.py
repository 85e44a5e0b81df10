"""roofcast run"""

import click

from reports.options import answer, print_json, to_json


@click.command("run")
@click.argument("path", metavar="SCENARIO")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(path: str, as_json: bool) -> None:
    """Forecast what the file SCENARIO describes; roofcast predict .. --save scenario.toml writes one."""
    from scenarios.files import read

    forecast = answer(read(path))
    if as_json:
        print_json(to_json(forecast))
        return
    from reports.text import print_forecast

    print_forecast(forecast)
