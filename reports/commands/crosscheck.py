"""roofcast crosscheck"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from roofcast.reports.console import tell
from roofcast.reports.option_types import Once
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    from pathlib import Path

    from roofcast.hwdb.records import Device
    from roofcast.simulator.machine.crosscheck.measure import Session
    from roofcast.simulator.machine.crosscheck.steps import Ran, Trained

ONE_THREAD, ALL_THREADS = "this-machine-1", "this-machine"
ROUNDS, QUICK_ROUNDS = 8, 2


@click.command("crosscheck", cls=Once)
@click.option("--kernels", is_flag=True, help="Only the numba kernels, by op and size.")
@click.option(
    "--training",
    is_flag=True,
    help="Only the training steps: networks in numba, and in PyTorch if it is installed.",
)
@click.option("--plot", metavar="FILE", help="Plot predicted against measured: .png, .svg or .pdf.")
@click.option(
    "--quick",
    is_flag=True,
    help="Fewer rounds, smaller kernels, only networks with steps below 0.2 s.",
)
@click.option(
    "--gpu", is_flag=True, help="Training steps on the CUDA device, if there is one, by wall time."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(
    kernels: bool, training: bool, plot: str | None, quick: bool, gpu: bool, as_json: bool
) -> None:
    """Compare forecasts of kernels and training steps with measurements on this machine.

    Kernels and training steps run on one thread and on all. One thread is timed by CPU time, the
    median of interleaved rounds; several by the best wall time. Noise is the difference
    between two measurements of the same point. Forecasts use the devices that roofcast calibrate
    writes. The results are saved as dated tables for roofcast validate: steps for --runs, kernels
    for --ops.
    """
    from roofcast.reports.files import PICTURES, check_target

    if plot:
        check_target(plot, PICTURES)
    if gpu and kernels:
        raise click.UsageError("--gpu measures training steps alone: leave --kernels out")
    gpu = gpu and _has_gpu()
    if gpu:
        kernels, training = False, True
    device = _calibrated(gpu)
    both = kernels == training
    steps = _training(device, quick, gpu) if training or both else []
    parts, kernels_saved = _kernels(device, quick) if kernels or both else ([], "")
    ran = [row for _, rows, _ in parts for row in rows]
    trained = [row for _, rows, _ in steps for row in rows]
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
    for name, steps_of, _ in steps:
        print_crosscheck(name, [], steps_of, [])
    for words in filter(None, (kernels_saved, *(saved for _, _, saved in steps))):
        tell(words)


def _has_gpu() -> bool:
    """Whether there is a CUDA device; if not, say so on stderr."""
    from roofcast.simulator.machine.gpu import available

    missing = available()
    if missing:
        click.echo(f"{missing}: the CPU is measured instead", err=True)
    return not missing


def _calibrated(gpu: bool) -> Device:
    """The device of this machine that forecasts are made for."""
    from roofcast import hwdb
    from roofcast.hwdb import names
    from roofcast.hwdb.errors import UnknownName

    try:
        return hwdb.device(names.THIS_GPU if gpu else ONE_THREAD)
    except UnknownName:
        raise UnknownName(
            f"this machine is not calibrated yet; run: roofcast calibrate{' --gpu' if gpu else ''}"
        ) from None


def _devices(one: Device) -> dict[int, tuple[Device, Path]]:
    """The calibrated devices of this machine and their files, by number of threads."""
    from roofcast import hwdb
    from roofcast.hwdb import names

    found = {1: (one, names.this_machine(ONE_THREAD))}
    every = names.this_machine(ALL_THREADS)
    if every.exists():
        whole = hwdb.device(ALL_THREADS)
        found.setdefault(_threads(whole), (whole, every))
    return found


def _kernels(device: Device, quick: bool) -> tuple[list[tuple[str, list[Ran], list[Ran]]], str]:
    """Measured and forecast kernels on one thread and on all; where they were saved.

    Each part: the device's name, rows with the fitted constants, rows by the ceilings alone.
    """
    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.progress import bar
    from roofcast.reports.tables import kernels as kernel_table
    from roofcast.simulator.machine.crosscheck import kernels as kernel_check

    devices = _devices(device)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    sessions = {}
    for count in devices:
        with bar("kernels" if count == 1 else f"kernels, {count} threads") as progress:
            sessions[count] = kernel_check.measured(quick, rounds, progress, count)
    parts = []
    for count, (each, _) in devices.items():
        fitted, bare = (
            kernel_check.forecasts(sessions[count], each, constants, count)
            for constants in (True, False)
        )
        parts.append((each.name, fitted, bare))
    files = {count: file for count, (_, file) in devices.items()}
    folder = files[1].parent.parent / "measured"
    try:
        table = kernel_table.write(sessions, files, device.name, folder)
        return parts, f"wrote {table}: roofcast validate --ops {table}"
    except (BadInput, OSError) as error:
        return parts, f"not saved in {folder}: {error}"


def _threads(device: Device) -> int:
    """Number of threads that a device of all threads was measured with: the end of its name."""
    import re

    found = re.search(r"(\d+) threads$", device.name)
    return int(found[1]) if found else 1


def _training(device: Device, quick: bool, gpu: bool) -> list[tuple[str, list[Trained], str]]:
    """Measured and forecast training steps, on a CPU on one thread and on all.

    Each part: the device's name, its rows, where they were saved.
    """
    from importlib.util import find_spec

    from roofcast.hwdb import names
    from roofcast.reports.progress import bar
    from roofcast.simulator.machine.crosscheck import measure, net_list

    torch = find_spec("torch") is not None
    if not torch:
        click.echo(
            "PyTorch is not installed: only networks in numba are trained (pip install"
            " roofcast[torch])",
            err=True,
        )
    nets = [net for net in net_list.chosen(quick, torch) if not gpu or net.by == "torch"]
    devices = {1: (device, names.this_machine(names.THIS_GPU))} if gpu else _devices(device)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    parts = []
    for count, (each, file) in devices.items():
        what = "training steps" if count == 1 else f"training steps, {count} threads"
        with bar(what) as progress:
            session = measure.steps(nets, rounds, progress, gpu, count)
        parts.append((each.name, *_compared(session, each.name, file, count)))
    return parts


def _compared(session: Session, cpu: str, file: Path, threads: int) -> tuple[list[Trained], str]:
    """Measured steps beside their forecasts on the device of a file; where they were saved."""
    import tempfile
    from pathlib import Path

    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.tables import crosscheck as crosscheck_table
    from roofcast.simulator.machine.crosscheck import steps as crosscheck

    folder = file.parent.parent / "measured"
    try:
        device = crosscheck_table.write_device(session, file, folder)
        rows = crosscheck.training(session, str(device), threads)
        table = crosscheck_table.write(rows, session, device, cpu, threads)
        return rows, f"wrote {table}: roofcast validate --runs {table}"
    except (BadInput, OSError) as error:
        with tempfile.TemporaryDirectory() as aside:
            device = crosscheck_table.write_device(session, file, Path(aside))
            rows = crosscheck.training(session, str(device), threads)
        return rows, f"not saved in {folder}: {error}"
