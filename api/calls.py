"""What users call: `predict` and `roofline`, with every field as a typed keyword argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import numpy

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.records import System
from roofcast.results import Forecast
from roofcast.scenarios.own_runs import forecast_with_runs
from roofcast.scenarios.unused import with_unused
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

if TYPE_CHECKING:
    from roofcast.simulator.choose.sensitivity import Sensitivity

FIELDS = frozenset(Scenario.__struct_fields__)
LISTS = {  # fields that are lists, with examples
    "inputs": '["64x3x32x32"]',
    "offload": '["activations"]',
    "stages": "[16, 16]",
}
OTHER_NAMES = {  # what other tools call our fields
    **dict.fromkeys(("on", "gpu", "chip", "hardware"), "device"),
    **dict.fromkeys(("seq", "seq_len", "seqlen", "sequence_length", "length"), "sequence"),
    **dict.fromkeys(("batch_size", "bs", "global_batch_size"), "batch"),
    **dict.fromkeys(("dtype", "amp"), "precision"),
    **dict.fromkeys(("gpus", "num_gpus", "world_size", "n_devices"), "devices"),
    **dict.fromkeys(("input", "input_shape", "shapes"), "inputs"),
    **dict.fromkeys(("image_size", "img_size", "resolution"), "image"),
    "price": "price_per_hour",
    "edits": "set",
    "fsdp": "zero",
    "zero_stage": "zero",
    "mbs": "micro_batch",
}


def predict(
    model: Any = None,
    device: str | None = None,
    *,
    inputs: Sequence[str] = (),
    set: Mapping[str, str | float] | None = None,
    mode: str = "train",
    batch: int | None = None,
    sequence: int | None = None,
    lengths: str | None = None,
    packing: bool | None = None,
    image: int | None = None,
    precision: str | None = None,
    optimizer: str | None = None,
    recompute: str = "none",
    offload: Sequence[str] = (),
    offload_to: str | None = None,
    nvme_bandwidth: str | float | None = None,
    attention: str | None = None,
    stack: str | None = None,
    memory_format: str | None = None,
    lora: int | None = None,
    lora_targets: str | None = None,
    lora_precision: str | None = None,
    lora_dropout: float | None = None,
    dora: bool | None = None,
    prompt_tuning: int | None = None,
    prefix_tuning: int | None = None,
    freeze: str | None = None,
    train: str | None = None,
    weights: str | None = None,
    encoders: str | None = None,
    train_text_encoder: bool | None = None,
    sparsity: str | None = None,
    prune: str | None = None,
    teacher: str | None = None,
    teacher_on: str | None = None,
    teacher_devices: int | None = None,
    teacher_top_k: int | None = None,
    devices: int | None = None,
    system: str | System | None = None,
    tp: int | None = None,
    sp: bool | None = None,
    pp: int | None = None,
    vpp: int | None = None,
    stages: Sequence[int] = (),
    dp: int | None = None,
    cp: int | None = None,
    cp_kind: str | None = None,
    ep: int | None = None,
    etp: int | None = None,
    zero: int | None = None,
    shard: int | None = None,
    reshard: bool | None = None,
    schedule: str | None = None,
    micro_batch: int | None = None,
    tokens: str | float | None = None,
    samples: str | float | None = None,
    epochs: float | None = None,
    price_per_hour: float | None = None,
    pue: float | None = None,
    region: str | None = None,
    carbon: float | None = None,
    embodied: bool | None = None,
    campaign: Mapping[str, Any] | None = None,
    runs: str | Path | Sequence[str | Path] = (),
    **unknown: Never,
) -> Forecast:
    """Forecast one step of a model on a device, and the whole run where its length is given.

    What is left out gets the default stated here, and the forecast lists it under assumptions.

    model: a shipped name, the path of a config.json, of a .toml list of layers or of an .onnx
        file, "my_net.py:MyNet", or a torch module in hand; a Scenario in place of all fields.
    device: name of a device, or path of a .toml file.
    inputs: shapes of what a traced module takes: ["64x3x32x32"], ["ids=64x128:int64"].
    set: changes to the device: {"memory.bandwidth": "8 TB/s"}.
    mode: "train" (default) or "infer".
    batch: samples per step, of all devices. Default: 1 sequence, 32 images, 1024 table rows.
    sequence: tokens per sample. Default: what the model was made for, at most 4096.
    lengths: of samples that differ, "MEAN,MAX" in tokens or a file; packing: they fill whole
        sequences. Default: micro-batches are padded to their longest sample.
    image: side of a square image [pixels]. Default: what the model was made for.
    precision: number format. Default: the best 16-bit format of the device.
    optimizer: default "adamw"; "none" for forward and backward alone.
    recompute: "none" (default), "selective", "full", "uniform:N", "every:N", "block:N", or
        "modules:NAME,NAME".
    offload: what is kept in host memory: "activations", "optimizer", "parameters" (with the
        optimizer). Default: nothing.
    offload_to: where parameters and optimizer states go, "host" (default) or "nvme";
        nvme_bandwidth: of the drives, per device, "6 GB/s". Default: one PCIe 4.0 x4 drive.
    attention: "eager", "efficient" or "flash". Default: the stack's.
    stack: software stack. Default: "pytorch-eager"; on TPUs "jax-xla", on NPUs their compiler's.
    memory_format: of images, "contiguous" or "channels_last". Default: the stack's.
    lora: rank of LoRA adapters that train beside frozen weights. Default: all weights train.
    lora_targets: "all" (default), "attention", "mlp", names such as "q,v", or a regular expression.
    lora_precision: "fp32", "bf16" or "fp16". Default: the format of the weights.
    lora_dropout: probability before the adapters. Default: 0. dora: DoRA's adapters.
    freeze, train: regular expressions of the names of ops whose weights do not train, or do.
    weights: format of weights that do not train, in inference of all: "nf4", "int8", "fp8", "bf16",
        "int4", "nvfp4", "mxfp4" or "q4_k_m".
    encoders: frozen encoders that run in each training step before a diffusion model: "vae",
        "text" or "vae,text"; train_text_encoder: its CLIP text encoders train with it.
    prompt_tuning, prefix_tuning: virtual tokens that train in front of the sequence, or of the keys
        and values of every layer, beside frozen weights.
    sparsity: zeros among the weights, in inference: "2:4", or scattered ones, "50%".
    prune: a smaller net: "heads=25%", "ffn=25%", "layers=25%", "experts=50%", "channels=25%".
    teacher: distillation: a frozen model on whose logits this one is trained, named as `model`.
    teacher_on: other devices that the teacher runs on, teacher_devices of them (default: 1), which
        send their logits over the network; teacher_top_k: of a token the largest so many.
    devices: number of devices. Default: tp x cp x pp x dp.
    system: node or pod the devices stand in. Default: the usual one of the device.
    tp, sp, pp, vpp, dp, cp, ep, etp: tensor, sequence, pipeline, virtual-pipeline, data, context,
        expert and expert-tensor parallel degrees. Default: 1; dp takes the devices that are left;
        sp is on where tp > 1.
    stages: layers of each pipeline stage. Default: equal.
    cp_kind: context-parallel algorithm: "ring" (default), "all-gather" or "ulysses".
    zero: ZeRO stage, 0 (default) to 3; 3 is FSDP.
    shard: size of a ZeRO sharding group. Default: all ranks that hold the same weights.
    reshard: ZeRO 3: drop gathered weights after each pass. Default: on, except with pp > 1.
    schedule: "1f1b" (default), "interleaved" (default where vpp > 1), "gpipe", "zb-h1", "zb-v" or
        "dualpipe".
    micro_batch: samples per micro-batch. Default: 1 in a pipeline, else a device's whole share.
    tokens: length of the run in tokens, a number or "15T"; or
    samples: samples of the data set, a number or "1.28M", passed `epochs` times (default 1).
    price_per_hour: USD per device-hour. Default: the rent on demand in hwdb/prices.
    pue: power of the site over that of its machines. Default: by kind of site.
    region, carbon: where the electricity comes from ("FRA", "US-TX"), or its intensity
        [g CO2e/kWh]. Default: no carbon.
    embodied: also the carbon of making the hardware. Default: False.
    campaign: what else is known of the run: {"start": "2027-03-01", "eval_every": 1000,
        "eval_tokens": "4M", "spares": 16, "stages": [{"tokens": "1T"}]}; keys in
        docs/campaigns.md.
    runs: file or files of your own measured runs, with the columns of `roofcast validate --runs`;
        those like this step (device, stack, kind of model, mode, format) calibrate the forecast.

    Raises RoofcastError: one line that says what is wrong and what would do.

    >>> forecast = predict("llama-3-8b", device="h100-sxm5", batch=1)
    >>> round(forecast.parameters / 1e9, 2)
    8.03
    """
    given = {k: v for k, v in locals().items() if k not in ("model", "unknown")}
    scenario = scenario_of(model, given | unknown)
    found = forecast_with_runs(scenario) if scenario.runs else forecast(scenario)
    return Forecast.of(with_unused(found, scenario), scenario)


def roofline(path: str | Path, model: Any = None, device: str | None = None, **fields: Any) -> Path:
    """Draw the roofline of a step into a .png, .svg or .pdf, and return its path.

    model, device and fields are those of `predict`. Forecast.plot_roofline draws one that is there
    already.
    """
    return predict(model, device, **fields).plot_roofline(path)


def sensitivity(model: Any = None, device: str | None = None, **fields: Any) -> Sensitivity:
    """What each number of the hardware is worth: the elasticity of the step time to it, and the
    seconds that twice the rate, or half the latency, saves.

    model, device and fields are those of `predict`. Raises RoofcastError.
    """
    from roofcast.simulator.choose.sensitivity import sensitivity as found

    return found(scenario_of(model, {"device": device, **fields}))


def scenario_of(model: Any, fields: Mapping[str, Any]) -> Scenario:
    """A Scenario of these fields, or `model` itself where it is one.

    A field that no scenario has is refused with the nearest known.
    """
    for name in fields.keys() - FIELDS:
        raise BadInput(f"no field {quoted(name)}; {_meant(name)}")
    chosen = {k: v for k, v in fields.items() if v is not None}
    if isinstance(model, Scenario):
        usual = Scenario(model=model.model, device=model.device)
        changed = [k for k, v in chosen.items() if v != getattr(usual, k)]
        if changed:
            raise BadInput(
                f"{changed[0]}: a Scenario holds every field already; change it with"
                " msgspec.structs.replace, or give the fields alone"
            )
        return model
    for name, value, example in (
        ("model", model, "llama-3-8b"),
        ("device", chosen.get("device"), "h100-sxm5"),
    ):
        if value is None:
            raise BadInput(f"{name} is missing; give one, for example {name}={quoted(example)}")
    if "runs" in chosen:
        chosen["runs"] = _files(chosen["runs"])
    for name in LISTS:
        chosen[name] = _listed(name, chosen.get(name, ()))
    return Scenario(model=model, **{k: _plain(v) for k, v in chosen.items()})


def _meant(name: str) -> str:
    """What was probably meant by a field that no scenario has."""
    known = Scenario.__struct_fields__
    close = [OTHER_NAMES[name]] if name in OTHER_NAMES else get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    """A field that is a list, as a tuple; shapes of inputs as text."""
    if isinstance(value, str) or hasattr(value, "shape"):
        shown = f" {quoted(value)}" if isinstance(value, str) else ""
        example = LISTS[name]
        raise BadInput(f"{name}{shown}: a list is wanted, for example {name}={example}")
    try:
        values = tuple(value)
    except TypeError as error:
        raise BadInput(f"{name} {value!r:.60}: a list is wanted") from error
    if name == "inputs" and isinstance(value, Mapping):
        return tuple(f"{argument}={_shape(v)}" for argument, v in value.items())
    if name == "inputs":
        return tuple(_shape(v) for v in values)
    return values


def _files(value: Any) -> Any:
    """One file or several, as texts; what is neither, as it is."""
    several = (value,) if isinstance(value, str | Path) else value
    if not isinstance(several, list | tuple):
        return several
    return tuple(str(each) if isinstance(each, Path) else each for each in several)


def _shape(value: Any) -> Any:
    """A shape as text; what is neither tuple nor list, as it is."""
    return "x".join(map(str, value)) if type(value) in (tuple, list) else value


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's."""
    return value.item() if isinstance(value, numpy.generic) else value
