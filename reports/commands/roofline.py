"""roofcast roofline"""

import click

from reports.files import check_target, replacing
from reports.options import Sectioned, scenario_options, scenarios


@click.command("roofline", cls=Sectioned)
@scenario_options(several=True)
@click.option("-o", "--output", required=True, metavar="FILE", help="Where the picture goes: .png, .svg or .pdf.")
def command(output: str, **asked) -> None:
    """Draw the roofline of MODEL: one point an op, its area the share of the time, under every roof of the device.

    MODEL is as for roofcast predict; loading a .py runs it. With several --on, the devices are overlaid.
    """
    check_target(output, (".png", ".svg", ".pdf"))
    import hwdb
    from reports.roofline_plot import draw, save
    from reports.roofs import machine
    from simulator import predict

    wanted = scenarios(**asked)
    forecasts = [predict(scenario) for scenario in wanted]
    figure = draw(forecasts, [machine(hwdb.device(each.device, each.set), each.mode == "train") for each in wanted])
    with replacing(output) as temporary:
        save(figure, temporary)
    click.echo(f"wrote {output}")
