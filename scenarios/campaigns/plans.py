"""A row of a table of whole trainings as scenarios: one per phase, each with its length."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import msgspec

from roofcast.scenarios.campaigns import language, words
from roofcast.scenarios.measured import net_words, nets
from roofcast.scenarios.measured.cells import Row, positive, rows, text
from roofcast.simulator import models
from roofcast.simulator.forecast.scenario import Scenario

PER_DEVICE = {"image": 64, "table": 1024}  # samples of a step where none tells
TOKENS = 8192  # of a step of a device, where none tells
NODE = 8
VALIDATION = 50000  # images of ImageNet's validation set, read once per epoch
EXAMPLES = nets.HERE / "runs" / "nvidia-deeplearningexamples.csv"
# families of models that read tokens and are trained as nets are: on samples of a data set
ENCODERS = ("bert", "vaswani", "gnmt", "transformer_xl", "electra")
ITERATIONS = r"(\d+)k iterations of batch (\d+)"


class Plan(NamedTuple):
    """What a row asks to be forecast."""

    group: str  # language model | net
    phases: tuple[Scenario, ...]
    assumed: tuple[str, ...]


def plan(row: Row) -> Plan:
    """The scenarios of a row. Raises BadInput or UnknownName where none can be made of it."""
    said: list[str] = []
    row = words.filled(row)
    device, assumed = words.device_of(row)
    said += [assumed] if assumed else []
    named = words.model_named(row)
    if named.name and text(row, "tokens") and language.other_size(row, named.name):
        said.append(f"not {named.name}, which has another number of parameters")
        named = words.Named("", 1.0, "")
    said += [named.said] if named.said else []
    if not named.name and not positive(text(row, "params")):
        raise words.refuse(
            f"model {text(row, 'model')}: not a shipped model, and the number of its parameters is"
            " not told; fill the column params for a plain transformer of that size"
        )
    found = models.resolve(named.name, (), "gpu") if named.name else None
    takes = found.takes if found else "sequence"
    counted = "samples" in words.recipe_of(row)  # a recipe counts samples of nets, tokens of others
    generates = found is None or (found.family not in ENCODERS and not counted)
    if takes == "sequence" and (text(row, "tokens") or generates):
        group, phases = "language model", language.phases(row, named, device, said)
        phases += _tower(words.recipe_of(row), phases[0])
    else:
        group, phases = "net", _net(row, named, takes, device, said)
    return Plan(group, phases, tuple(said))


def _tower(recipe: dict[str, Any], text_part: Scenario) -> tuple[Scenario, ...]:
    """The training of an encoder of images beside a language model, on the same devices, plain data
    parallel; none where the recipe has none.
    """
    if "tower" not in recipe:
        return ()
    tower, devices = recipe["tower"], text_part.devices or 1
    return (
        Scenario(
            model=tower["model"], device=text_part.device, devices=devices,
            batch=tower["batch"] * devices, image=tower["image"], samples=tower["samples"],
        ),
    )  # fmt: skip


def _net(
    row: Row, named: words.Named, takes: str, device: str, said: list[str]
) -> tuple[Scenario, ...]:
    """The phases of a net, plain data parallel."""
    recipe = words.recipe_of(row)
    devices = words.devices_of(row)
    if devices is None:
        devices = NODE
        said.append(f"{NODE} devices (not given)")
    if words.of_one_node(row):
        said.append(f"{devices:,} devices of the note; the row's own hours are those of one node")
    said.append("plain data parallel" if devices > 1 else "one device")
    side, views = None, 1.0
    if takes == "image":
        side, views, crops = words.image_of(row)
        side = recipe.get("image") or side or named.image
        said += [crops] if crops else []
    sequence = words.sequence_of(row) or recipe.get("sequence")
    batch = _batch(row, recipe, devices, sequence)
    two = words.phases_of(row)
    base = msgspec.structs.replace(
        _step(row, named.name, device, devices, batch, takes, said, two[0] if two else None),
        image=side,
        sequence=sequence if takes == "sequence" else None,
    )
    if takes == "image" and (parts := _by_image(row)):
        return tuple(msgspec.structs.replace(base, samples=n, image=side) for n, side in parts)
    samples = _samples(row, recipe, named, base.batch or 1, takes, said) * views * named.passes
    then = recipe.get("then", {})
    share = then.get("share", 0.0)
    read = _evaluated(samples, base.batch or 1, takes, recipe)
    first = msgspec.structs.replace(base, samples=samples * (1 - share), campaign=read)
    if not then:
        return (first,)
    more = float(then.get("samples") or samples * share) * named.passes
    if two:
        base = _step(row, named.name, device, devices, batch, takes, [], two[1])
    return first, msgspec.structs.replace(base, samples=more, sequence=then["sequence"])


def _batch(row: Row, recipe: dict[str, Any], devices: int, sequence: int | None) -> int:
    """Samples of a step on all devices; 0 where nothing tells."""
    told = words.batch_of(row, devices, sequence)
    each = recipe.get("batch", 0) * devices or recipe.get("batch_all", 0)
    if recipe.get("own_batch"):
        return int(each)
    iterations = re.search(ITERATIONS, text(row, "note"))
    return told or each or (int(iterations[2]) if iterations else 0)


def _by_image(row: Row) -> list[tuple[float, int]]:
    """Samples and sides of images of the phases: "1,126,400,000 at 256 + 1,740,800,000 at 512"."""
    found = re.findall(r"([\d,]+) at (\d+)", text(row, "samples"))
    return [(float(n.replace(",", "")), int(side)) for n, side in found]


def _evaluated(samples: float, batch: int, takes: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Evaluation once per epoch of ImageNet."""
    each = words.table()["data"]["imagenet"]
    if takes != "image" or samples < each or recipe.get("samples", each) != each:
        return {}
    return {"eval_every": max(round(each / batch), 1), "eval_samples": VALIDATION}


