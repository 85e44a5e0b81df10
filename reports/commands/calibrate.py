"""roofcast calibrate"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from roofcast.hwdb import names
from roofcast.hwdb.errors import BadInput
from roofcast.reports.console import tell
from roofcast.reports.files import replacing
from roofcast.reports.option_types import Once

if TYPE_CHECKING:
    from roofcast.simulator.machine.calibrate import Calibration


@click.command("calibrate", cls=Once)
@click.option("--quick", is_flag=True, help="A quarter of the time: fewer ceilings, more noise.")
@click.option(
    "--gpu",
    is_flag=True,
    help="Measure the CUDA device with PyTorch, if there is one, not the CPU.",
)
def command(quick: bool, gpu: bool) -> None:
    """Measure the peak rates of this CPU, in at most a minute, and save them as a device.

    It is then a device like any other: --on this-machine is all of its threads, --on this-machine-1
    one thread. Leave the machine idle meanwhile; the spread between two halves of the measurement
    is printed. With --gpu, the CUDA device becomes --on this-machine-gpu.
    """
    if gpu and _gpu(quick):
        return
    from roofcast.simulator.machine.calibrate import QUICK_SECONDS, SECONDS, calibrate
    from roofcast.simulator.machine.find import find

    host = find()
    with _bar(QUICK_SECONDS if quick else SECONDS) as step:
        measured = calibrate(quick, step, host=host)
    # written before anything is printed: stdout may be closed
    kept = [_save(name, text) for name, text in measured.files.items()]
    _print(measured)
    for words in kept:
        tell(words)


def _gpu(quick: bool) -> bool:
    """Measure the CUDA device and save it; without one, say so on stderr and return False."""
    from roofcast.simulator.machine import gpu

    missing = gpu.available()
    if missing:
        click.echo(f"{missing}: the CPU is measured instead", err=True)
        return False
    import torch

    from roofcast.simulator.machine.calibrate import QUICK_SECONDS, SECONDS
    from roofcast.simulator.machine.sampling import Clock, sample

    seconds = QUICK_SECONDS if quick else SECONDS
    with _bar(seconds) as step:
        jobs = gpu.jobs(torch)
        rates = sample(jobs, seconds, Clock(cpu=time.perf_counter), step)
    found = {job.key: rate for job, rate in zip(jobs, rates, strict=True)}
    stamp = f"roofcast calibrate --gpu, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    click.echo(_save(names.THIS_GPU, gpu.text(gpu.described(torch), found, stamp)))
    return True


def _save(name: str, text: str) -> str:
    """Write a device file; the line to print about it."""
    path = names.this_machine(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (BadInput, OSError):
        return f"{path}: cannot be written; its content would be:\n\n{text}"
    return f"wrote {path}: --on {name}"


@contextlib.contextmanager
def _bar(seconds: float) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr, if that is a terminal; yields a function to name the next task."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    out, begin = Console(file=sys.stderr), time.monotonic()
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("at most {task.fields[left]:.0f} s left"),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        task = progress.add_task("prepare", total=seconds, left=seconds)

        def step(what: str) -> None:
            past = time.monotonic() - begin
            progress.update(task, description=what, completed=past, left=max(0.0, seconds - past))

        yield step


def _unit(key: str) -> str:
    """The unit of a ceiling's rate."""
    if key.startswith(("fma", "gemm", "blas")):
        return "FLOP/s"
    return "B/s" if " " in key else "/s"


def _print(measured: Calibration) -> None:
    """Print the ceilings, one per line, and how noisy they are."""
    from roofcast.reports.console import Justify, page, plain_table, say, show
    from roofcast.reports.format import percent, si

    host = measured.host
    rates = {"one thread": measured.alone, f"{host.threads} threads": measured.together}
    if host.threads == 1:
        rates.popitem()
    columns: list[tuple[str, Justify]] = [("ceiling", "left"), *((name, "right") for name in rates)]
    table = plain_table(*columns, ("spread", "right"))
    for key in dict.fromkeys((*measured.alone, *measured.together)):
        cells = [si(by[key].value, _unit(key)) if key in by else "" for by in rates.values()]
        spread = max(by[key].differ for by in rates.values() if key in by)
        table.add_row(key, *cells, percent(spread))
    rounds = max(rate.rounds for rate in measured.together.values())
    text = f"spread: difference between two halves of the {rounds} rounds, median"
    text += f" {percent(measured.differ)}."
    if host.threads > 1:
        text += f" The threads got {percent(measured.share)} of the processors' time."
    if measured.noisy:
        text += " This is too noisy to trust, and the files say so: calibrate again when the"
        text += " machine is idle."
    with page() as out:
        out.print(f"{host.name}: {host.cores} cores, {host.threads} threads", style="bold")
        show(out, table)
        say(out, text)
