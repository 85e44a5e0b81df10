"""roofcast stacks"""

import click

from roofcast.reports.options import print_json


@click.group("stacks", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx, as_json: bool) -> None:
    """List the software stacks; or `roofcast stacks show NAME`. Your own: a .toml like these, given
    to --stack.
    """
    if ctx.invoked_subcommand:
        return
    from roofcast.simulator.software import stack as stacks

    rows = [stacks.stack(name) for name in stacks.names()]
    if as_json:
        print_json({"stacks": rows})
        return
    from roofcast.reports.console import page, plain_table

    table = plain_table(
        ("stack", "left"),
        ("fused", "right"),
        ("host", "right"),
        ("layout", "left"),
        ("about", "fold"),
    )
    for s in rows:
        host = "graphs" if s.graphs else f"{1e6 * s.dispatch_s:g} us"
        table.add_row(
            s.name,
            f"{100 * s.fusion:g} %",
            host,
            {"channels_last": "NHWC", "contiguous": "NCHW"}[s.memory_format],
            s.about,
        )
    with page() as out:
        out.print(table)
        out.print(
            f"{len(rows)} stacks. fused: share of the bytes between pointwise kernels that"
            " vanishes; host: time to launch a kernel."
        )


@command.command("show")
@click.argument("name", metavar="STACK")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(name: str, as_json: bool) -> None:
    """Every setting of STACK."""
    from roofcast.simulator.software import stack as stacks

    found = stacks.stack(name)
    if as_json:
        print_json(found)
        return
    from roofcast.reports.console import page, say

    with page() as out:
        out.print(f"{found.name}: {found.about}", style="bold")
        for key, meaning in stacks.MEANING.items():
            value = getattr(found, key)
            text = (
                ", ".join(f"{k} {v}" for k, v in value.items())
                if isinstance(value, dict)
                else ", ".join(value)
                if isinstance(value, tuple)
                else str(value)
            )
            say(out, f"{text or 'none'}  ({meaning})", first=f"{key}: ")
        say(out, found.source, first="source: ")
