"""Named nets have PyTorch's counts: parameters, FLOPs, bytes saved for backward."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from kinds import kind_of_model, one_in_turn
from looped import each

from roofcast import predict
from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.simulator.models import resolve
from roofcast.simulator.models.aliases import ALIASES
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.models.nets import NETS
from roofcast.simulator.models.other.recurrent import build as recurrent_net
from roofcast.simulator.work.precision import PRECISIONS, precision
from roofcast.simulator.work.tape import Tape

TABLE = Path(__file__).parent.parent / "oracle" / "nets.csv"


def _rows():
    with TABLE.open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _counts(tape: Tape) -> dict[str, int]:
    saved = {"activation": 0, "input": 0, "weight_copy": 0}
    for _, held, count, kind, *_ in tape.saved.values():
        saved[kind] += held * count
    return {
        "parameters": sum(w.size * w.count for w in tape.weights),
        "flops_forward": sum(k.matrix * k.count for k in tape.kernels if k.phase == "forward"),
        "flops_backward": sum(k.matrix * k.count for k in tape.kernels if k.phase == "backward"),
        "saved_bytes": saved["activation"],
        "saved_input_bytes": saved["input"],
        "saved_weight_copy_bytes": saved["weight_copy"],
    }


def _run(name, batch, size, policy="fp32", attention="flash", training=True) -> Tape:
    tape = Tape(precision(policy), training=training, implementations={"attention": attention})
    return resolve(name).run(tape, batch, size)


@pytest.mark.parametrize("row", _rows(), ids=lambda r: "-".join(list(r.values())[:5]))
def test_counts_equal_those_of_pytorch(row):
    size = int(row["size"]) if row["size"] else None
    counted = _counts(
        _run(row["name"], int(row["batch"]), size, row["precision"], row["attention"])
    )
    assert counted == {key: int(row[key]) for key in counted}


@pytest.mark.parametrize(
    ("cell", "layers", "both_ways", "parameters", "forward", "backward", "saved"),
    # torch 2.13.0, fp32: embedding of 4 x 16, nn.LSTM, nn.GRU or nn.RNN of width 24 over 10 steps
    # of 4 samples, linear to 2
    [
        # the fused GRU: a fake kernel that returns a workspace of five states, as RNN.cu does; its
        # FLOPs equal those of a real nn.GRU
        ("lstm", 1, False, 4146, 307584, 596736, 57476),
        ("lstm", 1, True, 8226, 615168, 1193472, 112004),
        ("lstm", 2, False, 8946, 676224, 1315584, 115844),
        ("lstm", 2, True, 22434, 1721088, 3368448, 227972),
        ("gru", 1, False, 3138, 230784, 447744, 49412),
        ("gru", 1, True, 6210, 461568, 895488, 95876),
        ("gru", 2, False, 6738, 507264, 986880, 99716),
        ("gru", 2, True, 16866, 1291008, 2526720, 195716),
        ("rnn", 1, False, 1122, 77184, 149760, 7556),
        ("rnn", 1, True, 2178, 154368, 299520, 12164),
        ("rnn", 2, False, 2322, 169344, 329472, 16004),
        ("rnn", 2, True, 5730, 430848, 843264, 28292),
    ],
)
def test_recurrent_layers_have_the_counts_of_pytorch(
    cell, layers, both_ways, parameters, forward, backward, saved
):
    tape = Tape(precision("fp32"))
    recurrent_net(
        tape,
        4,
        10,
        vocabulary=4,
        width=16,
        hidden=24,
        classes=2,
        cell=cell,
        layers=layers,
        both_ways=both_ways,
    )
    counted = _counts(tape)
    assert (counted["parameters"], counted["flops_forward"], counted["flops_backward"]) == (
        parameters,
        forward,
        backward,
    )
    assert counted["saved_bytes"] + counted["saved_input_bytes"] == saved


@pytest.mark.parametrize(
    ("name", "millions", "digits", "where"),
    [
        ("resnet50", 25.6, 1, "torchvision's weight table: 25,557,032"),
        ("resnext50_32x4d", 25.0, 1, "Xie et al. 2016, Table 1"),
        ("vgg16", 138, 0, "Simonyan and Zisserman 2014, Table 2"),
        ("alexnet", 61, 0, "torchvision's weight table: 61,100,840"),
        ("densenet121", 8.0, 1, "torchvision's weight table: 7,978,856"),
        ("xception", 22.9, 1, "Chollet 2016, Table 3: 22,855,952"),
        ("efficientnet_b0", 5.3, 1, "Tan and Le 2019, Table 2"),
        ("efficientnet_b4", 19, 0, "Tan and Le 2019, Table 2"),
        ("efficientnet_b7", 66, 0, "Tan and Le 2019, Table 2"),
        ("mobilenetv3_large_100", 5.5, 1, "torchvision's weight table: 5,483,032"),
        ("convnext_tiny", 29, 0, "Liu et al. 2022, Table 1"),
        ("convnext_base", 89, 0, "Liu et al. 2022, Table 1"),
        ("swin_tiny_patch4_window7_224", 28, 0, "Liu et al. 2021 (Swin), Table 1"),
        ("swin_large_patch4_window7_224", 197, 0, "Liu et al. 2021 (Swin), Table 1"),
        ("maxvit_tiny_tf_224", 31, 0, "Tu et al. 2022, Table 2"),
        ("regnety_160", 83.6, 1, "Radosavovic et al. 2020, Table 6"),
        ("mixer_l16_224", 208, 0, "Tolstikhin et al. 2021, Table 1: 208 million"),
        (
            "yolov3",
            61.949,
            3,
            "Redmon and Farhadi 2018: yolov3.weights holds 61,949,149 trained numbers",
        ),
        ("faster-rcnn-r50-fpn", 41.755, 3, "torchvision's weight table: 41,755,286"),
        ("mask-rcnn-r50-fpn", 44.401, 3, "torchvision's weight table: 44,401,393"),
        ("resnext101_32x4d", 44.18, 2, "timm's results table: 44.18"),
        ("seresnext101_32x4d", 48.96, 2, "timm's results table: 48.96"),
        ("jasper", 333, 0, "Li et al. 2019, Table 4: 333 million"),
        ("quartznet", 18.9, 1, "Kriman et al. 2019, Table 2: 18.9 million"),
        (
            "stylegan2-generator",
            30.0,
            1,
            "Karras et al. 2019, configuration F: 30 million at 256x256",
        ),
        ("unet-diffusion", 35.7, 1, "Ho et al. 2020, Appendix B: 35.7 million"),
    ],
)
def test_parameters_round_to_the_published_number(name, millions, digits, where):
    parameters = _counts(_run(name, 1, None))["parameters"]
    assert round(parameters / 1e6, digits) == pytest.approx(millions), where


@pytest.mark.parametrize(
    ("name", "parameters", "forward", "backward", "kept"),
    # torch 2.13.0, fp32, 2 samples of 160 frames; bytes kept up to the log-softmax, without the
    # states of CTC
    [
        ("jasper", 332632349, 106403266560, 212748861440, 92786528),
        ("quartznet", 18924381, 6031052800, 12061429760, 89770528),
    ],
)
def test_speech_nets_have_the_counts_of_pytorch_up_to_the_loss(
    name, parameters, forward, backward, kept
):
    tape = _run(name, 2, 160)
    counted = _counts(tape)
    assert (counted["parameters"], counted["flops_forward"], counted["flops_backward"]) == (
        parameters,
        forward,
        backward,
    )
    loss = sum(
        held * count
        for node, held, count, *_ in tape.saved.values()
        if tape.nodes[node].name == "loss"
    )
    log_probabilities = 4 * 2 * 80 * 29
    assert counted["saved_bytes"] - loss + log_probabilities == kept


TRIED = one_in_turn(sorted(NETS), PRECISIONS, kind_of_model)


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_runs_in_every_precision_in_training_and_inference(name):
    """Every precision on the first net of a module, one in turn on its others."""
    for policy in TRIED[name]:
        assert _run(name, 2, None, policy).kernels
        inferred = _run(name, 2, None, policy, training=False)
        assert not inferred.saved and all(k.phase == "forward" for k in inferred.kernels)


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "swin_tiny_patch4_window7_224",
        "efficientnet_b0",
        "bilstm64",
        "unet-diffusion",
        "dlrm",
        "vae-cf",
        "vnet",
        "gnmt",
    ],
)
def test_flops_are_proportional_to_the_batch(name):
    one, three = (_counts(_run(name, batch, None)) for batch in (2, 6))
    assert three["flops_forward"] == 3 * one["flops_forward"]
    assert three["parameters"] == one["parameters"]


@each("alias", sorted(ALIASES))
def test_aliases_lead_to_models(alias):
    assert ALIASES[alias] in NETS or ALIASES[alias] in SHIPPED


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("alexnet", 40, "features.12"),
        ("densenet121", 16, "features.transition3.pool"),
        ("inception_v3", 60, "Mixed_7a.branch3x3.2.conv"),
        ("vgg16", 16, "features.30"),
        ("lenet", 28, "fc1"),
        ("cnn-224", 64, "fc1"),
        ("vit-b16", 225, "patch_embed.proj"),
        ("swin_tiny_patch4_window7_224", 200, "downsample"),
        ("maxvit_tiny_tf_224", 100, "stem.conv1"),
        ("unet", 100, "down3.pool"),
        ("yolov3", 100, "head.1.cat"),
        ("faster-rcnn-r50-fpn", 100, "backbone.fpn"),
        ("dcgan-discriminator", 32, "main.11"),
        ("stylegan2-generator", 100, "synthesis"),
        ("ssd300", 200, "additional_blocks.4.3"),
        ("ssd320-r50-fpn", 300, "fpn"),
        ("unet-medical", 500, "bottleneck"),
        ("unet-industrial", 500, "up0.cat"),
        ("unet3d", 100, "the net halves"),
        ("nnunet-2d", 100, "the net halves"),
        ("vnet", 36, "the net halves"),
    ],
)
def test_an_image_that_does_not_fit_is_rejected_with_the_name_of_the_layer(name, size, layer):
    with pytest.raises(BadInput) as error:
        _run(name, 2, size)
    message = str(error.value)
    assert message.startswith(layer) and "\n" not in message and "[2, " in message


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("google/gemma-2-9b-it", "gemma-2-9b"),
        ("Qwen/Qwen3-4B-Base", "qwen3-4b"),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mixtral-8x22b"),
        ("google-t5/t5-base", "t5-base"),
        ("openai/whisper-base", "whisper-base"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"),
    ],
)
def test_a_hub_id_stands_for_the_shipped_model(reference, name):
    assert resolve(reference).name == name


def test_the_model_used_for_a_hub_id_is_an_assumption():
    forecast = predict(model="meta-llama/Llama-3.1-8B", device="h100-sxm5", batch=1)
    shipped = predict(model="llama-3.1-8b", device="h100-sxm5", batch=1)
    ids = ("meta-llama/Llama-3.1-8B", "llama-3.1-8b")
    assert any(all(name in text for name in ids) for text in forecast.assumptions)
    assert forecast.step_time_s == shipped.step_time_s


@pytest.mark.parametrize(
    "reference",
    ["nobody/Coder-7B", "./llama-3-8b", "/nowhere/llama-3-8b", "a/b/llama-3-8b", "~/llama-3-8b"],
)
def test_an_unknown_hub_id_and_a_missing_path_are_rejected(reference):
    with pytest.raises(UnknownName, match=f"no model '{reference}'"):
        resolve(reference)