def _samples(
    row: Row, recipe: dict[str, Any], named: words.Named, batch: int, takes: str, said: list[str]
) -> float:
    """Samples of the whole run."""
    steps, epochs = positive(text(row, "steps")), positive(text(row, "epochs"))
    given = words.count(text(row, "samples"))
    if given:
        return given * (epochs or 1.0)
    if steps:
        return steps * batch
    iterations = re.search(ITERATIONS, text(row, "note"))
    if iterations:
        return 1e3 * float(iterations[1]) * float(iterations[2])
    told = re.search(r"(\d+)\s*(?:E\)|epochs)", f"{text(row, 'note')} {text(row, 'model')}")
    epochs = epochs or (float(told[1]) if told else None)
    if recipe.get("samples"):
        said.append(f"length: {recipe['source']}")
        return float(recipe["samples"]) * (epochs or recipe["epochs"]) * recipe.get("loops", 1)
    if takes == "image" and (epochs or named.classifies):
        epochs = epochs or float(words.table()["usual"]["image_epochs"])
        said.append(f"{epochs:g} epochs of ImageNet (length or data set not given)")
        return float(words.table()["data"]["imagenet"]) * epochs
    raise words.refuse("its length is not told: fill the column samples, epochs or steps")


def _step(
    row: Row,
    model: str,
    device: str,
    devices: int,
    batch: int,
    takes: str,
    said: list[str],
    phase: tuple[int, int] | None = None,
) -> Scenario:
    """The scenario of a net's step, in columns of measured runs of nets.

    phase: samples of a device and accumulations, of a phase that the row tells.
    """
    recipe = words.recipe_of(row)
    per, times = phase or (batch // devices, 1)
    per = per or _example_batch(model, device, text(row, "precision"))
    sequence = words.sequence_of(row) or recipe.get("sequence", 128)
    batch = batch or (per if phase else 0)
    if not per:
        per = PER_DEVICE.get(takes) or max(TOKENS // sequence, 1)
        said.append(f"{per} samples per device (not given)")
    elif not batch:
        said.append(f"{per} samples per device (as in the page's table of throughputs)")
    columns = {
        "model": model,
        "device": device,
        "precision": _precision(row),
        "mode": "train",
        "batch_per_device": str(max(per, 1)),
        "n_devices": str(devices),
        "micro_batches": str(times * recipe.get("loops", 1)),
        "framework": _framework(row),
        "source_name": text(row, "source_name"),
        "step_time_ms": "1",
        "source_where": f"{text(row, 'source')} {text(row, 'where')}",
        "input": f"seq_len {sequence}" if takes == "sequence" else "",
        "layout": "nhwc" if "channels_last" in text(row, "precision") else "",
    }
    found = nets.run(columns)
    if found.scenario is None:
        raise words.refuse(found.refused)
    return msgspec.structs.replace(found.scenario, freeze=recipe.get("freeze"))


def _framework(row: Row) -> str:
    name, note = text(row, "model"), text(row, "note")
    given = name.split("/")[0] if name.count("/") >= 2 else text(row, "software") or "PyTorch"
    compiled = "XLA" in note and not re.search("XLA-OFF|XLA=(?:No|✗)", note)
    return f"{given} XLA" if compiled and given.startswith("Tensor") else given


def _precision(row: Row) -> str:
    cell = text(row, "precision").lower()
    note = re.search(r"Precision=(\w+)", text(row, "note"))
    if not cell and note:
        cell = {"fp16": "amp-fp16", "amp": "amp-fp16"}.get(note[1].lower(), note[1].lower())
    if cell.startswith(("amp", "apex")) or "mixed" in cell:
        return "amp-bf16" if "bf16" in cell else "amp-fp16"
    if not cell and re.search("AMP=(?:✗|No)", text(row, "note")):
        return "tf32" if text(row, "device").startswith("A100") else "fp32"
    return cell or "amp-fp16"


@functools.cache
def _examples() -> tuple[Row, ...]:
    return tuple(rows(EXAMPLES, "measured runs"))


def _example_batch(model: str, device: str, precision: str) -> int:
    """The largest batch per device at which the shipped table has a throughput of this model, on a
    device of this kind and in this format; 0 where there is none.
    """
    amp, found = "amp" in precision, [0]
    for r in _examples():
        same = r["mode"] == "train" and ("amp" in r["precision"]) == amp
        if same and r["device"].lower().startswith(device[:4]) and r["batch_per_device"]:
            if net_words.model_of(r["model"], r["framework"]) == model:
                found.append(int(float(r["batch_per_device"])))
    return max(found)
