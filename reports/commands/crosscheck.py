"""roofcast crosscheck"""

from __future__ import annotations

import click

from roofcast.reports.options import print_json


@click.command("crosscheck")
@click.option("--kernels", is_flag=True, help="The numba kernels only, by op and size.")
@click.option(
    "--training",
    is_flag=True,
    help="The training steps only: nets in numba, and in PyTorch where it is installed.",
)
@click.option("--plot", metavar="FILE", help="Draw predicted against measured (.png, .svg, .pdf).")
@click.option(
    "--quick",
    is_flag=True,
    help="Fewer rounds, smaller kernels, no net of more than a fifth of a second.",
)
@click.option(
    "--gpu",
    is_flag=True,
    help="Training steps on the CUDA device, by the wall clock; where there is one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(
    kernels: bool, training: bool, plot: str | None, quick: bool, gpu: bool, as_json: bool
) -> None:
    """Forecast kernels and training steps of this machine, run them, and show how far the forecasts
    were off.

    Training steps and kernels on one thread by CPU time in interleaved rounds, kernels on all
    threads too, by the best wall time; the noise is the same point measured twice. Forecasts rest
    on the devices that roofcast calibrate writes. Both are kept as dated tables that roofcast
    validate reads: steps with --runs, kernels with --ops.
    """
    from roofcast import hwdb
    from roofcast.hwdb import names
    from roofcast.hwdb.errors import UnknownName
    from roofcast.reports.files import check_target

    if plot:
        check_target(plot, (".png", ".svg", ".pdf"))
    if gpu:
        from roofcast.simulator.machine.gpu import available

        missing = available()
        if missing:
            click.echo(f"{missing}: the CPU is measured instead", err=True)
            gpu = False
    if gpu:
        kernels, training = False, True
    try:
        device = hwdb.device(names.THIS_GPU if gpu else ONE_THREAD)
    except UnknownName:
        raise UnknownName(
            "this machine is not calibrated, so there are no ceilings to forecast with; run:"
            " roofcast calibrate"
        ) from None
    both = kernels == training
    trained, said = _training(device.name, quick, gpu) if training or both else ([], "")
    parts, said_too = _kernels(device, quick) if kernels or both else ([], "")
    ran = [row for _, rows, _ in parts for row in rows]
    kept = [words for words in (said_too, said) if words]
    if plot:
        from roofcast.reports.pictures.crosscheck import draw

        draw(device.name, ran, trained, plot)
    if as_json:
        from roofcast.simulator.machine.crosscheck.steps import to_json

        print_json(to_json(ran, trained))
        return
    from roofcast.reports.pages.crosscheck import print_crosscheck

    for name, rows, bare in parts:
        print_crosscheck(name, rows, [], bare)
    if trained:
        print_crosscheck(device.name, [], trained, [])
    for words in kept:
        click.echo(words)


ONE_THREAD, ALL_THREADS = "this-machine-1", "this-machine"
ROUNDS, QUICK_ROUNDS = 8, 2


def _kernels(device, quick: bool):
    """Kernels on one thread and on all beside their forecasts, with a constant an op and by the
    ceilings alone; where they were kept.
    """
    from roofcast import hwdb
    from roofcast.hwdb import names
    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.tables import kernels as kernel_table
    from roofcast.simulator.machine.crosscheck import kernels as kernel_check

    one, every = names.this_machine(ONE_THREAD), names.this_machine(ALL_THREADS)
    whole = hwdb.device(ALL_THREADS) if every.exists() else None
    threads = _threads(whole) if whole else 1
    rounds, devices = (
        QUICK_ROUNDS if quick else ROUNDS // 2,
        {1: device} | ({threads: whole} if threads > 1 else {}),
    )
    sessions = {}
    for count in devices:
        with _bar("kernels" if count == 1 else f"kernels, {count} threads") as progress:
            sessions[count] = kernel_check.measured(quick, rounds, progress, count)
    parts = [
        (
            each.name,
            *(
                kernel_check.forecasts(sessions[count], each, constants, count)
                for constants in (True, False)
            ),
        )
        for count, each in devices.items()
    ]
    folder = one.parent.parent / "measured"
    try:
        table = kernel_table.write(
            sessions, {1: one} | ({threads: every} if threads > 1 else {}), device.name, folder
        )
        return parts, f"kept as {table}: roofcast validate --ops {table}"
    except (BadInput, OSError) as error:
        return parts, f"not kept in {folder}: {error}"


def _threads(device) -> int:
    """Threads that a device of all of them was measured with; its name ends in it."""
    import re

    found = re.search(r"(\d+) threads$", device.name)
    return int(found[1]) if found else 1


def _training(cpu: str, quick: bool, gpu: bool = False):
    """Training steps beside their forecasts, and where the table was kept."""
    import tempfile
    from importlib.util import find_spec
    from pathlib import Path

    from roofcast.hwdb import names
    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.tables import crosscheck as crosscheck_table
    from roofcast.simulator.machine.crosscheck import measure, net_list
    from roofcast.simulator.machine.crosscheck import steps as crosscheck

    torch = find_spec("torch") is not None
    if not torch:
        click.echo(
            "PyTorch is not installed: only the nets in numba are trained (pip install"
            " roofcast[torch])",
            err=True,
        )
    with _bar("training steps") as progress:
        nets = [net for net in net_list.chosen(quick, torch) if not gpu or net.by == "torch"]
        session = measure.steps(nets, QUICK_ROUNDS if quick else ROUNDS, progress, gpu)
    calibrated = names.this_machine(names.THIS_GPU if gpu else ONE_THREAD)
    folder = calibrated.parent.parent / "measured"
    try:
        device = crosscheck_table.write_device(session, calibrated, folder)
        rows = crosscheck.training(session, str(device))
        table = crosscheck_table.write(rows, session, device, cpu)
        return rows, f"kept as {table}: roofcast validate --runs {table}"
    except (BadInput, OSError) as error:
        with tempfile.TemporaryDirectory() as aside:
            rows = crosscheck.training(
                session, str(crosscheck_table.write_device(session, calibrated, Path(aside)))
            )
        return rows, f"not kept in {folder}: {error}"


def _bar(what: str):
    """A progress bar on stderr where a person looks; gives a function of how many of how many are
    done.
    """
    import contextlib
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    @contextlib.contextmanager
    def shown():
        out = Console(file=sys.stderr)
        columns = (TextColumn(what), BarColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=out, disable=not out.is_terminal, transient=True
        ) as progress:
            task = progress.add_task(what)
            yield lambda done, of: progress.update(task, completed=done, total=of)

    return shown()
