"""roofcast run"""

import click

from reports.options import answer, print_answers


@click.command("run")
@click.argument("path", metavar="SCENARIO")
@click.option("--on", multiple=True, metavar="DEVICE", help="Another device than the file's, with the same changes. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(path: str, on: tuple[str, ...], as_json: bool) -> None:
    """Forecast what the file SCENARIO describes; roofcast predict .. --save scenario.toml writes one.

    A scenario whose model is a .py runs it.
    """
    import msgspec

    from scenarios.files import read

    scenario = read(path)
    wanted = [msgspec.structs.replace(scenario, device=device) for device in on] or [scenario]
    print_answers([answer(each) for each in wanted], as_json)
