"""roofcast models"""

import click

from roofcast.reports.format import words
from roofcast.reports.options import print_json


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx, as_json: bool) -> None:
    """List the models that are known by name; or `roofcast models show NAME`."""
    if ctx.invoked_subcommand:
        return
    from roofcast.simulator import models

    rows = [models.describe(name) for name in models.names()]
    if as_json:
        print_json({"models": [row._asdict() for row in rows]})
        return
    from roofcast.reports.console import page, plain_table

    table = plain_table(
        ("model", "left"), ("family", "left"), ("parameters", "right"), ("from", "fold")
    )
    for row in rows:
        table.add_row(row.name, row.family, words(row.parameters), row.source)
    with page() as out:
        out.print(table)
        out.print(
            f"{len(rows)} models. Your own: a Hugging Face config.json, or a .toml list of layers."
        )


@command.command("show")
@click.argument("name", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(name: str, as_json: bool) -> None:
    """What is known of MODEL."""
    from roofcast.simulator import models

    row = models.describe(name)._asdict()
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        click.echo(f"{key:<12} {words(value) if key == 'parameters' and value else value}")
