"""Options that the search and the choice of a server share, and the command they lie behind."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.reports.option_types import Whole
from roofcast.reports.options import Sectioned
from roofcast.reports.serving_types import Part

FLAG = "--serving"
DEGREES = {
    "tp": "Tensor-parallel size. Default: every one that divides the devices and the heads.",
    "pp": "Pipeline-parallel size (stages). Default: every one.",
    "ep": "Expert-parallel size. Default: 1, and all ranks of a stage.",
    "dp": "With experts over all ranks: ranks with sequences of their own (data-parallel"
    " attention); else replicas. Default: every one.",
}
SHARED = ("weights", "kv", "stack", "speculate", "acceptance", *DEGREES)


class Door(Sectioned):
    """A command that another one takes the place of, by what is typed."""

    behind: ClassVar[str] = ""  # file of the other command, in reports/commands

    def meant(self, args: Sequence[str]) -> list[str] | None:
        """The words for the other command, where that one is meant; else None."""
        return [word for word in args if word != FLAG] if FLAG in args else None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """The context of the command that is meant."""
        words = self.meant(args)
        if words is None:
            return super().make_context(info_name, args, parent, **extra)
        other: click.Command = import_module(f"roofcast.reports.commands.{self.behind}").command
        name = f"{info_name} {FLAG}" if FLAG in args else info_name
        return other.make_context(name, words, parent, **extra)


class SearchDoor(Door):
    """roofcast search, and with --serving the layouts of a server."""

    behind = "serving_search"


class ChooseDoor(Door):
    """roofcast choose, and with --serving the hardware of a server."""

    behind = "serving_choose"


class RooflineDoor(Door):
    """roofcast roofline, and in two modes the step of a server."""

    behind = "serving_roofline"

    def meant(self, args: Sequence[str]) -> list[str] | None:
        """All words, where --mode decode or prefill is among them."""
        modes = {word.removeprefix("--mode=") for word in args}
        modes |= {after for word, after in zip(args, args[1:], strict=False) if word == "--mode"}
        typed = any(word == "--mode" or word.startswith("--mode=") for word in args)
        return list(args) if typed and modes & {"decode", "prefill"} else None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """The context of the command that is meant; an unknown mode is told of all four."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            if error.param is None or error.param.name != "mode":
                raise
            told = error.message.rstrip(".")
            raise BadInput(f"--mode: {told}, 'decode', 'prefill'") from None


def serving_flag(text: str) -> Any:
    """The option --serving, for the help of the command in front."""
    return click.option(FLAG, is_flag=True, expose_value=False, help=text)


INPUT_LEN = click.option(
    "--input-len", type=Whole(), default=1024, metavar="TOKENS",
    help="Tokens of a prompt. Default: 1024.",
)  # fmt: skip
OUTPUT_LEN = click.option(
    "--output-len", type=Whole(), default=512, metavar="TOKENS",
    help="Tokens of an answer. Default: 512.",
)  # fmt: skip
PREFIX_SHARE = click.option(
    "--prefix-share", type=Part(), default=0.0, metavar="SHARE",
    help="Share of a prompt that is in the cache already. Default: 0.",
)  # fmt: skip


def lengths(function: Any) -> Any:
    """The options on the length of requests."""
    return INPUT_LEN(OUTPUT_LEN(PREFIX_SHARE(function)))


def layouts(function: Any) -> Any:
    """The options on layouts, formats and software."""
    given = [
        click.option(f"--{name}", type=Whole(), metavar="N", help=text)
        for name, text in DEGREES.items()
    ]
    given += [
        click.option(
            "--weights", metavar="FORMAT[,..]",
            help="Format of the weights, several with commas (bf16,fp8), or any: bf16, fp8, int4."
            " Default: as released.",
        ),
        click.option(
            "--kv", metavar="FORMAT[,..]",
            help="Format of the cache, several with commas, or any: bf16, fp8. Default: the"
            " stack's.",
        ),
        click.option(
            "--stack", metavar="NAME", help="Serving software: vllm, sglang, trt-llm, llama.cpp ..."
        ),
        click.option(
            "--speculate", type=click.IntRange(0, 64), default=0, metavar="N",
            help="Speculative decoding or MTP: tokens drafted per step. Default: 0.",
        ),
        click.option(
            "--acceptance", type=Part(), metavar="SHARE",
            help="Probability that a drafted token is kept. Default: 0.7, assumed.",
        ),
    ]  # fmt: skip
    for option in reversed(given):
        function = option(function)
    return function


POWER_CAP = click.option(
    "--power-cap", metavar="WATTS",
    help="Power limit of each board, below its TDP: 500W, the same as --set power.cap=500W.",
)  # fmt: skip


def edits_of(given: dict[str, Any]) -> dict[str, Any]:
    """Changes of the device, by --set and --power-cap."""
    edits = dict(given.get("set_") or {})
    cap = given.get("power_cap")
    if cap is None:
        return edits
    if "power.cap" in edits:
        raise BadInput("--power-cap and --set power.cap are one setting; give one of them")
    if cap.strip() == "best":
        raise BadInput("--power-cap best: of a training step (roofcast predict); give watts: 500W")
    return {**edits, "power.cap": cap}


def serving_of(given: dict[str, Any], **more: Any) -> Any:
    """What is asked of a server, without a load: its lengths alone."""
    from roofcast.simulator.serving.asked import Serving
    from roofcast.simulator.serving.load import Load

    load = Load(
        kind="concurrency",
        input_len=given["input_len"],
        output_len=given["output_len"],
        cached=given["prefix_share"],
    )
    asked = Serving(model=given["model"], device="", load=load, set=edits_of(given))
    return msgspec.structs.replace(asked, **{name: given[name] for name in SHARED}, **more)
