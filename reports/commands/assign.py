"""roofcast assign"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from roofcast.reports.console import tell
from roofcast.reports.files import PICTURES, check_target
from roofcast.reports.option_types import Once
from roofcast.reports.options import print_json

GOALS = ("makespan", "cost")


@click.command("assign", cls=Once)
@click.argument("jobs", metavar="JOBS.toml")
@click.option(
    "--pool",
    required=True,
    metavar="POOL.toml",
    help="The devices there are: a table [devices] of name = number, or of name = {count = 16,"
    " per-node = 8, usd-per-hour = 2.1}.",
)
@click.option(
    "--for",
    "goal",
    type=click.Choice(GOALS),
    default="makespan",
    help="What is least, once the most priority is finished by its deadline. Default: makespan.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option("-o", "path", metavar="FILE", help="Also write the plan to a .csv or .parquet file.")
@click.option("--plot", metavar="FILE", help="Also draw the plan: .png, .svg or .pdf.")
def command(
    jobs: str, pool: str, goal: str, as_json: bool, path: str | None, plot: str | None
) -> None:
    """Assign trainings to a pool of unlike devices: which on which devices when.

    JOBS.toml has a table [[jobs]] for each: a model, a batch, tokens or samples and epochs, and
    where there are any a name, a deadline ("10d") and a priority. Every job is forecast on every
    kind of device; the plan is found by an integer program, beside a greedy one.
    """
    from roofcast.reports.tables.written import check_table, write_table
    from roofcast.simulator.choose.assigned import assign_files

    if path is not None:
        check_table(path)
    if plot is not None:
        check_target(plot, PICTURES)
    found = assign_files(jobs, pool, goal)
    if path is not None:
        write_table([_row(run) for run in found.plan], path)
    if plot is not None:
        from roofcast.reports.pictures.gantt import draw
        from roofcast.reports.pictures.style import write

        write(plot, lambda: draw(found))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    from roofcast.reports.pages.assign import print_assigned

    print_assigned(found)
    for each in (path, plot):
        if each is not None:
            tell(f"wrote {each}")


def _row(run: Any) -> dict[str, Any]:
    """A job of the plan as a row of a table."""
    fields: dict[str, Any] = msgspec.structs.asdict(run)
    layout = fields.pop("options")
    fields |= {f"layout_{k}": "+".join(v) if isinstance(v, tuple) else v for k, v in layout.items()}
    return fields
