"""roofcast roofline"""

import click

from roofcast.reports.files import check_target, replacing
from roofcast.reports.options import Sectioned, scenario_options, scenarios


@click.command("roofline", cls=Sectioned)
@scenario_options(several=True, required=False)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="Where the picture goes: .png, .svg or .pdf.",
)
@click.option(
    "--threads",
    type=click.Choice(["1", "all"]),
    help="Without MODEL: this machine on one thread, or on all of them.",
)
@click.option(
    "--kernels",
    metavar="FILE",
    help="Without MODEL: the table of measured kernels. Default: the newest of this machine.",
)
def command(output: str, threads: str | None, kernels: str | None, **asked) -> None:
    """Draw the roofline of MODEL: one point an op, its area the share of the time, under every roof
    of the device.

    MODEL is as for roofcast predict; loading a .py runs it. With several --on, the devices are
    overlaid.

    Without MODEL, --on this-machine (one thread: this-machine-1) draws the measured roofs of this
    machine with the kernels that roofcast crosscheck --kernels has measured as points.
    """
    check_target(output, (".png", ".svg", ".pdf"))
    from roofcast.reports.pictures.roofline import draw, save

    if asked["model"] is None:
        figure = _machine(asked["on"], threads, kernels)
    elif threads or kernels:
        raise click.UsageError(
            "--threads and --kernels draw measured kernels of this machine; leave MODEL out"
        )
    else:
        from roofcast import hwdb
        from roofcast.reports.pictures.roofs import machine
        from roofcast.simulator.forecast.chain import forecast

        wanted = scenarios(**asked)
        forecasts = [forecast(scenario) for scenario in wanted]
        figure = draw(
            forecasts,
            [machine(hwdb.device(each.device, each.set), each.mode == "train") for each in wanted],
        )
    with replacing(output) as temporary:
        save(figure, temporary)
    click.echo(f"wrote {output}")


def _machine(on: tuple[str, ...], threads: str | None, path: str | None):
    """The picture of this machine's kernels; says how many lie above a roof."""
    from roofcast import hwdb
    from roofcast.hwdb import names
    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.pictures.machine import draw, told
    from roofcast.reports.tables import kernels as kernel_table
    from roofcast.simulator.machine.crosscheck import kernels as kernel_check

    name = on[0] if len(on) == 1 else "this-machine" if not on else ""
    if name not in names.THIS_MACHINE:
        raise click.UsageError(
            "MODEL is missing; only --on this-machine or this-machine-1 has measured kernels to"
            " draw without one"
        )
    one, every = (names.this_machine(each) for each in reversed(names.THIS_MACHINE))
    if path is None:
        hwdb.device(name)  # says what to do where it is not calibrated
        path = kernel_table.newest(one.parent.parent / "measured", one.stem)
        if path is None:
            raise BadInput(
                f"{name}: no kernels were measured yet; run: roofcast crosscheck --kernels"
            )
    kept = kernel_table.read(path)
    count = 1 if threads == "1" or (threads is None and name.endswith("-1")) else max(kept.sessions)
    device = hwdb.device(kept.devices[count])
    rows = kernel_check.forecasts(kept.sessions[count], device, threads=count)
    words = told(kernel_check.above(rows, device), len(rows))
    click.echo(words)
    clock = "one thread, CPU time" if count == 1 else f"{count} threads, best wall time"
    return draw(device, rows, f"{clock}, {kept.date}", words)
