"""roofcast systems"""

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
    ("system", "left"), ("devices", "right"), ("device", "left"), ("year", "right"),
    ("network", "fold"),
]  # fmt: skip


@click.group("systems", cls=OnceGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the nodes and pods known by name, or show one: `roofcast systems show NAME`."""
    if ctx.invoked_subcommand:
        return
    if as_json:
        print_json({"systems": hwdb.systems()})
        return
    from roofcast.reports.console import fitted_table, page, say

    rows = []
    for name in hwdb.systems():
        one = hwdb.system(name)
        network = ", ".join(dict.fromkeys(tier.link for tier in one.levels))
        rows.append([one.id, f"{one.count:,.0f}", one.device, str(one.year or "—"), network])
    with page() as out:
        out.print(fitted_table(out.width, _COLUMNS, rows, ("year", "network")))
        say(
            out,
            f"{number_of(len(rows), 'system')}."
            " Figures and sources of one: roofcast systems show NAME",
            0,
        )


@command.command("show", cls=Once)
@click.argument("name", metavar="SYSTEM", shell_complete=completing("system"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def show(name: str, as_json: bool) -> None:
    """Print every known number of SYSTEM with its source and status."""
    from roofcast.reports.pages.hardware import print_record, to_json

    record = hwdb.system(name)
    print_json(to_json(record)) if as_json else print_record(record)
