"""roofcast roofline --mode decode, --mode prefill"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from roofcast.reports.completion import completing
from roofcast.reports.console import tell
from roofcast.reports.option_serving import POWER_CAP, edits_of
from roofcast.reports.option_types import Once, Whole
from roofcast.reports.options import options, print_json

PHASES = ("decode", "prefill")
DEGREES = {
    "tp": "Tensor-parallel size. Default: 1.",
    "ep": "Expert-parallel size, of the tp * dp ranks. Default: 1.",
    "dp": "With --ep: ranks with sequences of their own (data-parallel attention). Default: 1.",
}


def _degrees(function: Any) -> Any:
    for name, text in reversed(DEGREES.items()):
        function = click.option(f"--{name}", type=Whole(), metavar="N", help=text)(function)
    return function


@click.command("roofline", cls=Once)
@click.argument("model", shell_complete=completing("model"))
@click.option(
    "--mode", "phase", type=click.Choice(PHASES), required=True,
    help="A step that makes one token for each sequence, or the pass of prompts.",
)  # fmt: skip
@click.option(
    "--on", required=True, metavar="DEVICE", shell_complete=completing("device"),
    help="Device: a name (see roofcast devices) or a .toml file.",
)  # fmt: skip
@click.option(
    "--batch", type=Whole(), default=1, metavar="N", help="Sequences, or prompts. Default: 1."
)
@click.option(
    "--input-len", type=Whole(), default=1024, metavar="TOKENS",
    help="Tokens of each in the cache, or of a prompt. Default: 1024.",
)  # fmt: skip
@_degrees
@click.option("--weights", metavar="FORMAT", help="Format of the weights. Default: as released.")
@click.option("--kv", metavar="FORMAT", help="Format of the cache. Default: the stack's.")
@click.option(
    "--stack", metavar="NAME", help="Serving software: vllm, sglang, trt-llm, llama.cpp ..."
)
@options("set")
@POWER_CAP
@options("system")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option("-o", "--output", metavar="FILE", help="Also draw it: a .png, .svg or .pdf file.")
def command(phase: str, batch: int, as_json: bool, output: str | None, **given: Any) -> None:
    """The roofline of one decode step, or of one prefill, of MODEL as a server.

    Each kernel with its FLOP per byte and what it reaches; weights, cache and exchanges; with -o a
    picture. Other modes: a training or inference step (roofcast roofline --help).
    """
    from roofcast.reports.files import check_target
    from roofcast.simulator.serving.points import step

    if output is not None:
        check_target(output, (".png", ".svg", ".pdf"))
    found = step(_asked(given, batch), phase, batch)
    if output is not None:
        from roofcast.reports.pictures.serving_roofline import draw
        from roofcast.reports.pictures.style import write

        write(output, lambda: draw(found, edits_of(given)))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    from roofcast.reports.pages.serving_roofline import print_step

    print_step(found)
    if output is not None:
        tell(f"wrote {output}")


def _asked(given: dict[str, Any], batch: int) -> Any:
    """What is asked, of the values of the options."""
    from roofcast.simulator.serving.asked import Serving
    from roofcast.simulator.serving.load import Load

    names = (*DEGREES, "weights", "kv", "stack", "system")
    return Serving(
        model=given["model"],
        device=given["on"],
        load=Load(kind="batch", amount=float(batch), input_len=given["input_len"]),
        set=edits_of(given),
        **{name: given[name] for name in names},
    )
