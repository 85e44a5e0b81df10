"""roofcast roofline"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from roofcast.reports.console import tell
from roofcast.reports.files import PICTURES, check_target, replacing
from roofcast.reports.option_serving import RooflineDoor
from roofcast.reports.options import scenario_options, scenarios

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command("roofline", cls=RooflineDoor)
@scenario_options(several=True, required=False, length=False)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="The picture to write: .png, .svg or .pdf.",
)
@click.option(
    "--threads",
    type=click.Choice(["1", "all"]),
    help="Without MODEL: kernels measured on one thread, or on all.",
)
@click.option(
    "--kernels",
    metavar="FILE",
    help="Without MODEL: table of measured kernels. Default: the newest of this machine.",
)
def command(output: str, threads: str | None, kernels: str | None, **asked: Any) -> None:
    """Draw the roofline of one step of MODEL.

    Each point is one op in one phase; its area is its share of the step. MODEL is as for roofcast
    predict; loading a .py runs it. Several --on are overlaid.

    One step of a server: --mode decode --batch 32 or --mode prefill, of which
    roofcast roofline --mode decode --help lists the options.

    Without MODEL, --on this-machine (one thread: this-machine-1) draws the measured roofs of this
    machine, and as points the kernels that roofcast crosscheck --kernels has measured.
    """
    check_target(output, PICTURES)
    from roofcast.reports.pictures.style import save

    if asked["model"] is None:
        _alone(asked)
        figure = _machine(asked["on"], threads, kernels)
    elif threads or kernels:
        raise click.UsageError(
            "--threads and --kernels are for measured kernels of this machine; leave MODEL out"
        )
    else:
        figure = _model(**asked)
    with replacing(output) as temporary:
        save(figure, temporary)
    tell(f"wrote {output}")


def _alone(asked: dict[str, Any]) -> None:
    """Refuse options of a step where no model is given. Raises UsageError."""
    given = [key for key, value in asked.items() if value not in (None, (), {}) and key != "on"]
    if given:
        name = {"set_": "set", "inputs": "input", "sequence": "seq"}.get(given[0], given[0])
        raise click.UsageError(f"--{name.replace('_', '-')} is about a step; give MODEL")


def _model(**asked: Any) -> Figure:
    """The roofline of a model on one device, or on several overlaid."""
    from roofcast import hwdb
    from roofcast.reports.pictures.roofline import draw
    from roofcast.reports.pictures.roofs import machine
    from roofcast.simulator.forecast.chain import forecast

    wanted = scenarios(**asked)
    devices = [machine(hwdb.device(each.device, each.set), each.mode == "train") for each in wanted]
    return draw([forecast(scenario) for scenario in wanted], devices)


def _machine(on: tuple[str, ...], threads: str | None, path: str | Path | None) -> Figure:
    """The roofline of this machine's kernels; prints how many lie above a roof."""
    from roofcast import hwdb
    from roofcast.hwdb import names
    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.pictures.machine import above_roof, draw
    from roofcast.reports.tables import kernels as kernel_table
    from roofcast.simulator.machine.crosscheck import kernels as kernel_check

    name = on[0] if len(on) == 1 else "this-machine" if not on else ""
    if name not in names.THIS_MACHINE:
        raise click.UsageError(
            "MODEL is missing; only --on this-machine and this-machine-1 have measured kernels to"
            " draw without one"
        )
    one, _ = (names.this_machine(each) for each in reversed(names.THIS_MACHINE))
    if path is None:
        hwdb.device(name)  # raises an error that names roofcast calibrate
        path = kernel_table.newest(one.parent.parent / "measured", one.stem)
        if path is None:
            raise BadInput(
                f"{name}: no kernels are measured yet; run: roofcast crosscheck --kernels"
            )
    kept = kernel_table.read(path)
    count = 1 if threads == "1" or (threads is None and name.endswith("-1")) else max(kept.sessions)
    device = hwdb.device(kept.devices[count])
    rows = kernel_check.forecasts(kept.sessions[count], device, threads=count)
    words = above_roof(kernel_check.above(rows, device), len(rows))
    tell(words)
    clock = "one thread, CPU time" if count == 1 else f"{count} threads, best wall time"
    return draw(device, rows, f"{clock}, {kept.date}", words)
