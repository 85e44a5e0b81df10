"""From what was asked to a recipe: defaults for what was left out, each said, and refusals of what cannot be."""

from __future__ import annotations

import math

from hwdb.errors import BadInput, unknown
from hwdb.records import Device
from hwdb.units import quantity
from simulator import stack as stacks
from simulator.model import Model
from simulator.ops.optimizer import optimizer
from simulator.precision import precision
from simulator.recompute import policy
from simulator.scenario import Scenario
from simulator.step import Recipe

MODES = ("train", "infer")
OFFLOAD = ("activations", "optimizer")
ATTENTION = ("eager", "efficient", "flash")
MEMORY_FORMATS = ("contiguous", "channels_last")
DEFAULT_BATCH = {"sequence": 1, "image": 32, "table": 1024}


def decide(s: Scenario, model: Model, device: Device) -> tuple[Recipe, list[str]]:
    """The recipe of a scenario, and the assumptions it rests on."""
    said: list[str] = []
    _one_of("mode", s.mode, MODES)
    policy(s.recompute)
    for what in s.offload:
        _one_of("offload", what, OFFLOAD)
    if s.attention is not None:
        _one_of("attention", s.attention, ATTENTION)
    if s.memory_format is not None:
        _one_of("memory_format", s.memory_format, MEMORY_FORMATS)
        if model.takes != "image":
            raise BadInput(f"memory_format {s.memory_format}: {model.name} reads no images; leave it out")
    batch = s.batch
    if batch is None:
        batch = DEFAULT_BATCH[model.takes] * _micro_batches(s)
        said.append(f"batch {batch} (not given)")
    _positive("batch", batch)
    size = _size(s, model, said)
    name = s.precision
    if name is None:
        name = default_precision(device)
        said.append(
            f"precision {name} (not given): weights, gradients and optimizer states are in it too"
            if "amp" not in name
            else f"precision {name} (not given)"
        )
    if precision(name).matrices and s.mode == "train":
        raise BadInput(f"precision {name}: quantised weights are for inference; use --mode infer, or another precision")
    stack_name = s.stack
    if stack_name is None:
        stack_name = "jax-xla" if device.kind == "tpu" else "pytorch-eager"
        said.append(f"stack {stack_name} (not given)")
    stack = stacks.stack(stack_name).changed(s.attention, s.memory_format)
    opt = s.optimizer
    if s.mode == "infer":
        if opt is not None:
            raise BadInput("optimizer: an inference step has none; leave it out or use --mode train")
        if s.recompute != "none":
            raise BadInput(f"recompute {s.recompute}: inference keeps nothing to recompute; leave it out or use --mode train")
        if s.offload:
            raise BadInput(f"offload {s.offload[0]}: inference keeps neither; leave it out or use --mode train")
    elif opt is None:
        opt = "adamw"
        said.append("optimizer adamw (not given)")
    elif opt == "none":  # forward and backward alone, as kernel benchmarks time a training step
        opt = None
    if opt is not None:
        optimizer(opt)
    if opt is None and "optimizer" in s.offload:
        raise BadInput("offload optimizer: there is none; leave it out, or give --optimizer")
    return (
        Recipe(
            mode=s.mode, batch=batch, size=size, precision=name, optimizer=opt, recompute=s.recompute, stack=stack,
            offload=tuple(s.offload),
        ),  # fmt: skip
        said,
    )


def _micro_batches(s: Scenario) -> int:
    """Micro-batches of a step over several devices, where no batch is given: one a data-parallel rank, four a pipeline stage."""
    degrees = [d if isinstance(d, int) and d > 0 else 1 for d in (s.tp, s.cp, s.pp)]
    ranks = s.dp or max((s.devices or 1) // math.prod(degrees), 1)
    return ranks * (4 * degrees[2] if degrees[2] > 1 else 1) if isinstance(ranks, int) and ranks > 0 else 1


def default_precision(device: Device) -> str:
    """bf16 where the device multiplies it, else mixed fp16, else fp32."""
    if device.kind != "cpu" and "bf16" in device.peak_flops:
        return "bf16"
    return "amp-fp16" if device.kind != "cpu" and "fp16" in device.peak_flops else "fp32"


def _size(s: Scenario, model: Model, said: list[str]) -> int | None:
    if model.takes == "sequence":
        if s.image is not None:
            raise BadInput(f"image {s.image}: {model.name} reads sequences; use --seq")
        size, word = s.sequence, "sequence of {} tokens"
    elif model.takes == "image":
        if s.sequence is not None:
            raise BadInput(f"sequence {s.sequence}: {model.name} reads images; use --image")
        size, word = s.image, "images of {0} x {0}"
    else:
        if s.sequence is not None or s.image is not None:
            raise BadInput(f"{model.name} reads neither sequences nor images; leave --seq and --image out")
        return model.size
    if size is None:
        said.append(word.format(model.size) + " (not given)")
        return model.size
    _positive("sequence" if model.takes == "sequence" else "image", size)
    longest = getattr(model.config, "context", None)
    if model.takes == "sequence" and longest and size > longest:
        said.append(f"a sequence of {size} is longer than the {longest} positions of {model.name}'s config")
    return size


def _one_of(what: str, value: str, known: tuple[str, ...]):
    if value not in known:
        raise unknown(what, value, known, f"known: {', '.join(known)}")


def _positive(what: str, value):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{what} {value}: a whole number of at least 1 is wanted")


def _count(value, what: str) -> float:
    number = quantity(value, what)
    if number <= 0:
        raise BadInput(f"{what} {value}: a positive number is wanted")
    return number


def length(s: Scenario, tokens_per_step: float | None, samples_per_step: float) -> float | None:
    """Steps of the whole run, from tokens, or samples and epochs; None where no length was given."""
    given = [name for name in ("tokens", "samples") if getattr(s, name) is not None]
    if len(given) == 2:
        raise BadInput("tokens and samples are two lengths of one run; give one")
    if s.epochs is not None and (not math.isfinite(s.epochs) or s.epochs <= 0):
        raise BadInput(f"epochs {s.epochs}: a positive number is wanted")
    if not given:
        if s.epochs is not None:
            raise BadInput("epochs without samples: how many samples has an epoch? add --samples 1.28M")
        return None
    if given == ["tokens"]:
        if tokens_per_step is None:
            raise BadInput("tokens: this model does not read tokens; give --samples and --epochs")
        return _count(s.tokens, "tokens") * (s.epochs or 1) / tokens_per_step
    return _count(s.samples, "samples") * (s.epochs or 1) / samples_per_step
