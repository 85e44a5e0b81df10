"""A row of a table of whole trainings as scenarios: one per phase, each with its length."""

from __future__ import annotations

import functools
import math
import re
from typing import Any, NamedTuple, cast

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.campaigns import words
from roofcast.scenarios.measured import nets, training_rows
from roofcast.scenarios.measured.cells import Row, positive, rows, text
from roofcast.scenarios.measured.training import least_recompute
from roofcast.simulator import models
from roofcast.simulator.choose.explore import explore
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models import Model

PER_DEVICE = {"sequence": 8, "image": 64, "table": 1024}  # samples of a step where none tells
DAYS = 30.0  # of a run of a language model whose number of devices is not told
NODE = 8
MFU = 0.4  # for that number alone
ASPECT = 128  # width over layers of a plain transformer
BATCHES = ((2e9, 0.5e6), (6e9, 1e6), (100e9, 4e6), (math.inf, 16e6))  # parameters, tokens
VALIDATION = 50000  # images of ImageNet's validation set, read once per epoch
EXAMPLES = nets.HERE / "runs" / "nvidia-deeplearningexamples.csv"


class Plan(NamedTuple):
    """What a row asks to be forecast."""

    group: str  # language model | net
    phases: tuple[Scenario, ...]
    assumed: tuple[str, ...]


def plan(row: Row) -> Plan:
    """The scenarios of a row. Raises BadInput or UnknownName where none can be made of it."""
    said: list[str] = []
    device, assumed = words.device_of(row)
    said += [assumed] if assumed else []
    named = words.model_named(row)
    said += [named.said] if named.said else []
    if not named.name and not positive(text(row, "params")):
        raise words.refuse(
            f"model {text(row, 'model')}: not a shipped model, and the number of its parameters is"
            " not told"
        )
    takes = models.resolve(named.name, (), "gpu").takes if named.name else "sequence"
    if takes == "sequence" and (text(row, "tokens") or not named.name or _is_language(named.name)):
        return _language(row, named, device, said)
    return _net(row, named, takes, device, said)


def _is_language(name: str) -> bool:
    family = models.resolve(name, (), "gpu").family
    return family not in ("bert", "transformer", "gnmt", "transfo-xl", "transformer-xl")


def _language(row: Row, named: words.Named, device: str, said: list[str]) -> Plan:
    """A language model: in the layout that is told, or the fastest that a search finds."""
    recipe = words.recipe_of(row)
    model, params = _language_model(row, named, said)
    tokens = words.count(text(row, "tokens")) or recipe.get("tokens")
    sequence = words.sequence_of(row) or recipe.get("sequence") or 2048
    steps = positive(text(row, "steps"))
    if not tokens and not steps:
        raise words.refuse("its length is not told: neither tokens nor steps")
    if tokens:
        tokens *= positive(text(row, "epochs")) or 1.0
    devices = words.devices_of(row)
    batch = words.batch_of(row, devices or 0, sequence) or recipe.get("batch")
    if not batch:
        batch = max(round(_usual_tokens(params) / sequence), 1)
        said.append(f"batch of {batch * sequence / 1e6:.2g} million tokens (not given)")
    if not devices:
        devices = _usual_devices(6 * params * (tokens or 0), device, batch)
        said.append(f"{devices:,} devices (not given)")
    layout = words.layout_of(row)
    base = _scenario(row, model, device, devices, sequence, batch, layout, said)
    laid = _laid_out(base, devices, layout, said)
    length = tokens or steps * batch * sequence  # type: ignore[operator]
    return Plan("language model", (msgspec.structs.replace(laid, tokens=length),), tuple(said))


def _language_model(row: Row, named: words.Named, said: list[str]) -> tuple[Any, float]:
    """A shipped model by its name, or the columns of a plain transformer; and its parameters."""
    params = positive(text(row, "params"))
    if named.name:
        return named.name, params or _parameters(named.name)
    assert params is not None, "checked by the caller"
    width = max(round((params * ASPECT / 12) ** (1 / 3) / ASPECT), 1) * ASPECT
    layers = max(round(params / (12 * width * width)), 1)
    said.append(f"a plain transformer of {params:.4g} parameters: {layers} layers, {width} wide")
    return {"layers": str(layers), "hidden": str(width)}, params


@functools.cache
def _parameters(name: str) -> float:
    from roofcast.simulator.forecast.counts import count

    return float(count(name).parameters)


