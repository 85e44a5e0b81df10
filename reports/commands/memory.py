"""roofcast memory"""

import click

from reports.options import answer, print_json, scenario_options, scenarios, to_json


@click.command("memory")
@scenario_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(as_json: bool, **asked) -> None:
    """What of MODEL needs how much memory, and the largest batch that fits.

    MODEL is a name (see roofcast models), a Hugging Face config.json or a .toml list of layers.
    """
    (scenario,) = scenarios(**asked)
    forecast = answer(scenario)
    if as_json:
        fields = to_json(forecast)
        print_json({key: fields[key] for key in ("model", "device", "batch", "precision", "parameters", "memory", "layers", "assumptions")})
        return
    from reports.memory_text import print_memory

    print_memory(forecast)
