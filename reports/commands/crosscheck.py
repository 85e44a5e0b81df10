"""roofcast crosscheck"""

from __future__ import annotations

import click

from reports.options import print_json


@click.command("crosscheck")
@click.option("--kernels", is_flag=True, help="The numba kernels only, by op and size.")
@click.option("--training", is_flag=True, help="The training steps only: nets in numba, and in PyTorch where it is installed.")
@click.option("--plot", metavar="FILE", help="Draw predicted against measured (.png, .svg, .pdf).")
@click.option("--quick", is_flag=True, help="Fewer rounds, smaller kernels, no net of more than a fifth of a second.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(kernels: bool, training: bool, plot: str | None, quick: bool, as_json: bool) -> None:
    """Forecast kernels and training steps of this machine, run them, and show how far the forecasts were off.

    One thread, CPU time, interleaved rounds; the noise is the same point measured twice. Forecasts rest on this-machine-1, which
    roofcast calibrate writes. Training steps are kept as a dated table that roofcast validate --runs reads.
    """
    import hwdb
    from hwdb.errors import UnknownName
    from reports.files import check_target

    if plot:
        check_target(plot, (".png", ".svg", ".pdf"))
    try:
        device = hwdb.device(ONE_THREAD)
    except UnknownName:
        raise UnknownName("this machine is not calibrated, so there are no ceilings to forecast with; run: roofcast calibrate") from None
    both = kernels == training
    ran, bare = _kernels(device, quick) if kernels or both else ([], [])
    trained, kept = _training(device.name, quick) if training or both else ([], "")
    if plot:
        from reports.crosscheck_plot import draw

        draw(device.name, ran, trained, plot)
    if as_json:
        from simulator.machine.crosscheck import to_json

        print_json(to_json(ran, trained))
        return
    from reports.crosscheck_text import print_crosscheck

    print_crosscheck(device.name, ran, trained, bare)
    if kept:
        click.echo(kept)


ONE_THREAD = "this-machine-1"
ROUNDS, QUICK_ROUNDS = 8, 2


def _kernels(device, quick: bool):
    """Kernels beside their forecasts: with a constant an op, and by the ceilings alone."""
    from simulator.machine import kernel_check

    with _bar("kernels") as progress:
        session = kernel_check.measured(quick, QUICK_ROUNDS if quick else ROUNDS // 2, progress)
    return kernel_check.forecasts(session, device), kernel_check.forecasts(session, device, constants=False)


def _training(cpu: str, quick: bool):
    """Training steps beside their forecasts, and where the table was kept."""
    import tempfile
    from importlib.util import find_spec
    from pathlib import Path

    from hwdb import names
    from hwdb.errors import BadInput
    from reports import crosscheck_table
    from simulator.machine import crosscheck, measure, net_list

    torch = find_spec("torch") is not None
    if not torch:
        click.echo("PyTorch is not installed: only the nets in numba are trained (pip install roofcast[torch])", err=True)
    with _bar("training steps") as progress:
        session = measure.steps(net_list.chosen(quick, torch), QUICK_ROUNDS if quick else ROUNDS, progress)
    calibrated = names.this_machine(ONE_THREAD)
    folder = calibrated.parent.parent / "measured"
    try:
        device = crosscheck_table.write_device(session, calibrated, folder)
        rows = crosscheck.training(session, str(device))
        table = crosscheck_table.write(rows, session, device, cpu)
        return rows, f"kept as {table}: roofcast validate --runs {table}"
    except (BadInput, OSError) as error:
        with tempfile.TemporaryDirectory() as aside:
            rows = crosscheck.training(session, str(crosscheck_table.write_device(session, calibrated, Path(aside))))
        return rows, f"not kept in {folder}: {error}"


def _bar(what: str):
    """A progress bar on stderr where a person looks; gives a function of how many of how many are done."""
    import contextlib
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    @contextlib.contextmanager
    def shown():
        out = Console(file=sys.stderr)
        columns = (TextColumn(what), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
            task = progress.add_task(what)
            yield lambda done, of: progress.update(task, completed=done, total=of)

    return shown()