def _usual_tokens(params: float) -> float:
    """Tokens of a batch by size of the model [brown2020, Table 2.1; grattafiori2024, Table 4]."""
    return next(tokens for most, tokens in BATCHES if params <= most)


def _usual_devices(flops: float, device: str, batch: int) -> int:
    """Whole nodes, a power of two, that take about DAYS for so many FLOPs."""
    peak = max(map(float, hwdb.device(device).peak_flops.values()), default=1e14)
    many = flops / (MFU * peak * DAYS * 86400.0)
    nodes = 2 ** max(round(math.log2(max(many / NODE, 1.0))), 0)
    return int(min(nodes * NODE, 2 ** int(math.log2(batch)) if batch >= NODE else NODE))


def _scenario(
    row: Row, model: Any, device: str, devices: int, sequence: int, batch: int,
    layout: dict[str, Any], said: list[str],
) -> Scenario:  # fmt: skip
    """The scenario of a language model, in columns of published training runs."""
    columns = {
        "n_devices": str(devices), "seq_len": str(sequence), "global_batch_seqs": str(batch),
        "device": device, "model_name": text(row, "model"), "family": "dense",
        "dtype": _dtype(text(row, "precision")), "framework": text(row, "software"),
    }  # fmt: skip
    plain = isinstance(model, dict)
    columns |= model if plain else {"model_name": model}
    columns |= {k: str(v) for k, v in layout.items() if k in ("tp", "pp", "cp", "ep", "vpp")}
    if "zero" in layout:
        columns["zero_stage"] = str(layout["zero"])
    assumed: list[str] = []
    found = training_rows.scenario_of(columns, assumed)
    said += [line for line in assumed if "stack" in line or "framework" in line]
    return found if plain else msgspec.structs.replace(found, model=model)


def _dtype(words_of: str) -> str:
    lower = words_of.lower()
    if "fp8" in lower and "not told" not in lower and "elsewhere" not in lower:
        return "fp8"
    return "fp16" if "fp16" in lower and "bf16" not in lower else "bf16"


def _laid_out(s: Scenario, devices: int, layout: dict[str, Any], said: list[str]) -> Scenario:
    """The scenario in the layout that is told, with the least recomputation that fits; else in the
    fastest layout that fits.
    """
    if "tp" in layout or "pp" in layout or devices == 1:
        how, why = least_recompute(s)
        said.append(why)
        return msgspec.structs.replace(s, recompute=how)
    bare = msgspec.structs.replace(
        s, devices=None, tp=None, pp=None, vpp=None, dp=None, cp=None, ep=None, etp=None, sp=None,
        zero=layout.get("zero"), shard=None, micro_batch=None, schedule=None, system=None,
    )  # fmt: skip
    found = explore(bare, devices, few=True)
    best = found.best(1)
    if not best:
        raise BadInput(f"no layout of {s.device} fits on {devices:,} devices")
    chosen = msgspec.structs.replace(found.scenario_of(best[0]), devices=devices)
    given = found.options[best[0]]
    degrees = " ".join(f"{k} {v}" for k, v in given.items() if v not in (None, 1, False))
    said.append(f"layout: the fastest that fits ({degrees})")
    return chosen


def _net(row: Row, named: words.Named, takes: str, device: str, said: list[str]) -> Plan:
    """A net, plain data parallel."""
    recipe = words.recipe_of(row)
    devices = words.devices_of(row)
    if devices is None:
        devices = NODE
        said.append(f"{NODE} devices (not given)")
    side, views, crops = words.image_of(row)
    said += [crops] if crops else []
    if takes != "image":
        side, views = None, 1.0
    side = recipe.get("image") or side
    sequence = words.sequence_of(row) or recipe.get("sequence")
    batch = words.batch_of(row, devices, sequence) or recipe.get("batch", 0) * devices
    base = _of_net(row, named.name, device, devices, batch, takes, said)
    base = msgspec.structs.replace(
        base,
        image=side if takes == "image" else None,
        sequence=sequence if takes == "sequence" else None,
    )
    samples = _samples(row, recipe, base.batch or 1, takes, said) * views * named.passes
    phases = []
    then = recipe.get("then", {})
    share = then.get("share", 0.0)
    phases.append(msgspec.structs.replace(base, samples=samples * (1 - share), campaign=_read(
        samples, base.batch or 1, takes, recipe)))  # fmt: skip
    if then:
        more = then.get("samples") or samples * share
        length = then["sequence"]
        phases.append(msgspec.structs.replace(base, samples=more, sequence=length))
    said.append("plain data parallel" if devices > 1 else "one device")
    return Plan("net", tuple(phases), tuple(said))


