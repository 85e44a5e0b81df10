"""Options that several commands share, and the Scenario they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.reports.option_types import Count, Layers, Priced, Stage, Whole, setting
from roofcast.simulator.choices import (
    ATTENTION,
    CP_KINDS,
    MEMORY_FORMATS,
    MODES,
    OFFLOAD,
    PRECISIONS,
    SCHEDULES,
)

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast
    from roofcast.simulator.forecast.scenario import Scenario


# Order of --help, under its headings. Each is a field of the Scenario; one that is not given is
# left to the scenario's own default.
STEP = {
    "input": click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="SHAPE",
        help=(
            "What a .py or .onnx model takes: 64x3x32x32, 64x128:int64, ids=64x128:int64. Once an"
            " input, in order."
        ),
    ),
    "batch": click.option(
        "--batch",
        type=Whole(),
        help="Samples a step, of all devices. Default: 1 sequence, 32 images.",
    ),
    "seq": click.option(
        "--seq",
        "sequence",
        type=Whole(),
        help="Tokens a sample. Default: what the model was made for, at most 4096.",
    ),
    "image": click.option(
        "--image",
        type=Whole(),
        help="Edge of the square image [pixels]. Default: what the model was made for.",
    ),
    "precision": click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Number format of the step. Default: the best 16-bit one of the device.",
    ),
    "optimizer": click.option(
        "--optimizer", metavar="NAME", help="sgd, adamw, ... Default: adamw."
    ),
    "recompute": click.option(
        "--recompute",
        metavar="HOW",
        help=(
            "Activations computed again in the backward pass: none, selective, full, uniform:N,"
            " every:N, block:N or modules:NAME,NAME. Default: none."
        ),
    ),
    "offload": click.option(
        "--offload",
        multiple=True,
        type=click.Choice(OFFLOAD),
        help="Kept in the host's memory. May be given for both. Default: neither.",
    ),
    "attention": click.option(
        "--attention",
        type=click.Choice(ATTENTION),
        help="Implementation of attention. Default: the stack's.",
    ),
    "mode": click.option(
        "--mode",
        type=click.Choice(MODES),
        help="A training step, or an inference pass. Default: train.",
    ),
    "stack": click.option(
        "--stack",
        metavar="NAME",
        help=(
            "Software: pytorch-eager, jax-xla ... or a .toml profile. Default: the first; the"
            " second on TPUs."
        ),
    ),
    "memory_format": click.option(
        "--memory-format",
        type=click.Choice(MEMORY_FORMATS),
        help="How images lie in memory. Default: the stack's.",
    ),
}
LENGTH = {
    "tokens": click.option(
        "--tokens",
        type=Count(as_written=True),
        help="Length of the training, in tokens: 15T, 300B. No default.",
    ),
    "samples": click.option(
        "--samples", type=Count(as_written=True), help="Samples of the data set: 1.28M. No default."
    ),
    "epochs": click.option(
        "--epochs", type=Count(as_written=False), help="Passes over the samples. Default: 1."
    ),
    "price": click.option(
        "--price",
        "price_per_hour",
        type=Priced(),
        metavar="USD",
        help="Dollars a device and hour. Default: the device file's.",
    ),
}
DEVICE = {
    "set": click.option(
        "--set",
        "set_",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda ctx, param, values: setting(values),
        help=(
            'Change one number of the device: memory.bandwidth="8 TB/s", peak_flops.bf16="2'
            ' PFLOP/s". May be repeated.'
        ),
    )
}
LAYOUT = {
    "devices": click.option(
        "--devices", type=Whole(), metavar="N", help="How many. Default: tp x cp x pp x dp."
    ),
    "system": click.option(
        "--system",
        metavar="NAME",
        help="Node or pod they stand in (roofcast devices --systems). Default: the usual one.",
    ),
    "tp": click.option(
        "--tp", type=Whole(), metavar="N", help="Tensor parallel. Default: 1, as for those below."
    ),
    "sp": click.option(
        "--sp/--no-sp",
        default=None,
        help="Sequence parallel over the tensor-parallel group. Default: with --tp.",
    ),
    "pp": click.option("--pp", type=Whole(), metavar="N", help="Pipeline stages."),
    "vpp": click.option("--vpp", type=Whole(), metavar="N", help="Virtual stages a device."),
    "stages": click.option(
        "--stages",
        type=Layers(),
        metavar="N,N,..",
        help="Layers of each stage, or virtual stage. Default: alike.",
    ),
    "dp": click.option(
        "--dp", type=Whole(), metavar="N", help="Data parallel. Default: the devices that are left."
    ),
    "cp": click.option("--cp", type=Whole(), metavar="N", help="Context parallel."),
    "cp_kind": click.option(
        "--cp-kind",
        type=click.Choice(CP_KINDS),
        help="How attention meets the tokens of other ranks. Default: ring.",
    ),
    "ep": click.option("--ep", type=Whole(), metavar="N", help="Expert parallel."),
    "etp": click.option("--etp", type=Whole(), metavar="N", help="Tensor parallel of an expert."),
    "zero": click.option(
        "--zero", type=Stage(), help="ZeRO stage, 0 to 3; 3 is fully sharded (FSDP). Default: 0."
    ),
    "shard": click.option(
        "--shard",
        type=Whole(),
        metavar="N",
        help=(
            "Ranks that share what ZeRO shards (hybrid sharding). Default: all that hold the same."
        ),
    ),
    "reshard": click.option(
        "--reshard/--no-reshard",
        default=None,
        help="Drop gathered weights after each pass (ZeRO 3). Default: yes, but in a pipeline.",
    ),
    "schedule": click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        help="Of the pipeline. Default: 1f1b; interleaved with --vpp.",
    ),
    "micro_batch": click.option(
        "--micro-batch", type=Whole(), metavar="N", help="Samples a device takes at a time."
    ),
}
SECTIONS = {
    "The step": STEP,
    "Length and cost": LENGTH,
    "The device": DEVICE,
    "Several devices": LAYOUT,
}
COUNTED = ("input", "batch", "seq", "image", "attention", "mode", "stack")  # and its own precision


class Sectioned(click.Command):
    """A command whose --help sets its options under headings."""

    def format_options(self, ctx, formatter):
        """The help of the options, by section."""
        left = {
            param.name: param.get_help_record(ctx)
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
        }
        titled = [
            (title, [left.pop(_dest(option), None) for option in options.values()])
            for title, options in SECTIONS.items()
        ]
        for title, records in [("Options", list(left.values())), *titled]:
            if any(records):
                with formatter.section(title):
                    formatter.write_dl([record for record in records if record])


def _dest(option: Callable) -> str:
    """The name that a click option has as a parameter."""
    holder = option(lambda: None)
    return holder.__click_params__[0].name


def options(*names: str) -> Callable:
    """These of the options above."""
    known = STEP | LENGTH | DEVICE | LAYOUT

    def decorate(function):
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


def scenario_options(several: bool = False, required: bool = True) -> Callable:
    """MODEL, --on and all that describes a step. With `several`, --on may be repeated; `required`:
    whether a MODEL must be given.
    """

    def decorate(function):
        function = options(*STEP, *LENGTH, *DEVICE, *LAYOUT)(function)
        repeated = " May be repeated." if several else ""
        help_ = (
            f"Device: a name (see roofcast devices) or a .toml file.{repeated} Default: that of"
            " --system."
        )
        function = click.option("--on", multiple=several, metavar="DEVICE", help=help_)(function)
        return click.argument(
            "model", metavar="MODEL" if required else "[MODEL]", required=required
        )(function)

    return decorate


def scenarios(model: str, on: tuple[str, ...] | str | None, set_: dict[str, str], **given) -> list:
    """One Scenario a device."""
    from roofcast.simulator.forecast.scenario import Scenario

    if not model.strip():
        raise BadInput(
            "MODEL is empty; say which model, for example llama-3-8b (list: roofcast models)"
        )
    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    if "system" in chosen:
        from roofcast import hwdb

        system = hwdb.system(chosen["system"])
        on = on or system.device
        if not {"devices", "dp"} & set(chosen):  # one of it, whole
            chosen["devices"] = int(system.count)
    if not on:
        raise BadInput(
            "--on is missing; say which device, for example --on h100-sxm5 (list: roofcast devices)"
        )
    on = (on,) if isinstance(on, str) else on
    return [Scenario(model=model, device=device, set=set_, **chosen) for device in on]


def answer(scenario: Scenario) -> Forecast:
    """The Forecast, with the largest batch that fits."""
    from roofcast.simulator.forecast.chain import forecast, with_largest_batch

    return with_largest_batch(forecast(scenario), scenario)


def to_json(forecast) -> dict:
    """The object that --json prints: the Forecast without the points of its roofline."""
    fields = msgspec.to_builtins(forecast)
    del fields["points"]
    return fields


def print_json(value: object) -> None:
    """One JSON object on stdout; a figure of the hardware database is a number."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=float), indent=2).decode())


def print_answers(forecasts: list, as_json: bool) -> None:
    """One forecast in full, several as a table; or one JSON object."""
    if as_json:
        print_json(
            to_json(forecasts[0])
            if len(forecasts) == 1
            else {"forecasts": [to_json(each) for each in forecasts]}
        )
        return
    from roofcast.reports.pages.forecast import print_comparison, print_forecast

    if len(forecasts) == 1:
        print_forecast(forecasts[0])
    else:
        print_comparison(forecasts)
