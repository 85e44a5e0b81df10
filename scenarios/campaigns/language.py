"""A language model of a table of whole trainings, in the layout that is told or found."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.campaigns import words
from roofcast.scenarios.measured import training, training_rows
from roofcast.scenarios.measured.architectures import names as llm_names
from roofcast.scenarios.measured.cells import Row, first_match, positive, text
from roofcast.simulator.choose.explore import explore
from roofcast.simulator.forecast.scenario import Scenario

DAYS = 30.0  # of a run whose number of devices is not told
NODE = 8
MFU = 0.4  # for that number alone
ASPECT = 128  # width over layers of a plain transformer
BATCHES = ((2e9, 0.5e6), (6e9, 1e6), (300e9, 4e6), (math.inf, 16e6))  # parameters, tokens
SAME = 0.3  # of ln(parameters): embeddings may be counted or not
MODERN = 2020  # year of the devices from which on the usual software is today's Megatron-LM
STACKS = {
    "llm.c": "llm.c",
    "compile": "pytorch-compiled",
}  # words of software beside published/names.toml


def phases(row: Row, named: words.Named, device: str, said: list[str]) -> tuple[Scenario, ...]:
    """The scenario of a language model. What is assumed is appended to `said`."""
    recipe = words.recipe_of(row)
    model, params = _model(row, named, said)
    tokens = words.count(text(row, "tokens")) or recipe.get("tokens")
    sequence = words.sequence_of(row) or recipe.get("sequence") or 2048
    steps = positive(text(row, "steps"))
    if not tokens and not steps:
        raise words.refuse("its length is not told: fill the column tokens or steps")
    if "tokens" in recipe and not words.count(text(row, "tokens")):
        said.append(f"length: {recipe['source']}")
    devices = words.devices_of(row)
    batch = words.batch_of(row, devices or 0, sequence) or recipe.get("batch")
    if not batch:
        batch = max(round(_usual_tokens(params) / sequence), 1)
        said.append(f"batch of {batch * sequence / 1e6:.2g} million tokens (not given)")
    length = tokens or steps * batch * sequence  # type: ignore[operator]
    if not devices:
        devices = _usual_devices(6 * params * length, device, batch)
        said.append(f"{devices:,} devices (not given)")
    known = _measured(named.name, device, devices, batch, sequence)
    if known is not None:
        said.append("layout, software and network: of the measured steps of this run that ship")
        return (msgspec.structs.replace(known, tokens=float(length)),)
    layout = words.layout_of(row)
    given = bool(positive(text(row, "global_batch")))
    fitting = words.divisible(batch, devices, _ranks(layout, devices), given)
    if fitting != batch:
        said.append(f"batch of {fitting:,} samples, which {devices:,} devices can share")
        batch = fitting
    base = _scenario(row, model, device, devices, sequence, batch, said)
    laid = _laid_out(base, devices, layout, said)
    read = recipe.get("eval")  # steps between evaluations, and samples of one
    campaign = {"eval_every": read["every"], "eval_samples": read["samples"]} if read else {}
    return (msgspec.structs.replace(laid, tokens=float(length), campaign=campaign),)


def _measured(name: str, device: str, devices: int, batch: int, sequence: int) -> Scenario | None:
    """The scenario of a measured step that ships, of the same model, devices, batch and length."""
    ours = hwdb.device(device).id
    for run in _published():
        s = run.scenario
        if s is None or s.devices != devices or (s.batch, s.sequence) != (batch, sequence):
            continue
        spelled = words.shipped_name(text(run.row, "model_name"))
        if name and spelled == name and hwdb.device(s.device).id == ours:
            return s
    return None


@functools.cache
def _published() -> tuple[training.LlmRun, ...]:
    return tuple(training.published())


def _ranks(layout: dict[str, Any], devices: int) -> int | None:
    """Data-parallel ranks of a layout that is told."""
    if "tp" not in layout and "pp" not in layout:
        return None
    shared = math.prod(layout.get(each, 1) for each in ("tp", "pp", "cp"))
    return max(devices // shared, 1)


def _model(row: Row, named: words.Named, said: list[str]) -> tuple[Any, float]:
    """A shipped model by its name, or the columns of a plain transformer; and its parameters."""
    params = positive(text(row, "params"))
    if named.name:
        return named.name, params or _parameters(named.name)
    assert params is not None, "checked by the caller"
    width = max(round((params * ASPECT / 12) ** (1 / 3) / ASPECT), 1) * ASPECT
    layers = max(round(params / (12 * width * width)), 1)
    said.append(f"a plain transformer of {params:.4g} parameters: {layers} layers, {width} wide")
    return {"layers": str(layers), "hidden": str(width)}, params


def other_size(row: Row, name: str) -> bool:
    """Whether a row states another number of parameters than a shipped model has: it is not that
    model.
    """
    params = positive(text(row, "params"))
    return params is not None and abs(math.log(params / _parameters(name))) > SAME


@functools.cache
def _parameters(name: str) -> float:
    from roofcast.simulator.forecast.counts import count

    return float(count(name).parameters)


def _usual_tokens(params: float) -> float:
    """Tokens of a batch by size of the model [brown2020, Table 2.1; grattafiori2024, Table 4]."""
    return next(tokens for most, tokens in BATCHES if params <= most)


def _usual_devices(flops: float, device: str, batch: int) -> int:
    """Whole nodes, a power of two, that take about DAYS for so many FLOPs."""
    peak = max(map(float, _sixteen(device)), default=1e14)
    many = flops / (MFU * peak * DAYS * 86400.0)
    nodes = 2 ** max(round(math.log2(max(many / NODE, 1.0))), 0)
    return int(min(nodes * NODE, 2 ** int(math.log2(batch)) if batch >= NODE else NODE))


def _sixteen(device: str) -> list[Any]:
    """Peak rates in 16 bits."""
    rates = hwdb.device(device).peak_flops
    return [rate for name, rate in rates.items() if name in ("bf16", "fp16")]


def _scenario(
    row: Row, model: Any, device: str, devices: int, sequence: int, batch: int, said: list[str]
) -> Scenario:
    """The scenario of a language model, in columns of published training runs."""
    columns = {
        "n_devices": str(devices),
        "seq_len": str(sequence),
        "global_batch_seqs": str(batch),
        "device": device,
        "model_name": text(row, "model"),
        "family": "dense",
        "dtype": _dtype(text(row, "precision")),
        "framework": _framework(row, device, said),
    }
    plain = isinstance(model, dict)
    if plain or model.endswith(".json"):  # a file replaces the plain transformer below
        columns |= model if plain else {"layers": "1", "hidden": "128"}
    else:
        columns |= {"model_name": model}
    assumed: list[str] = []
    found = training_rows.scenario_of(columns, assumed)
    stack = next(
        (ours for word, ours in STACKS.items() if word in text(row, "software").lower()), ""
    )
    if stack:
        found = msgspec.structs.replace(found, stack=stack, attention=None)
    said += [line for line in assumed if "stack" in line or "framework" in line]
    return found if plain else msgspec.structs.replace(found, model=model)


def _framework(row: Row, device: str, said: list[str]) -> str:
    """The software of a row; Megatron-LM where it names none that is known."""
    given = text(row, "software")
    if re.search("lit-gpt|xformers", given.lower()):
        return "lit-gpt"
    if re.search("neox|deepspeed", given.lower()):
        return "Megatron-DeepSpeed 2022"
    record = hwdb.device(device)
    if first_match(given, llm_names().stacks) or record.kind != "gpu":
        return given
    if not any(word in given.lower() for word in STACKS):
        said.append("software: Megatron-LM (none that is known is told)")
    return "megatron-core" if (record.year or 0) >= MODERN else "megatron-lm 2021"


def _dtype(cell: str) -> str:
    lower = cell.lower()
    if "fp8" in lower and "not told" not in lower and "elsewhere" not in lower:
        return "fp8"
    return "fp16" if "fp16" in lower and "bf16" not in lower else "bf16"


def _laid_out(s: Scenario, devices: int, layout: dict[str, Any], said: list[str]) -> Scenario:
    """The scenario in the fastest layout that fits, with the degrees that are told."""
    if devices == 1:
        how, why = training.least_recompute(s)
        said.append(why)
        return msgspec.structs.replace(s, recompute=how)
    told = {name: layout.get(name) for name in ("tp", "pp", "vpp", "dp", "cp", "ep", "zero")}
    bare = msgspec.structs.replace(
        s, devices=None, etp=None, sp=None, shard=None, micro_batch=None, schedule=None,
        system=None, **told,
    )  # fmt: skip
    found = explore(bare, devices, few=True)
    best = found.best(1)
    if not best and told["zero"] is None:
        found = explore(msgspec.structs.replace(bare, recompute="full", zero=3), devices, few=True)
        best = found.best(1)
    if not best:
        smallest = found.smallest()
        if smallest is None:
            raise BadInput(f"no layout of {s.device} on {devices:,} devices can be")
        best = [smallest]
        said.append("no layout is forecast to fit; times are as if the smallest did")
    given = found.options[best[0]]
    degrees = " ".join(f"{k} {v}" for k, v in given.items() if v not in (None, 1, False))
    how = "the rest of the layout" if layout else "layout"
    said.append(f"{how}: the fastest that fits ({degrees})")
    return msgspec.structs.replace(found.scenario_of(best[0]), devices=devices)
