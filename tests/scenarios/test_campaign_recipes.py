"""Recipes of named trainings whose net is counted in its main part: the facts of their sources."""

from pathlib import Path

import pytest

from roofcast import scenarios
from roofcast.scenarios.campaigns import language
from roofcast.scenarios.campaigns.forecasts import score
from roofcast.scenarios.campaigns.plans import plan
from roofcast.simulator.forecast.counts import count

NETS = Path(scenarios.__file__).parent / "nets"
NVIDIA = "github:NVIDIA/DeepLearningExamples:"


def row_of(model, note="", device="A100-SXM4-80GB", **more):
    folder = more.pop("source", f"{NVIDIA}{model}/README.md")
    return {"model": model, "device": device, "devices": "8", "note": note, "source": folder,
            "source_name": "NVIDIA DeepLearningExamples time-to-train"} | more  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        # tan2020, Table 2: 3.9 M parameters, 2.5 G products; here each level has its own heads
        ("efficientdet-d0", 3.9e6, 5.0e9),
        # naumov2019: 13-512-256-128 and 479-1024-1024-512-256-1; the table is 1000 rows of 128
        ("dlrm-criteo", 2.37e6 + 128e3, 4.74e6),
        # kong2020, Table 1: 13.92 M of the generator; the discriminators 4 x 70.7 M
        ("hifi-gan", 13.92e6 + 4 * 70.7e6, None),
        # VGG-19's convolutions (20.02 M); decoders of five inputs to 64 channels, and 320 to 320
        ("unet3plus-vgg19", 20.02e6 + 9 * 64 * (1472 + 1280 + 1344 + 1536) + 4 * 9 * 320**2, None),
    ],
)
def test_nets_have_the_parameters_and_work_that_their_papers_state(name, parameters, flops):
    counted = count(str(NETS / f"{name}.toml"), batch=1)
    assert counted.parameters == pytest.approx(parameters, rel=0.1)
    if flops:
        assert counted.flops_forward == pytest.approx(flops, rel=0.1)


@pytest.mark.parametrize(
    ("row", "each", "samples"),
    [
        (row_of("TensorFlow2/Segmentation/Contrib/UNet3P", "#GPU=8; AMP=✗"), 16, 4.52e6),
        (row_of("TensorFlow2/Detection/Efficientdet",
                "GPUs=8; Precision=TF32; Local Batch size=104"), 104, 118287 * 400),
        (row_of("TensorFlow2/Detection/Efficientdet", "GPUs=32; Local Batch size=40",
                "V100-SXM2-32GB", devices="32"), 40, 118287 * 350),
        (row_of("TensorFlow/Segmentation/VNet", "GPUs=8; Batch size / GPU=2",
                "V100-SXM2-16GB"), 2, 234 * 320),
        (row_of("PyTorch/SpeechSynthesis/HiFiGAN", "Batch size / GPU=16; GPUs=8"), 16, 8.125e7),
        (row_of("PyTorch/Recommendation/DLRM", "GPUs=8; Batch size / GPU=8k"), 8192, 4195197692),
        (row_of("PyTorch/SpeechRecognition/wav2vec2", "GPUs=8; batch size / GPU=8 x 1400k"),
         56, 400_000 * 8 * 56),
    ],
)  # fmt: skip
def test_batches_and_lengths_of_named_examples(row, each, samples):
    found = plan(row)
    (s,) = found.phases
    assert (s.batch // s.devices, s.samples) == (each, samples)
    assert any(line.startswith("length: ") for line in found.assumed)


def test_fine_tuning_of_wav2vec_leaves_the_convolutions_as_they_are():
    note = "GPUs=8; batch size / GPU=1 x 3200k max tokens"
    row = row_of("PyTorch/SpeechRecognition/wav2vec2", note, precision="tf32")
    assert plan(row).phases[0].freeze == "feature_extractor"
    frozen = score(row).hours.value
    (every,) = plan(
        row_of("PyTorch/SpeechRecognition/wav2vec2", note.replace("3200k", "1400k"))
    ).phases
    assert every.freeze is None and frozen > 0


def test_formats_of_a_table_that_ticks_them():
    precisions = [
        plan(row_of("TensorFlow2/Segmentation/Contrib/UNet3P", f"#GPU=8; XLA=✗; AMP={tick}"))
        .phases[0]
        .precision
        for tick in "✗✓"
    ]
    assert precisions == ["tf32", "amp-fp16"]


def test_a_character_model_is_compiled_and_evaluated():
    row = {"model": "char-gpt 6x384 (nanoGPT shakespeare)", "device": "A100", "devices": "1",
           "steps": "5000", "global_batch": "64", "seq": "256", "device_hours": "0.05"}  # fmt: skip
    (s,) = plan(row).phases
    assert s.stack.startswith("pytorch-compiled") and s.tokens == 5000 * 64 * 256
    assert s.campaign == {"eval_every": 250, "eval_samples": 25600}
    assert score(row).ratio < 3


def test_pairs_of_images_and_text_are_a_language_model_and_a_tower():
    row = {"model": "llama-3.2-vision-11b pretrain 1", "device": "H100-SXM5-80GB"}
    text, images = plan(row).phases
    assert (text.model, text.sequence, text.tokens) == ("llama-3.1-8b", 192, 192 * 6e9)
    assert (images.model, images.image) == ("vit_huge_patch14_224", 336)
    assert images.devices == text.devices and images.samples == pytest.approx(4 * 6e9 * 1.35)
    refused = score(row | {"model": "llama-3.2-vision-11b RLHF"}).refused
    assert refused.startswith("its length is not told")
    assert score({"model": "llama-3.2-1b QLoRA(QAT)", "device": "H100"}).refused.startswith(
        "its len"
    )


@pytest.mark.parametrize(
    ("stage", "tokens", "images", "said"),
    [
        ("annealing", 500e6 * 192, 500e6, "about 500 million images"),
        ("SFT", 3e6 * 512, 3e6, "over 3 million synthetic examples"),
    ],
)
def test_later_stages_of_llama_3_2_vision_have_their_published_length(
    stage, tokens, images, said, monkeypatch
):
    monkeypatch.setattr(language, "_laid_out", lambda scenario, *_: scenario)  # no search
    monkeypatch.setattr(language, "_measured", lambda *_: None)
    row = {"model": f"llama-3.2-vision-11b {stage}", "device": "H100-SXM5-80GB", "devices": "8"}
    found = plan(row | {"includes": "total GPU time"})
    words, tower = found.phases
    assert words.tokens == pytest.approx(tokens) and tower.image == 560
    # four tiles per image, by an encoder of 850 million parameters in place of one of 632 million
    assert tower.samples == pytest.approx(images * 4 * 850 / 630, rel=0.01)
    assert any(said in line for line in found.assumed)


@pytest.mark.parametrize("stage", ["RLHF", "11b"])
def test_a_stage_without_a_published_length_is_refused(stage):
    row = {"model": f"llama-3.2-vision-11b {stage}", "device": "H100-SXM5-80GB", "devices": "8"}
    assert "its length is not told" in score(row).refused
