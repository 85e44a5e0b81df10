"""What people call a model: the shipped model is found, or those that they may mean are named."""

import pytest

from roofcast import predict
from roofcast.hwdb.errors import UnknownName
from roofcast.simulator import models
from roofcast.simulator.models.aliases import ALIASES, SEVERAL

CALLED = {
    "gpt-3": "gpt3-175b",
    "gpt3": "gpt3-175b",
    "gpt-2": "gpt2",
    "vit": "vit_base_patch16_224",
    "transformer": "transformer",
    "bert": "bert-base",
    "yolo": "yolov3",
    "unet": "unet",
    "mlp": "mlp",
    "clip": "clip-vit-base-patch32",
}
MEANT = {
    "gan": "dcgan-generator",
    "dcgan": "dcgan-generator",
    "mnist": "keras-mnist-cnn",
    "dense": "mlp",
    "DeepSpeech": "deepspeech2",
    "llama": "llama-3.1-8b",
    "llama3": "llama-3-8b",
    "llama-2": "llama-2-7b",
    "mistral": "mistral-7b",
    "qwen": "qwen2.5-7b",
    "qwen3": "qwen3-8b",
    "resnet": "resnet50",
    "diffusion": "sd-1.5-unet",
    "chatgpt": "gpt3-175b",
    "lstm": "bilstm64",
    "whisper": "whisper-base",
}


@pytest.mark.parametrize(("typed", "model"), CALLED.items())
def test_a_model_is_found_by_the_name_people_call_it(typed, model):
    assert models.resolve(typed).name == models.describe(typed).name == model


@pytest.mark.parametrize(("typed", "first"), MEANT.items())
def test_a_word_for_several_models_is_answered_with_some_of_them(typed, first):
    with pytest.raises(UnknownName, match=f"no model '{typed}'; did you mean (.* or )?{first}[? ]"):
        models.resolve(typed)


@pytest.mark.parametrize("word", [word for word in SEVERAL if word not in ALIASES])
def test_words_for_several_models_name_shipped_ones(word):
    with pytest.raises(UnknownName, match="did you mean"):
        models.resolve(word)
    assert set(SEVERAL[word]) <= set(models.names())


def test_another_name_is_an_assumption_and_another_spelling_is_none():
    said = predict(model="vit", device="h100-sxm5", batch=1).assumptions
    assert "model vit: taken as vit_base_patch16_224" in said
    assert not any("taken as" in a for a in predict("ResNet-50", "h100-sxm5", batch=1).assumptions)


def test_a_name_may_be_divided_otherwise():
    for typed, name in {"qwen-2.5-72b": "qwen2.5-72b", "Llama3-8B": "llama-3-8b"}.items():
        assert models.resolve(typed).name == name
