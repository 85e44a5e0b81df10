"""Options that several commands share, and the Scenario they make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.reports.completion import completing
from roofcast.reports.option_campaign import CAMPAIGN
from roofcast.reports.option_compression import COMPRESSION
from roofcast.reports.option_offload import OFFLOADED
from roofcast.reports.option_power import BEST, POWER, capped, with_best_cap
from roofcast.reports.option_tuning import ENCODERS, TUNED, TUNING
from roofcast.reports.option_types import Count, Layers, Once, Priced, Stage, Whole, setting
from roofcast.simulator.choices import (
    ATTENTION,
    CP_KINDS,
    MEMORY_FORMATS,
    MODES,
    PRECISIONS,
    SCHEDULES,
)
from roofcast.simulator.work.ops.optimizer import OPTIMIZERS

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast
    from roofcast.simulator.forecast.scenario import Scenario

Option = Callable[[Callable], Callable]  # what click.option returns


def _integer(name: str, text: str, *parameter: str) -> Option:
    """An option that takes an integer of at least 1."""
    return click.option(name, *parameter, type=Whole(), metavar="N", help=text)


def _choice(name: str, values: Sequence[str], text: str) -> Option:
    """An option that takes one of these values."""
    return click.option(name, type=click.Choice(values), help=text)


# In the order of --help, under its headings. Each is a field of the Scenario; for one that is not
# given, the scenario's default holds.
STEP: dict[str, Option] = {
    "input": click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="SHAPE",
        help=(
            "Input shape of a .py or .onnx model: 64x3x32x32, 64x128:int64, or by the name of an"
            " argument, ids=64x128:int64; or a value: step=3. Repeat it for each input, in order."
        ),
    ),
    "batch": _integer(
        "--batch",
        "Global batch size [samples]. Default: 1 sequence or 32 images per data-parallel rank,"
        " times 4 * pp with --pp > 1; for .py and .onnx models, the batch in --input.",
    ),
    "seq": _integer(
        "--seq", "Sequence length [tokens]. Default: the model's own, at most 4096.", "sequence"
    ),
    "image": _integer("--image", "Side of the square image [pixels]. Default: the model's own."),
    "precision": _choice(
        "--precision",
        PRECISIONS,
        "Number format. bf16, fp16, fp32: weights, gradients and optimizer states all in it; tf32:"
        " fp32 with TF32 products; amp-bf16, amp-fp16: fp32 weights, 16-bit products (autocast);"
        " fp8, nvfp4: bf16 weights and states, products in 8 or 4 bits. For inference alone: int8"
        " (weights and products, the rest in 16 bits), int8-fp32 (the rest in fp32, as on CPUs),"
        " int4 (the weights only), mxfp4 (weights and products in 4 bits). Stacks such as megatron"
        " add fp32 master weights to 16-bit"
        " ones. Default: bf16, else amp-fp16, else fp32, by what the device supports; on CPUs"
        " fp32.",
    ),
    "optimizer": click.option(
        "--optimizer", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} or none. Default: adamw."
    ),
    "recompute": click.option(
        "--recompute",
        metavar="HOW",
        help=(
            "Activation recomputation (checkpointing): none; selective (attention scores); full;"
            " uniform:N (layers in groups of N); every:N (every Nth layer); block:N (the first N"
            " layers of each stage); modules:NAME,NAME (ops whose name contains one of these, for"
            " example modules:mlp,norm); keep:ROLE,ROLE (keeps only the results of qkv,"
            " context, attn_out, mlp_in, mlp_out); or a framework's policy: minimal, save_qkv_proj"
            " (MaxText), selective-ops (torchtitan) ... Default: none."
        ),
    ),
    **OFFLOADED,
    "attention": _choice(
        "--attention",
        ATTENTION,
        "Attention kernel; eager keeps all scores. Default: set by --stack (pytorch-eager: flash).",
    ),
    "mode": _choice("--mode", MODES, "A training step, or one inference pass. Default: train."),
    "stack": click.option(
        "--stack",
        metavar="NAME",
        shell_complete=completing("stack"),
        help=(
            "Software stack: a name (see roofcast stacks) or a .toml file. Default: pytorch-eager,"
            " on TPUs jax-xla, on NPUs the vendor's where there is one."
        ),
    ),
    "memory_format": _choice(
        "--memory-format", MEMORY_FORMATS, "Memory format of images. Default: the stack's."
    ),
}
RUNS = click.option(
    "--runs",
    multiple=True,
    metavar="FILE",
    help=(
        "Your own measured runs (.csv, columns in docs/usage.md): those like this step"
        " (device, stack, kind of model, mode, format) calibrate the forecast. May be"
        " repeated."
    ),
)
LENGTH: dict[str, Option] = {
    "tokens": click.option(
        "--tokens",
        type=Count(as_written=True),
        help="Length of the run in tokens: 15T, 300B. Adds duration, cost and energy of the run.",
    ),
    "samples": click.option(
        "--samples",
        type=Count(as_written=True),
        help="Samples of the data set: 1.28M. The run has this many, times --epochs.",
    ),
    "epochs": click.option(
        "--epochs", type=Count(as_written=False), help="Passes over the data set. Default: 1."
    ),
    "price": click.option(
        "--price",
        "price_per_hour",
        type=Priced(),
        metavar="USD",
        help=(
            "USD per device-hour. Default: the rent on demand in hwdb/prices, the median of one"
            " class of provider."
        ),
    ),
}
DEVICE: dict[str, Option] = {
    "set": click.option(
        "--set",
        "set_",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda ctx, param, values: setting(values),
        help=(
            'Change a number of the device (hypothetical hardware): memory.bandwidth="8 TB/s",'
            " peak_flops.bf16=x2; x2 doubles, +20% adds a fifth. Keys: roofcast devices show NAME."
            " May be repeated."
        ),
    )
}
LAYOUT: dict[str, Option] = {
    "devices": _integer(
        "--devices", "Number of devices. Default: tp*cp*pp*dp; with --system the whole system."
    ),
    "system": click.option(
        "--system",
        metavar="NAME",
        shell_complete=completing("system"),
        help=(
            "Node or pod type: a name (see roofcast devices --systems) or a .toml file. Default:"
            " the usual one of --on."
        ),
    ),
    "tp": _integer("--tp", "Tensor-parallel size. Default: 1."),
    "sp": click.option(
        "--sp/--no-sp",
        default=None,
        help="Sequence parallelism in the tensor-parallel group. Default: on with --tp > 1.",
    ),
    "pp": _integer("--pp", "Pipeline-parallel size (stages). Default: 1."),
    "vpp": _integer("--vpp", "Virtual stages per device. Default: 1."),
    "stages": click.option(
        "--stages",
        type=Layers(),
        metavar="N,N,..",
        help="Transformer layers of each stage or virtual stage. Default: an even split.",
    ),
    "dp": _integer(
        "--dp",
        "Data-parallel size. Default: devices / (tp*cp*pp); 1 without --devices and --system.",
    ),
    "cp": _integer("--cp", "Context-parallel size. Default: 1."),
    "cp_kind": _choice("--cp-kind", CP_KINDS, "Context-parallel algorithm. Default: ring."),
    "ep": _integer(
        "--ep", "Expert-parallel size; times --etp it must divide tp*cp*dp. Default: 1."
    ),
    "etp": _integer(
        "--etp",
        "Tensor-parallel size within an expert. Default: --tp if it can be (it divides the width of"
        " an expert, and ep*tp divides tp*cp*dp), else 1.",
    ),
    "zero": click.option(
        "--zero", type=Stage(), help="ZeRO stage; 3 as in PyTorch's FSDP. Default: 0."
    ),
    "shard": _integer(
        "--shard",
        "Size of a ZeRO sharding group (HSDP). Default: all data- and context-parallel ranks.",
    ),
    "reshard": click.option(
        "--reshard/--no-reshard",
        default=None,
        help=(
            "Free a layer's weights after its forward pass and gather them again for backward (ZeRO"
            " 3, FSDP's reshard_after_forward). Default: on, except with --pp > 1."
        ),
    ),
    "schedule": _choice(
        "--schedule", SCHEDULES, "Pipeline schedule. Default: 1f1b, with --vpp > 1 interleaved."
    ),
    "micro_batch": _integer(
        "--micro-batch",
        "Samples in one micro-batch. Default: 1 with --pp > 1, else the rank's whole share of"
        " --batch or the largest power of two in it that fits, with the error of measured memory;"
        " the whole share where none fits.",
    ),
}
SECTIONS = {
    "The step": STEP,
    "Fine-tuning": TUNING,
    "Compression": COMPRESSION,
    "Length and cost": LENGTH,
    "The whole training": CAMPAIGN,
    "The device": DEVICE,
    "Power, energy, carbon": POWER,
    "Several devices": LAYOUT,
}
# of roofcast count, with a precision of its own
COUNTED = ("input", "batch", "seq", "image", "attention", "mode", "stack", *TUNED, *ENCODERS)


class Sectioned(Once):
    """A command whose --help lists its options under the headings of SECTIONS."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the options, by section."""
        left = {
            param.name: param.get_help_record(ctx)
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
        }
        titled = [
            (title, [left.pop(_parameter(option), None) for option in options.values()])
            for title, options in SECTIONS.items()
        ]
        for title, records in [("Options", list(left.values())), *titled]:
            if any(records):
                with formatter.section(title):
                    formatter.write_dl([record for record in records if record])


