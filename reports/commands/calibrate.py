"""roofcast calibrate"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

from roofcast.hwdb import names
from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import replacing


@click.command("calibrate")
@click.option("--quick", is_flag=True, help="A quarter of the time, fewer ceilings, more noise.")
@click.option(
    "--gpu",
    is_flag=True,
    help="The CUDA device of this machine, by PyTorch, instead of the CPU; where there is one.",
)
def command(quick: bool, gpu: bool) -> None:
    """Measure the ceilings of this CPU, in at most a minute, and keep them as a device.

    It is then named like any other: --on this-machine has all its threads, --on this-machine-1 is
    one of them. Leave the machine idle meanwhile; where two halves of the measurement differ, it
    says by how much. With --gpu it is the CUDA device, --on this-machine-gpu.
    """
    if gpu and _gpu(quick):
        return
    from roofcast.simulator.machine.calibrate import QUICK_SECONDS, SECONDS, calibrate
    from roofcast.simulator.machine.host import find

    host = find()
    with _bar(QUICK_SECONDS if quick else SECONDS) as step:
        measured = calibrate(quick, step, host=host)
    # before a word is said: stdout may be closed
    kept = [_keep(name, text) for name, text in measured.files.items()]
    _print(measured)
    for words in kept:
        click.echo(words)


def _gpu(quick: bool) -> bool:
    """Measure and keep the CUDA device; where there is none, say so in one line, and that the CPU
    is measured instead.
    """
    from roofcast.simulator.machine import gpu

    missing = gpu.available()
    if missing:
        click.echo(f"{missing}: the CPU is measured instead", err=True)
        return False
    import time

    import torch

    from roofcast.simulator.machine.calibrate import QUICK_SECONDS, SECONDS
    from roofcast.simulator.machine.sampling import Clock, sample

    seconds = QUICK_SECONDS if quick else SECONDS
    with _bar(seconds) as step:
        jobs = gpu.jobs(torch)
        rates = sample(jobs, seconds, Clock(cpu=time.perf_counter), step)
    found = {job.key: rate for job, rate in zip(jobs, rates, strict=True)}
    stamp = f"roofcast calibrate --gpu, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    click.echo(_keep(names.THIS_GPU, gpu.text(gpu.described(torch), found, stamp)))
    return True


def _keep(name: str, text: str) -> str:
    """Write one device file; what to say of it."""
    path = names.this_machine(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (BadInput, OSError):
        return f"{path}: cannot be written; it would have held:\n\n{text}"
    return f"wrote {path}: --on {name}"


@contextlib.contextmanager
def _bar(seconds: float) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr with the time left at most, where a person looks."""
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


def _print(measured) -> None:
    """The ceilings, one a line."""
    from roofcast.reports.console import page, plain_table, say, show
    from roofcast.reports.format import percent, si

    host = measured.host
    columns = {"one thread": measured.alone, f"{host.threads} threads": measured.together}
    if host.threads == 1:
        columns.popitem()
    table = plain_table(
        ("ceiling", "left"), *((name, "right") for name in columns), ("halves differ", "right")
    )
    for key in dict.fromkeys((*measured.alone, *measured.together)):
        unit = (
            "FLOP/s" if key.startswith(("fma", "gemm", "blas")) else "B/s" if " " in key else "/s"
        )
        cells = [si(rates[key].value, unit) if key in rates else "" for rates in columns.values()]
        differ = max(rates[key].differ for rates in columns.values() if key in rates)
        table.add_row(key, *cells, percent(differ))
    with page() as out:
        out.print(f"{host.name}: cores {host.cores}, threads {host.threads}", style="bold")
        show(out, table)
        rounds = max(rate.rounds for rate in measured.together.values())
        said = (
            f"Two halves of the {rounds} rounds differ by {percent(measured.differ)}, median over"
            " the ceilings."
        )
        if host.threads > 1:
            said += f" The threads had {percent(measured.share)} of the processors' time."
        if measured.noisy:
            said += (
                " That is too noisy to trust: the files say so. Calibrate again when the machine is"
                " idle."
            )
        say(out, said)
