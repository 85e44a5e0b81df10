"""roofcast links"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from roofcast import hwdb
from roofcast.hwdb.errors import number_of
from roofcast.reports.completion import completing
from roofcast.reports.option_types import Once, OnceGroup
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    from roofcast.reports.console import Justify

_COLUMNS: list[tuple[str, Justify]] = [
    ("link", "left"), ("role", "left"), ("bandwidth", "right"), ("name", "fold")
]  # fmt: skip


@click.group("links", cls=OnceGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the links known by name, or show one: `roofcast links show NAME`."""
    if ctx.invoked_subcommand:
        return
    if as_json:
        print_json({"links": hwdb.links()})
        return
    from roofcast.reports.console import fitted_table, page, say

    rows = []
    for name in hwdb.links():
        one = hwdb.link(name)
        rows.append([one.id, one.role, hwdb.pretty(one.bandwidth, "B/s"), one.name])
    with page() as out:
        out.print(fitted_table(out.width, _COLUMNS, rows, ("role", "name")))
        say(
            out,
            f"{number_of(len(rows), 'link')}. Figures and sources of one: roofcast links show NAME",
            0,
        )


@command.command("show", cls=Once)
@click.argument("name", metavar="LINK", shell_complete=completing("link"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def show(name: str, as_json: bool) -> None:
    """Print every known number of LINK with its source and status."""
    from roofcast.reports.pages.hardware import print_record, to_json

    record = hwdb.link(name)
    print_json(to_json(record)) if as_json else print_record(record)