def _parameter(option: Option) -> str:
    """The parameter name of a click option."""
    holder: Any = option(lambda: None)
    return holder.__click_params__[0].name


def options(*names: str) -> Option:
    """A decorator that adds these shared options to a command."""
    known = STEP | TUNING | COMPRESSION | LENGTH | DEVICE | POWER | LAYOUT

    def decorate(function: Callable) -> Callable:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


def scenario_options(several: bool = False, required: bool = True, length: bool = True) -> Option:
    """A decorator that adds MODEL, --on and every option of a Scenario.

    several: --on may be repeated; required: MODEL must be given; length: with those on the length
    and cost of the run.
    """
    names = (*STEP, *TUNING, *COMPRESSION, *(LENGTH if length else ()), *DEVICE, *POWER, *LAYOUT)

    def decorate(function: Callable) -> Callable:
        function = options(*names)(function)
        text = "Device: a name (see roofcast devices) or a .toml file."
        text += " May be repeated." if several else ""
        text += " Required without --system, which names its own."
        devices, models = completing("device"), completing("model")
        on = click.option(
            "--on", multiple=several, metavar="DEVICE", help=text, shell_complete=devices
        )
        metavar = "MODEL" if required else "[MODEL]"
        return click.argument("model", metavar=metavar, required=required, shell_complete=models)(
            on(function)
        )

    return decorate


