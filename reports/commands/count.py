"""roofcast count"""

from __future__ import annotations

from typing import Any

import click

from roofcast.reports.completion import completing
from roofcast.reports.option_types import Whole
from roofcast.reports.options import COUNTED, Sectioned, options, print_json
from roofcast.simulator.choices import PRECISIONS


@click.command("count", cls=Sectioned)
@click.argument("model", metavar="MODEL", shell_complete=completing("model"))
@options(*COUNTED)
@click.option("--precision", type=click.Choice(PRECISIONS), help="Number format. Default: bf16.")
@click.option(
    "--depth",
    type=Whole(),
    metavar="N",
    help="Levels of the tree of layers. Default: as many as fit in 50 rows.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead, with every layer."
)
def command(model: str, depth: int | None, as_json: bool, **asked: Any) -> None:
    """Count parameters, FLOPs, saved activations and memory traffic of one step of MODEL. Needs no
    device.

    MODEL is a name (see roofcast models), a Hugging Face config.json, a .toml list of layers, a
    .onnx or .keras file, or my_net.py:MyNet (PyTorch with --input, or Keras). Loading a .py runs
    it; the others are only read.
    """
    import msgspec

    from roofcast.simulator.forecast.counts import count

    counts = count(model, **{key: value for key, value in asked.items() if value is not None})
    if asked["attention"] and not any(layer.op == "attention" for layer in counts.layers):
        from roofcast.scenarios.unused import without_attention

        said = (*counts.assumptions, without_attention(asked["attention"], counts.model))
        counts = msgspec.structs.replace(counts, assumptions=said)
    if as_json:
        print_json(msgspec.to_builtins(counts))
        return
    from roofcast.reports.pages.count import print_counts

    print_counts(counts, depth)