def _read(samples: float, batch: int, takes: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Evaluation once per epoch of ImageNet."""
    each = words.table()["data"]["imagenet"]
    if takes != "image" or samples < each or recipe.get("samples", each) != each:
        return {}
    return {"eval_every": max(round(each / batch), 1), "eval_samples": VALIDATION}


def _samples(row: Row, recipe: dict[str, Any], batch: int, takes: str, said: list[str]) -> float:
    """Samples of the whole run."""
    steps, epochs = positive(text(row, "steps")), positive(text(row, "epochs"))
    given = words.count(text(row, "samples"))
    if given:
        return given * (epochs or 1.0)
    if steps:
        return steps * batch
    told = re.search(r"(\d+)\s*(?:E\)|epochs)", f"{text(row, 'note')} {text(row, 'model')}")
    if recipe.get("samples"):
        if told:
            epochs = float(told[1])
        said.append(f"length: {recipe['source']}")
        return float(recipe["samples"]) * (epochs or recipe["epochs"])
    epochs = epochs or (float(told[1]) if told else None)
    if epochs and takes == "image":
        said.append("epochs of ImageNet (data set not given)")
        return words.table()["data"]["imagenet"] * epochs
    raise words.refuse("its length is not told: neither samples nor steps")


def _of_net(
    row: Row, model: str, device: str, devices: int, batch: int, takes: str, said: list[str]
) -> Scenario:
    """The scenario of a net's step, in columns of measured runs of nets."""
    per = batch // devices if batch else _example_batch(model, device, text(row, "precision"))
    if not per:
        per = PER_DEVICE[takes]
        said.append(f"{per} samples per device (not given)")
    elif not batch:
        said.append(f"{per} samples per device (as in the page's table of throughputs)")
    name = text(row, "model")
    framework = name.split("/")[0] if name.count("/") >= 2 else text(row, "software") or "PyTorch"
    if "XLA" in text(row, "note") and "XLA-OFF" not in text(row, "note"):
        framework += " XLA" if framework.startswith("Tensor") else ""
    columns = {
        "model": model, "device": device, "precision": _precision(row), "mode": "train",
        "batch_per_device": str(max(per, 1)), "n_devices": str(devices), "framework": framework,
        "source_name": text(row, "source_name"), "step_time_ms": "1",
        "source_where": f"{text(row, 'source')} {text(row, 'where')}",
        "input": f"seq_len {words.sequence_of(row) or words.recipe_of(row).get('sequence', 128)}"
        if takes == "sequence" else "",
        "layout": "nhwc" if "channels_last" in text(row, "precision") else "",
    }  # fmt: skip
    found = nets.run(cast("Row", columns))
    if found.scenario is None:
        raise words.refuse(found.refused)
    return found.scenario


def _precision(row: Row) -> str:
    cell = text(row, "precision").lower()
    note = re.search(r"Precision=(\w+)", text(row, "note"))
    if not cell and note:
        cell = note[1].lower()
        cell = {"fp16": "amp-fp16", "amp": "amp-fp16", "mixed": "amp-fp16"}.get(cell, cell)
    if cell.startswith("amp") or cell.startswith("apex") or "mixed" in cell:
        return "amp-bf16" if "bf16" in cell else "amp-fp16"
    return cell or "amp-fp16"


@functools.cache
def _examples() -> tuple[Row, ...]:
    return tuple(rows(EXAMPLES, "measured runs"))


def _example_batch(model: str, device: str, precision: str) -> int:
    """The largest batch per device at which the shipped table has a throughput of this model, on a
    device of this family and in this format; 0 where there is none.
    """
    from roofcast.scenarios.measured import net_words

    family, amp = device[:4], "amp" in precision
    found = [
        int(float(r["batch_per_device"]))
        for r in _examples()
        if r["mode"] == "train" and r["device"].lower().startswith(family)
        and ("amp" in r["precision"]) == amp and net_words.model_of(r["model"]) == model
        and r["batch_per_device"]
    ]  # fmt: skip
    return max(found, default=0)


__all__ = ["Model", "Plan", "plan"]
