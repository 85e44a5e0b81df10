"""roofcast stacks"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from roofcast.hwdb.errors import number_of
from roofcast.reports.completion import completing
from roofcast.reports.option_types import Once
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    from roofcast.reports.console import Justify

_COLUMNS: list[tuple[str, Justify]] = [
    ("stack", "left"), ("fused", "right"), ("launch", "right"), ("images", "left"),
    ("about", "fold"),
]  # fmt: skip
_IMAGES = {"channels_last": "NHWC", "contiguous": "NCHW"}


@click.group("stacks", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the software stacks, or show one: `roofcast stacks show NAME`, of training or of a
    server. --stack also takes a .toml file of your own.
    """
    if ctx.invoked_subcommand:
        return
    from roofcast.simulator.serving import profiles
    from roofcast.simulator.software import stack as stacks

    rows = [stacks.stack(name) for name in stacks.names()]
    if as_json:
        print_json({"stacks": rows, "servers": [profiles.profile(n) for n in profiles.names()]})
        return
    from roofcast.reports.console import fitted_table, page, say

    cells = []
    for s in rows:
        launch = "graphs" if s.graphs else f"{1e6 * s.dispatch_s:.3g} µs"
        images = _IMAGES[s.memory_format]
        cells.append([s.name, f"{100 * s.fusion:g} %", launch, images, s.about])
    note = (
        f"{number_of(len(rows), 'stack')}. fused: share of the traffic between pointwise kernels"
        " that fusion saves; launch: host time per kernel launch, or none under CUDA graphs"
        " and in compiled programs; images: memory format of images."
    )
    with page() as out:
        out.print(fitted_table(out.width, _COLUMNS, cells, ("images", "launch", "fused")))
        say(out, note, indent=0)
        servers = ", ".join(profiles.names())
        say(out, f"of servers (roofcast serving --stack): {servers}", indent=0)


@command.command("show", cls=Once)
@click.argument("name", metavar="STACK", shell_complete=completing("stack"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(name: str, as_json: bool) -> None:
    """Every setting of STACK with its meaning."""
    from roofcast.simulator.serving import profiles
    from roofcast.simulator.software import stack as stacks

    of = profiles if name in profiles.names() else stacks
    found: Any = profiles.profile(name) if of is profiles else stacks.stack(name)
    if as_json:
        print_json(found)
        return
    from roofcast.reports.console import page, plain_table, say
    from roofcast.reports.console import show as show_table

    table = plain_table(("setting", "left"), ("value", "fold"), ("meaning", "fold"))
    for key, meaning in of.MEANING.items():
        table.add_row(key, _text(getattr(found, key)), meaning)
    with page() as out:
        say(out, f"{found.name}: {found.about}", indent=0, style="bold")
        show_table(out, table)
        say(out, found.source, first="source: ")


def _text(value: object) -> str:
    """The value of a setting, for reading."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
