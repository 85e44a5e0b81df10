"""The measured runs most like a step: it is said when none of them is near."""

import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main
from roofcast.reports.pages.nearest import model_kind, none_is_near
from roofcast.simulator import models

NEAR = [
    ("resnet50", "rtx-3090"),
    ("resnet50", "h100-sxm5"),
    ("llama-3-8b", "h100-sxm5"),
    ("bert-large", "a100-sxm4-80gb"),
    ("gnmt", "a100-sxm4-40gb"),
]
FAR = [
    ("gpt2", "m1", "none is on m1 or its family"),
    ("neumf", "tpu-v4", "none is of a recommender model"),
    ("deepspeech2", "groq-lpu", "none is on groq-lpu"),
    ("mixtral-8x7b", "mi300x", "none is on mi300x or its family"),
]
KINDS = {
    "resnet50": "convolutional",
    "unet3d": "convolutional",
    "dcgan-generator": "convolutional",
    "gpt2": "transformer",
    "roberta-base": "transformer",
    "vit_base_patch16_224": "transformer",
    "bilstm64": "recurrent",
    "deepspeech2": "recurrent",
    "dlrm": "recommender",
    "deepseek-v3": "moe",
}


@pytest.mark.parametrize(("model", "device"), NEAR)
def test_nothing_is_said_where_a_run_is_near(model, device):
    assert none_is_near(predict(model, device)) == ""


@pytest.mark.parametrize(("model", "device", "said"), FAR)
def test_it_is_said_when_none_is_near(model, device, said):
    assert said in none_is_near(predict(model, device))
    words = ("predict", model, "--on", device)
    text = " ".join(CliRunner().invoke(main, words, env={"COLUMNS": "120"}).stdout.split())
    assert f"measured runs (in device, stack, kind of model and size) none is near: {said}" in text
    assert "constants were fitted to such runs" not in text


def test_runs_on_a_chip_of_ones_own_are_never_near(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text(
        'name = "C"\n[peak_flops]\nbf16 = "400 TFLOP/s"\n[memory]\nbandwidth = "3 TB/s"\n'
    )
    assert "none is on chip" in none_is_near(predict("resnet50", str(path)))


@pytest.mark.parametrize(("model", "kind"), KINDS.items())
def test_kinds_of_models_are_told_from_their_layers(model, kind):
    assert model in models.names() and model_kind(predict(model, "h100-sxm5", batch=1)) == kind
