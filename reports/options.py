"""Options that several commands share, and the Scenario they make."""

from __future__ import annotations

import math
from collections.abc import Callable

import click
import msgspec

from hwdb.errors import BadInput

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "amp-bf16", "amp-fp16", "fp8")
RECOMPUTE = ("none", "selective", "full")
ATTENTION = ("eager", "efficient", "flash")
MODES = ("train", "infer")


class Count(click.ParamType):
    """A number of things, with or without a suffix: 15T, 1.28M, 90; kept as it was written where a scenario file should say it so."""

    name = "number"

    def __init__(self, as_written: bool):
        self.as_written = as_written

    def convert(self, value, param, ctx):
        from hwdb.units import count

        number = count(value, param.name)
        if not (math.isfinite(number) and number > 0):
            raise BadInput(f"{param.opts[0]} {value}: not a length; give more than zero, for example 15T or 1.28M")
        return value if self.as_written else number


class Whole(click.ParamType):
    """A whole number of at least one."""

    name = "integer"

    def convert(self, value, param, ctx):
        try:
            number = int(value)
        except ValueError:
            raise BadInput(f"{param.opts[0]} {value}: not a whole number; give 1 or more") from None
        if number < 1:
            raise BadInput(f"{param.opts[0]} {value}: too small; give 1 or more")
        return number


def setting(values: tuple[str, ...]) -> dict[str, str]:
    """What --set KEY=VALUE, as often as given, changes."""
    changes: dict[str, str] = {}
    for text in values:
        key, sign, value = text.partition("=")
        if not (sign and key.strip() and value.strip()):
            raise BadInput(f'--set {text}: no KEY=VALUE; write for example --set memory.bandwidth="8 TB/s"')
        if key.strip() in changes:
            raise BadInput(f"--set {key.strip()}: given twice; keep one")
        changes[key.strip()] = value.strip()
    return changes


# Order of --help. Each is a field of the Scenario; one that is not given is left to the scenario's own default.
_SCENARIO = (
    click.option("--batch", type=Whole(), help="Samples a step. Default: 1 sequence, 32 images."),
    click.option("--seq", "sequence", type=Whole(), help="Tokens a sample. Default: what the model was made for, at most 4096."),
    click.option("--image", type=Whole(), help="Edge of the square image [pixels]. Default: what the model was made for."),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), help="Number format of the step. Default: the best 16-bit one of the device."
    ),
    click.option("--optimizer", metavar="NAME", help="sgd, adamw, ... Default: adamw."),
    click.option("--recompute", type=click.Choice(RECOMPUTE), help="Activations computed again in the backward pass. Default: none."),
    click.option("--attention", type=click.Choice(ATTENTION), help="Implementation of attention. Default: the stack's."),
    click.option("--mode", type=click.Choice(MODES), help="A training step, or an inference pass. Default: train."),
    click.option(
        "--stack", metavar="NAME", help="pytorch-eager, pytorch-compiled, jax-xla, or a .toml profile. Default: the first; jax-xla on TPUs."
    ),
    click.option("--tokens", type=Count(as_written=True), help="Length of the training, in tokens: 15T, 300B. No default."),
    click.option("--samples", type=Count(as_written=True), help="Samples of the data set: 1.28M. No default."),
    click.option("--epochs", type=Count(as_written=False), help="Passes over the samples. Default: 1."),
    click.option(
        "--set",
        "set_",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda ctx, param, values: setting(values),
        help='Change one number of the device: memory.bandwidth="8 TB/s", peak_flops.bf16="2 PFLOP/s". May be repeated.',
    ),
)


def scenario_options(several: bool = False) -> Callable:
    """MODEL, --on and all that describes a step. With `several`, --on may be repeated."""

    def decorate(function):
        for option in reversed(_SCENARIO):
            function = option(function)
        help_ = "Device: a name (see roofcast devices) or a .toml file." + (" May be repeated." if several else "")
        function = click.option("--on", "devices", required=True, multiple=several, metavar="DEVICE", help=help_)(function)
        return click.argument("model", metavar="MODEL")(function)

    return decorate


def scenarios(model: str, devices: tuple[str, ...] | str, set_: dict[str, str], **given) -> list:
    """One Scenario a device."""
    from simulator.scenario import Scenario

    chosen = {key: value for key, value in given.items() if value is not None}
    devices = (devices,) if isinstance(devices, str) else devices
    return [Scenario(model=model, device=device, set=set_, **chosen) for device in devices]


def answer(scenario, with_batch: bool = True):
    """The Forecast, with the largest batch that fits the device."""
    from simulator import predict

    forecast = predict(scenario)
    if not with_batch or forecast.memory.capacity_bytes is None:
        return forecast
    from simulator import largest_batch

    try:
        most = largest_batch(scenario)
    except BadInput:  # any batch fits
        most = None
    return msgspec.structs.replace(forecast, memory=msgspec.structs.replace(forecast.memory, largest_batch=most))


def to_json(forecast) -> dict:
    """The object that --json prints: the Forecast without the points of its roofline."""
    fields = msgspec.to_builtins(forecast)
    del fields["points"]
    return fields


def print_json(value: object) -> None:
    """One JSON object on stdout; a figure of the hardware database is a number."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=float), indent=2).decode())
