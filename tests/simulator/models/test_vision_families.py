"""Denoisers, autoencoders and encoders have the counts of PyTorch."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import resolve
from roofcast.simulator.models.catalog import from_config
from roofcast.simulator.models.families.table import CLASSES
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

TABLE = Path(__file__).parents[1] / "oracle" / "vision.csv"
UNET = {"_class_name": "UNet2DConditionModel"}


def _rows():
    with TABLE.open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _kind(raw):
    return raw.get("_class_name") or raw["model_type"]


def _named(row):
    model = row["model"] if row["model"][0] != "{" else _kind(json.loads(row["model"])) + "*"
    return f"{model}-{row['batch']}x{row['size']}-{row['precision']}-{row['attention']}"


def _model(reference):
    if reference[0] == "{":
        return from_config("inline", json.loads(reference))
    return resolve(reference)


def _counts(tape):
    saved = dict.fromkeys(("activation", "input", "weight_copy"), 0)
    for _, held, count, kind, *_ in tape.saved.values():
        saved[kind] += held * count
    flops = dict.fromkeys(("forward", "backward"), 0)
    for k in tape.kernels:
        flops[k.phase] += k.matrix * k.count
    return {
        "parameters": sum(w.size * w.count for w in tape.weights),
        "flops_forward": flops["forward"],
        "flops_backward": flops["backward"],
        "saved_bytes": saved["activation"],
        "saved_input_bytes": saved["input"],
    }


@pytest.mark.parametrize("row", _rows(), ids=_named)
def test_counts_equal_those_of_pytorch(row):
    how = "eager" if row["attention"] == "eager" else "flash"
    tape = Tape(precision(row["precision"]), implementations={"attention": how})
    _model(row["model"]).run(tape, int(row["batch"]), int(row["size"]))
    counted = _counts(tape)
    assert counted == {key: int(row[key]) for key in counted}


def test_every_class_of_diffusers_has_a_reference_count():
    inline = (json.loads(r["model"]) for r in _rows() if r["model"][0] == "{")
    assert {raw.get("_class_name") for raw in inline} - {None} == set(CLASSES)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # of the checkpoint on the Hugging Face Hub, without position buffers
        ("sd-1.5-unet", 859_520_964),
        ("sd-2.1-unet", 865_910_724),
        ("sdxl-unet", 2_567_463_684),
        ("sd3-medium", 2_028_328_000),
        ("sd3.5-large", 8_056_627_520),
        ("flux-dev", 11_901_408_320),
        ("flux-schnell", 11_891_178_560),
        ("sd-vae", 83_653_863),
        ("sdxl-vae", 83_653_863),
        ("flux-vae", 83_819_683),
    ],
)
def test_denoisers_have_the_published_parameters(name, parameters):
    tape = resolve(name).run(Tape(precision("bf16")), 1)
    assert _counts(tape)["parameters"] == parameters


def test_a_denoiser_says_what_its_latents_and_texts_are():
    forecast = predict(model="sd-1.5-unet", device="a100-sxm4-80gb", batch=4)
    assert any("512x512" in text and "77 text tokens" in text for text in forecast.assumptions)
    assert forecast.samples_per_s > 0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"_class_name": "NoSuchModel"}, "_class_name 'NoSuchModel' is not known; known: Auto"),
        ({**UNET, "class_embed_type": "timestep"}, "class_embed_type 'timestep' is not modeled"),
        ({**UNET, "down_block_types": ["AttnDownBlock2D"] * 4}, "AttnDownBlock2D' is not modeled"),
        ({**UNET, "block_out_channels": [320, 640]}, "down_block_types has 4 entries"),
        ({**UNET, "attention_head_dim": [5, 10]}, "attention_head_dim must be 4 positive numbers"),
        ({**UNET, "attention_head_dim": 7}, "320 channels are not divisible by 7 heads"),
        ({"_class_name": "SD3Transformer2DModel", "qk_norm": "x"}, "qk_norm 'x' is not modeled"),
        ({"_class_name": "SD3Transformer2DModel", "num_layers": 0}, "num_layers"),
        ({"_class_name": "FluxTransformer2DModel", "attention_head_dim": 64}, "add up to 128"),
        ({"_class_name": "DiTTransformer2DModel", "norm_type": "ada_norm_single"}, "norm_type"),
        ({"_class_name": "AutoencoderKL", "norm_num_groups": 7}, "divisible by norm_num_groups"),
    ],
)
def test_a_configuration_that_is_not_modeled_is_refused_in_one_line(raw, message):
    with pytest.raises(BadInput, match=message) as error:
        from_config("x", raw, "config.json").run(Tape(precision("bf16")), 1)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "size"), [("flux-dev", 40), ("sd3-medium", 8000), ("dit-xl-2", 40), ("sd-vae", 100)]
)
def test_a_side_that_does_not_fit_is_refused(name, size):
    with pytest.raises(BadInput, match="side"):
        resolve(name).run(Tape(precision("bf16")), 1, size)


@pytest.mark.parametrize("name", ["sd-1.5-unet", "sdxl-unet", "sd3-medium", "flux-dev", "sd-vae"])
def test_images_refuse_a_cut_of_the_model_and_take_data_parallelism(name):
    with pytest.raises(BadInput, match="tp|whole"):
        predict(model=name, device="h100-sxm5", batch=8, tp=2)
    assert predict(model=name, device="h100-sxm5", batch=8, dp=8, zero=3).step_time_s > 0
    assert predict(model=name, device="h100-sxm5", batch=1, mode="infer").step_time_s > 0


def test_shipped_denoisers_are_shipped():
    assert {"sd-1.5-unet", "sdxl-unet", "sd3-medium", "flux-dev", "dit-xl-2"} <= set(SHIPPED)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # of transformers' module on the meta device; where the Hub prints a number, the same
        ("albert-base", 11_221_680),
        ("deberta-v3-base", 184_551_780),
        ("distilbert-base", 66_985_530),
        ("modernbert-base", 149_655_232),
        ("xlm-roberta-base", 278_295_186),
        ("siglip-base-patch16-224", 203_155_970),
        ("dinov2-base", 86_580_480),
        ("dinov3-vitb16", 85_660_416),
        ("wav2vec2-base", 94_396_320),
    ],
)
def test_encoders_have_the_published_parameters(name, parameters):
    model = resolve(name)
    tape = model.run(Tape(precision("bf16")), 1, model.size if model.takes == "image" else None)
    assert _counts(tape)["parameters"] == parameters


ENCODERS = ("modernbert-base", "albert-base", "mpnet-base", "deberta-v3-base", "wav2vec2-base")


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    "how", [{}, {"mode": "infer"}, {"tp": 2}, {"tp": 4, "sp": True}, {"dp": 2, "zero": 3}]
)
def test_encoders_train_infer_and_take_layouts(name, how):
    assert predict(model=name, device="h100-sxm5", batch=8, **how).step_time_s > 0


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("albert-base", {"pp": 2}, "share their weights"),
        ("deberta-v3-base", {"cp": 2}, "no fused kernel; use cp 1"),
        ("mpnet-base", {"cp": 2}, "use cp 1"),
        ("wav2vec2-base", {"cp": 2}, "not split; use cp 1"),
        ("dinov2-base", {"tp": 2}, "whole|tp"),
    ],
)
def test_a_layout_that_an_encoder_cannot_take_is_refused(name, how, message):
    with pytest.raises(BadInput, match=message):
        predict(model=name, device="h100-sxm5", batch=8, **how)


def test_the_layers_of_albert_share_their_weights_also_under_tensor_parallelism():
    whole, half = (
        resolve("albert-base").run(Tape(precision("amp-bf16"), parallel=parallel), 1, 64)
        for parallel in (Parallel(), Parallel(tp=2))
    )
    one, two = (_counts(tape)["parameters"] for tape in (whole, half))
    assert one / 2 < two < 0.6 * one
    copies = sum(s.bytes * s.count for s in whole.saved.values() if s.kind == "weight_copy")
    assert 0 < copies < 2 * one  # autocast's casts of shared weights are made once, too
