"""roofcast sweep"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from roofcast.hwdb.errors import BadInput
from roofcast.reports.console import tell
from roofcast.reports.files import PICTURES, check_target, replacing
from roofcast.reports.option_types import Whole
from roofcast.reports.options import Sectioned, print_json, scenario_options, scenarios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from roofcast.simulator.choose.axes import Axis
    from roofcast.simulator.choose.sweep import Chunk, Runner
    from roofcast.simulator.forecast.scenario import Scenario

TABLES = (".csv", ".parquet")
MOST_WORKERS = 1024


@click.command("sweep", cls=Sectioned)
@click.option(
    "--vary",
    multiple=True,
    required=True,
    metavar="NAME=VALUES",
    help=(
        "An option of predict or a number of the device, and its values: batch=8..64 (doubled),"
        " seq=1024..4096:1024 (in steps), memory.bandwidth=x1,x2,x4, on=h100-sxm5,b200-sxm. Given"
        " several times: every combination."
    ),
)
@click.option("--zip", "zipped", is_flag=True, help="Pair the values of several --vary one to one.")
@scenario_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=(
        "Also write all rows to a .csv or .parquet file (the latter needs pyarrow). An interrupted"
        " sweep continues where it stopped when it is started again."
    ),
)
@click.option(
    "--plot", metavar="FILE", help="Also draw one or two varied numbers: .png, .svg or .pdf."
)
@click.option("--workers", type=Whole(), metavar="N", help="Processes. Default: 1.")
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Scheduler of a Dask cluster to run on, for example tcp://10.0.0.1:8786.",
)
def command(
    vary: tuple[str, ...],
    zipped: bool,
    as_json: bool,
    output: str | None,
    plot: str | None,
    workers: int | None,
    dask: str | None,
    **asked: Any,
) -> None:
    """Forecast MODEL over a grid of options and hardware numbers.

    One row per point: its values, step time with interval, memory, cost, and what bounds it. MODEL
    is as for roofcast predict; loading a .py runs it.
    """
    from roofcast.simulator.choose.axes import axis, grid

    axes = [axis(text) for text in vary]
    points = grid(axes, zipped)
    _check(output, plot, axes, workers, dask)
    device = next((str(a.values[0]) for a in axes if a.name == "on"), None)
    scenario = scenarios(**{**asked, "on": asked["on"] or device})[0]
    table = swept(scenario, axes, points, output, _runner(workers, dask))
    if output is not None:
        _write(table, output)
    if plot is not None:
        from roofcast.reports.pictures.style import write
        from roofcast.reports.pictures.sweep import draw

        write(plot, lambda: draw(table, axes, scenario))
    if as_json:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        print_json({"model": scenario.model, "device": scenario.device, "points": rows})
        return
    if table["refused"].notna().all():
        raise BadInput(f"no point of the sweep can be; the first: {table['refused'].iloc[0]}")
    from roofcast.reports.pages.sweep import print_sweep

    print_sweep(table, axes, scenario)
    for path in (output, plot):
        if path is not None:
            tell(f"wrote {path}")


def _check(
    output: str | None,
    plot: str | None,
    axes: Sequence[Axis],
    workers: int | None,
    dask: str | None,
) -> None:
    """Refuse what cannot be, before the work is done."""
    if output is not None and check_target(output, TABLES).suffix.lower() == ".parquet":
        from importlib.util import find_spec

        if find_spec("pyarrow") is None:
            raise BadInput(
                f"{output}: needs pyarrow; install it (pip install pyarrow), or use .csv"
            )
    if plot is not None:
        check_target(plot, PICTURES)
        if len(axes) > 2:
            raise click.UsageError(f"--plot draws one or two varied numbers; {len(axes)} are given")
    if workers is not None and dask is not None:
        raise click.UsageError("--workers and --dask exclude each other; give one")
    if workers is not None and workers > MOST_WORKERS:
        raise click.UsageError(f"--workers {workers:,}: at most {MOST_WORKERS:,} are started")


def _runner(workers: int | None, dask: str | None) -> Runner:
    from roofcast.simulator.choose.sweep import here
    from roofcast.simulator.choose.workers import cluster, processes

    if dask is not None:
        return cluster(dask)
    return processes(workers) if workers and workers > 1 else here


def swept(
    scenario: Scenario,
    axes: Sequence[Axis],
    points: Sequence[tuple[Any, ...]],
    output: str | None,
    run: Runner,
) -> DataFrame:
    """A row per point, in the order of the points; finished ones are kept beside `output`."""
    from importlib.metadata import version

    import pandas as pd

    from roofcast.reports.progress import bar
    from roofcast.simulator.choose import progress_file
    from roofcast.simulator.choose.sweep import COLUMNS, chunks

    todo: list[Chunk] = chunks(scenario, axes, points)
    if output is not None:
        path = progress_file.path_of(output)
        run = progress_file.keeping(run, path, progress_file.signature(todo, version("roofcast")))
    found = {}
    with bar("forecasting points") as step:
        for number, rows in run(todo):
            found[number] = rows
            step(sum(map(len, found.values())), len(points))
    rows = [row for number in sorted(found) for row in found[number]]
    return pd.DataFrame(rows, columns=[*(axis.name for axis in axes), *COLUMNS])


def _write(table: DataFrame, output: str) -> None:
    """Write the table, then drop the file of finished points."""
    from roofcast.simulator.choose import progress_file

    with replacing(output) as temporary:
        if str(output).lower().endswith(".parquet"):
            table.astype({name: str for name in table if table[name].dtype == object}).to_parquet(
                temporary, index=False
            )
        else:
            table.to_csv(temporary, index=False)
    progress_file.path_of(output).unlink(missing_ok=True)
