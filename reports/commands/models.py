"""roofcast models"""

from __future__ import annotations

import click

from roofcast.reports.format import words
from roofcast.reports.options import print_json


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the models known by name, or show one: `roofcast models show NAME`."""
    if ctx.invoked_subcommand:
        return
    from roofcast.simulator import models

    rows = [models.describe(name) for name in models.names()]
    if as_json:
        print_json({"models": [row._asdict() for row in rows]})
        return
    from roofcast.reports.console import page, plain_table, say

    table = plain_table(
        ("model", "left"), ("family", "left"), ("parameters", "right"), ("source", "fold")
    )
    for row in rows:
        table.add_row(row.name, row.family, words(row.parameters or 0), row.source)
    own = "a Hugging Face config.json, a .toml list of layers, a .onnx file or a PyTorch module"
    with page() as out:
        out.print(table)
        say(out, f"{len(rows)} models. MODEL can also be {own}.", indent=0)


@command.command("show")
@click.argument("name", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(name: str, as_json: bool) -> None:
    """Family, parameters and source of MODEL."""
    from roofcast.simulator import models

    row = models.describe(name)._asdict()
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        click.echo(f"{key:<12} {words(value) if key == 'parameters' and value else value}")