def scenarios(
    model: str, on: tuple[str, ...] | str | None, set_: dict[str, str | float | int], **given: Any
) -> list[Scenario]:
    """One Scenario per device, from the values of the options.

    A --system without --on has its own device, and is used whole unless --devices or --dp is given.
    Raises BadInput if MODEL or --on is missing.
    """
    from roofcast.simulator.forecast.scenario import Scenario

    if not model.strip():
        raise BadInput(
            "MODEL is empty; give a model, for example llama-3-8b (list: roofcast models)"
        )
    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    cap = chosen.pop("power_cap", None)
    set_ = capped(set_, cap)
    if "system" in chosen:
        from roofcast import hwdb

        system = hwdb.system(chosen["system"])
        on = on or system.device
        if not {"devices", "dp"} & set(chosen):
            chosen["devices"] = int(system.count)
    if not on:
        raise BadInput(
            "--on is missing; give a device, for example --on h100-sxm5 (list: roofcast devices)"
        )
    on = (on,) if isinstance(on, str) else on
    if "all" in on:
        raise BadInput(
            f"--on all: give devices by name; roofcast choose {model} --on all compares every one"
        )
    found = [Scenario(model=model, device=device, set=set_, **chosen) for device in on]
    return [with_best_cap(scenario) for scenario in found] if cap == BEST else found


def to_json(forecast: Forecast) -> dict[str, Any]:
    """The object that --json prints: the Forecast without the points of its roofline, and without
    remedies where these were not asked for.
    """
    fields = msgspec.to_builtins(forecast)
    del fields["points"]
    if forecast.remedies is None:
        del fields["remedies"]
    return fields


def print_json(value: object) -> None:
    """Print one JSON object to stdout; a Figure of the hardware database is printed as a number."""
    try:
        encoded = msgspec.json.encode(value, enc_hook=float)
    except UnicodeEncodeError:  # a file name that is not UTF-8
        plain = msgspec.to_builtins(value, enc_hook=float)
        encoded = json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")
    text = msgspec.json.format(encoded, indent=2).decode()
    # JSON has escaped the control characters below a space; the others are escaped here
    click.echo(re.sub(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069]", _as_json, text))


def _as_json(found: re.Match[str]) -> str:
    """A character as JSON escapes it."""
    return f"\\u{ord(found[0]):04x}"


def print_answers(forecasts: list[Forecast], as_json: bool) -> None:
    """Print one forecast in full, or several as a table; with as_json one JSON object."""
    if as_json:
        found = [to_json(each) for each in forecasts]
        print_json(found[0] if len(found) == 1 else {"forecasts": found})
        return
    from roofcast.reports.pages.comparison import print_comparison
    from roofcast.reports.pages.forecast import print_forecast

    if len(forecasts) == 1:
        print_forecast(forecasts[0])
    else:
        print_comparison(forecasts)
