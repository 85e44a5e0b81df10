"""roofcast count"""

import click

from roofcast.reports.option_types import Whole
from roofcast.reports.options import COUNTED, Sectioned, options, print_json
from roofcast.simulator.choices import PRECISIONS


@click.command("count", cls=Sectioned)
@click.argument("model", metavar="MODEL")
@options(*COUNTED)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="Number format of the step. Default: bf16."
)
@click.option(
    "--depth", type=Whole(), help="Levels of the tree. Default: as many as fit in 50 rows."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead, with every layer."
)
def command(model: str, depth: int | None, as_json: bool, **asked) -> None:
    """Count what one step of MODEL computes, keeps for backward and moves: no device, no time.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx file, or my_net.py:MyNet with --input. Loading a .py runs it; the others are only read.
    """
    import msgspec

    from roofcast.simulator.forecast.counts import count

    counts = count(model, **asked)
    if as_json:
        print_json(msgspec.to_builtins(counts))
        return
    from roofcast.reports.pages.count import print_counts

    print_counts(counts, depth)
