"""roofcast models"""

from __future__ import annotations

import click

from roofcast.reports.completion import completing
from roofcast.reports.console import tell
from roofcast.reports.format import words
from roofcast.reports.option_types import Once, OnceGroup
from roofcast.reports.options import print_json


class Listing(OnceGroup):
    """A group whose first argument may also be a word to look for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand of that name; else the list of what contains the words."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return _FIND, self.commands[_FIND], args


_FIND = "find"
_long = click.option("--long", is_flag=True, help="A line per model: parameters and source.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.group(
    "models", cls=Listing, invoke_without_command=True, subcommand_metavar="[WORD]... | show MODEL"
)
@_long
@_json
@click.pass_context
def command(ctx: click.Context, long: bool, as_json: bool) -> None:
    """List the models known by name, those that contain every WORD, or show one."""
    if ctx.invoked_subcommand is None:
        _list((), long, as_json)


@command.command(_FIND, hidden=True)
@click.argument("found", metavar="WORD", nargs=-1, required=True)
@_long
@_json
@click.pass_context
def find(ctx: click.Context, found: tuple[str, ...], long: bool, as_json: bool) -> None:
    """The models whose name or family contains every WORD."""
    given = ctx.parent.params if ctx.parent else {}
    _list(found, long or bool(given.get("long")), as_json or bool(given.get("as_json")))


def _list(found: tuple[str, ...], long: bool, as_json: bool) -> None:
    """Print the models that contain every word; raises UnknownName where none does."""
    from roofcast.simulator import models

    rows = [models.describe(name) for name in models.names()]
    if found:
        from roofcast.reports.pages.models import searched

        rows = [row for row in rows if all(word.lower() in searched(row) for word in found)]
    if found and not rows:
        from roofcast.hwdb.errors import unknown
        from roofcast.simulator.models.aliases import meant

        listing = "roofcast models lists the names"
        raise unknown("model", " ".join(found), models.names(), listing, meant(found[0]))
    if as_json:
        print_json({"models": [row._asdict() for row in rows]})
        return
    from roofcast.reports.pages.models import print_models, print_table

    if long or found:
        print_table(rows, long)
    else:
        print_models(rows)


@command.command("show", cls=Once)
@click.argument("name", metavar="MODEL", shell_complete=completing("model"))
@_json
def show(name: str, as_json: bool) -> None:
    """Family, parameters and source of MODEL."""
    from roofcast.simulator import models

    row = models.describe(name)._asdict()
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        tell(f"{key:<12} {words(value) if key == 'parameters' and value else value}")
